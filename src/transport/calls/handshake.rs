//! `sslhandshake`: which connection it is done on.

use std::rc::Rc;

use crate::conf::{Context, LocConf};
use crate::nginx::Request;
use crate::transport::connection::Phase;
use crate::transport::connection::tls::{Handshake, failed, is_bad_name};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, PoolKey, SessionKey, SharedPoolKey};
use crate::transport::state::outcome::{Begun, Opened, Outcome, Slot};
use crate::transport::state::session::{Session, State};
use crate::transport::worker::Worker;
use crate::upstream::{Admission, Fitness};

impl Worker {
    /// `sslhandshake`. The outcome is `Handshaken`, or `Connected` if nothing had to be done. A
    /// connection from a pool is used if its handshake was the same as the one that is asked for;
    /// otherwise another connection replaces it.
    ///
    /// # Errors
    ///
    /// As with [`Worker::submit`].
    pub fn handshake(
        &mut self,
        key: SessionKey,
        request: Request,
        handshake: Handshake,
    ) -> Result<Begun, Error> {
        if !self.is_deferred(key, request) && self.shared_pool_of(key, request)?.is_none() {
            self.private_connection(key, request)?;
        }
        self.start_handshake(key, request, handshake)
    }

    pub fn start_handshake(
        &mut self,
        key: SessionKey,
        request: Request,
        handshake: Handshake,
    ) -> Result<Begun, Error> {
        self.check_idle(key)?;
        let conf = LocConf::of(request);
        let context = match conf.ssl() {
            Context::Made(context) => context,
            Context::Unusable => return Err(Error::NoContext),
            Context::None => return Err(Error::NoTls),
        };
        if handshake.server_name.as_deref().is_some_and(is_bad_name) {
            return Err(failed("SSL_set_tlsext_host_name failed"));
        }
        let tls = Rc::new(handshake.identity(context)?);
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let (connection, pool) = match session.state {
            State::Shared { shared_pool, .. } => {
                (None, self.leave_shared_for_tls(key, shared_pool)?)
            }
            State::Deferred { pool, .. } => (None, Some(pool)),
            State::Private(connection) => (
                Some(connection),
                self.connections.get(connection).and_then(|c| c.pool),
            ),
            _ => return Err(Error::Closed),
        };
        if let Some(connection_key) = connection
            && let Some(connection) = self.connections.get_mut(connection_key)
        {
            match &connection.tls {
                _ if connection.private().is_some_and(|private| private.quitting) => {
                    return Err(Error::Closed);
                }
                // nothing to do
                Some(known) if known.identity == tls => {
                    return Ok(Begun::Ready(Outcome::Connected));
                }
                None if connection.reused == 0 => {
                    if !connection.pipeline.is_quiet() {
                        return Err(Error::Unsolicited);
                    }
                    let pending = Box::new((handshake, tls));
                    let done = self.handshake_on(key, connection_key, pending);
                    return self.wait_for_handshake(key, done);
                }
                _ => {}
            }
        }
        // The session's connection, if it has one, does not fit. The session gets an idle
        // connection with the same TLS identity, or a new one. The pool already counts a connection
        // for the session, so a new one takes that place.
        if let Some(connection) = connection
            && !self.put_back(connection, request)
        {
            self.connections.remove(connection);
        }
        let connections = &self.connections;
        let alike = |connection: &ConnectionKey| {
            connections.get(*connection).is_some_and(|connection| {
                let known = connection.tls.as_ref();
                known.is_some_and(|known| known.identity == tls)
            })
        };
        let named = pool.and_then(|pool| self.pools.get_mut(pool));
        let idle = named.and_then(|named| named.pool.take(alike));
        if idle.is_none()
            && let Some(pool) = pool
        {
            self.claim(pool);
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.state = State::Closed;
        }
        if let Some(idle) = idle {
            self.take_idle(idle, key);
            return Ok(Begun::Ready(Outcome::Connected));
        }
        let pending = Box::new((handshake, tls));
        match self.open_for_handshake(key, pending, pool) {
            Ok(Opened::Pending) => Ok(Begun::Waiting),
            Ok(Opened::Connected) => {
                let connection = self.sessions.get(key).and_then(Session::connection);
                let done = self.handshake_now(connection.unwrap_or_default());
                self.wait_for_handshake(key, done)
            }
            Err(error) => {
                self.release_counted(pool);
                Err(error)
            }
        }
    }

    /// Does the handshake for which a connection was opened, and which can be done at once.
    pub fn handshake_now(&mut self, key: ConnectionKey) -> Result<bool, Error> {
        let connection = self.connections.get_mut(key).ok_or(Error::Closed)?;
        match std::mem::replace(&mut connection.phase, Phase::Established) {
            Phase::Connecting(Some(pending)) => self.run_handshake(key, pending),
            _ => Err(Error::Closed),
        }
    }

    /// Makes the caller wait for a handshake that is under way.
    pub fn wait_for_handshake(
        &mut self,
        key: SessionKey,
        done: Result<bool, Error>,
    ) -> Result<Begun, Error> {
        match done {
            Ok(false) => Ok(Begun::Waiting),
            Ok(true) => {
                self.take_back(key, Slot::Reader);
                Ok(Begun::Ready(Outcome::Handshaken))
            }
            Err(error) => {
                self.take_back(key, Slot::Reader);
                self.disconnect(key, State::Closed);
                Err(error)
            }
        }
    }

    /// Detaches a session for a TLS handshake, which is done on a private connection. From now on,
    /// connections to this server are not shared. Returns the pool that counts the new connection,
    /// if there is one.
    pub fn leave_shared_for_tls(
        &mut self,
        key: SessionKey,
        shared_pool: SharedPoolKey,
    ) -> Result<Option<PoolKey>, Error> {
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_pool) {
            shared_pool.tls = true;
        }
        self.disconnect(key, State::Closed);
        let pool = self.pool_for_private(key);
        let named = pool.and_then(|pool| self.pools.get_mut(pool));
        match named.map(|named| named.pool.admit(|_| Fitness::Unfit)) {
            Some(Admission::Wait) => {
                self.release_counted(pool);
                Err(Error::TooManyWaiting)
            }
            Some(Admission::Refuse) => Err(Error::TooManyWaiting),
            Some(Admission::Replace(unfit)) => {
                self.connections.remove(unfit);
                Ok(pool)
            }
            _ => Ok(pool),
        }
    }
}
