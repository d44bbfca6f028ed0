//! Connecting: through a pool's idle connections, its queue, or anew; closing.

use crate::nginx::Request;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, SessionKey};
use crate::transport::peer::Peer;
use crate::transport::state::outcome::Opened;
use crate::transport::state::pool::fitness;
use crate::transport::state::session::{Connecting, Session, State};
use crate::transport::worker::Worker;
use crate::upstream::Admission;
use crate::{fault, nginx};

impl Worker {
    /// Connects an object on behalf of `request`. Returns its session as well; the key is null if
    /// there is no memory for one. Errors as with [`Self::connect`].
    #[inline(always)]
    pub fn connect_object(
        &mut self,
        object: Connecting,
        request: Request,
        peer: &Peer<'_>,
    ) -> (SessionKey, Result<Opened, Error>) {
        let key = match object {
            Connecting::Again(key) => key,
            Connecting::New { timeouts, handle } => self.new_session(timeouts, handle),
        };
        match key.to_number().is_some() {
            true => (key, self.connect(key, request, peer)),
            false => (key, Err(Error::NoMemory)),
        }
    }

    /// Connects a session on behalf of `request`. An existing connection is closed first.
    ///
    /// # Errors
    ///
    /// [`Error::BadRequest`]: the session belongs to another active request.
    #[inline(always)]
    pub fn connect(
        &mut self,
        key: SessionKey,
        request: Request,
        peer: &Peer<'_>,
    ) -> Result<Opened, Error> {
        fault::point();
        if !self.make_room_for(peer) {
            return Err(Error::NoMemory);
        }
        if !self.sessions.get(key).is_some_and(Session::is_fresh) {
            self.close_for_connect(key, request)?;
        }
        if peer.multiplex.connections > 0
            && let Some(joined) = self.connect_shared(key, request, peer)
        {
            return joined;
        }
        self.start_connect(key, request, peer)
    }

    /// Connects a session by shared connections. `None`: connections to this peer are not shared,
    /// since they use TLS.
    pub fn connect_shared(
        &mut self,
        key: SessionKey,
        request: Request,
        peer: &Peer<'_>,
    ) -> Option<Result<Opened, Error>> {
        let shared_key = self.find_shared_pool(peer, request);
        if nginx::now() >= self.shared_pools.get(shared_key)?.renew_at {
            self.look_up_again(shared_key, request);
        }
        let shared_pool = self.shared_pools.get_mut(shared_key)?;
        if shared_pool.tls {
            return None;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return Some(Err(Error::Closed));
        };
        shared_pool.usage.enter(peer.multiplex.connections);
        session.backlog = peer.backlog;
        session.bounds = peer.multiplex.bounds;
        let bound = session.bind_to_request(key, request, shared_pool.name.pool.clone());
        let joined = match bound {
            Ok(()) if shared_pool.takes(&self.connections, peer.multiplex.connections) => {
                shared_pool.attach(shared_key, session);
                Ok(Opened::Connected)
            }
            Ok(()) => self.join(key, shared_key, request, peer),
            Err(error) => Err(error),
        };
        if joined.is_err() {
            self.leave_after_failure(shared_key);
        }
        Some(joined)
    }

    pub fn start_connect(
        &mut self,
        key: SessionKey,
        request: Request,
        peer: &Peer<'_>,
    ) -> Result<Opened, Error> {
        let pool = self.find_pool(peer);
        let named = pool.and_then(|pool| Some((pool, self.pools.get_mut(pool)?)));
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        let Some((pool, named)) = named else {
            session.bind_to_request(key, request, peer.pool_name().into())?;
            return self.begin_open(key, (peer.host, peer.port), None);
        };
        session.bind_to_request(key, request, named.name.clone())?;
        let (connections, tls) = (&self.connections, named.tls);
        let fitness = |connection: &ConnectionKey| {
            fitness(connections, tls, *connection, peer.host, peer.port)
        };
        match named.pool.admit(fitness) {
            Admission::Reuse(idle) => {
                if let Some(connection) = self.connections.get_mut(idle) {
                    session.enter(State::Private(idle));
                    connection.begin_use(key, Some(request));
                }
                Ok(Opened::Connected)
            }
            Admission::Undecided => {
                self.defer(key, pool, peer.host, peer.port);
                Ok(Opened::Connected)
            }
            Admission::Wait => self.enqueue(key, pool, peer),
            Admission::Refuse => Err(Error::TooManyWaiting),
            admission @ (Admission::Connect | Admission::Replace(_)) => {
                if let Admission::Replace(unfit) = admission {
                    self.connections.remove(unfit);
                }
                let begun = self.begin_open(key, (peer.host, peer.port), Some(pool));
                if begun.is_err() {
                    self.release(pool);
                }
                begun
            }
        }
    }

    /// `close()`. Errors as with [`Self::connect`].
    pub fn close(&mut self, key: SessionKey, request: Request) -> Result<(), Error> {
        fault::point();
        self.reap(key);
        if let Some(session) = self.sessions.get_mut(key)
            && let State::Broken { .. } = session.state
        {
            session.state = State::Closed;
            return Ok(());
        }
        if self.is_deferred(key, request) {
            self.disconnect(key, State::Closed);
            return Ok(());
        }
        if self.shared_pool_of(key, request)?.is_none() {
            self.private_connection(key, request)?;
        }
        self.check_idle(key)?;
        self.disconnect(key, State::Closed);
        Ok(())
    }

    /// Closes the connection of a session that is about to connect again.
    #[cold]
    pub fn close_for_connect(&mut self, key: SessionKey, request: Request) -> Result<(), Error> {
        self.may_connect(key, request)?;
        self.check_idle(key)?;
        self.disconnect(key, State::Closed);
        Ok(())
    }
}
