//! `sslhandshake`: which connection it is done on.

use std::rc::Rc;

use crate::conf::{Context, LocConf};
use crate::nginx::Request;
use crate::transport::connection::tls::{Handshake, failed, is_bad_name};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, PoolKey, SessionKey, SharedPoolKey};
use crate::transport::state::op::{Begun, Opened, Outcome, Work};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;
use crate::upstream::{Admission, Fitness};

impl Worker {
    /// `sslhandshake`. The outcome is `Handshaken`, or `Connected` if nothing
    /// had to be done. The identity of a connection taken from a pool is
    /// checked; one that was not made as asked for now is replaced by a new
    /// one.
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
                self.connections.get(connection).and_then(|l| l.pool),
            ),
            _ => return Err(Error::Closed),
        };
        if let Some(connection_key) = connection
            && let Some(connection) = self.connections.get_mut(connection_key)
        {
            match &connection.tls {
                _ if connection.quitting => return Err(Error::Closed),
                // nothing to do
                Some(known) if *known == tls => return Ok(Begun::Ready(Outcome::Connected)),
                None if connection.reused == 0 => {
                    if !connection.pipeline.is_quiet() {
                        return Err(Error::Unsolicited);
                    }
                    connection.handshake = Some((handshake, tls));
                    let done = self.run_handshake(connection_key);
                    return self.wait_for_handshake(key, done);
                }
                _ => {}
            }
        }
        // one out of the pool that was made like that, or a new one, in the
        // place that is counted for what there is now
        if let Some(connection) = connection
            && !self.put_back(connection, request)
        {
            self.connections.remove(connection);
        }
        let connections = &self.connections;
        let alike = |connection: &ConnectionKey| {
            connections
                .get(*connection)
                .is_some_and(|l| l.tls.as_ref() == Some(&tls))
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
        let done = self.open_for_handshake(key, (handshake, tls), pool);
        if done.is_err()
            && let Some(pool) = pool
        {
            self.release(pool);
            return done.map(|_| Begun::Waiting);
        }
        match done {
            Ok(Opened::Pending) => self.wait_for_handshake(key, Ok(false)),
            Ok(Opened::Connected) => {
                let connection = self
                    .sessions
                    .get(key)
                    .and_then(|session| session.connection());
                let done = connection.map_or(Err(Error::Closed), |connection| {
                    self.run_handshake(connection)
                });
                self.wait_for_handshake(key, done)
            }
            Err(error) => Err(error),
        }
    }

    /// Makes an operation of a handshake that is under way.
    pub fn wait_for_handshake(
        &mut self,
        key: SessionKey,
        done: Result<bool, Error>,
    ) -> Result<Begun, Error> {
        match done {
            Ok(true) => Ok(Begun::Ready(Outcome::Handshaken)),
            Err(error) => {
                self.disconnect(key, State::Closed);
                Err(error)
            }
            Ok(false) => {
                let op = self.new_op(Work::Connect);
                let op = op.inspect_err(|_| self.disconnect(key, State::Closed))?;
                let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
                session.reader = Some(op);
                Ok(Begun::Waiting)
            }
        }
    }

    /// Detaches a session for a TLS handshake, which is done on a connection of
    /// its own; so are those that will follow. The pool that counts it.
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
