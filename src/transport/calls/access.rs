//! Who may use a session, and by what it is connected.

use crate::nginx::Request;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, SessionKey, SharedPoolKey};
use crate::transport::state::session::{Session, State};
use crate::transport::worker::Worker;
use crate::upstream::{Admission, Fitness};

impl Worker {
    /// The shared pool that a session is attached to; `None` if it is attached to none.
    ///
    /// # Errors
    ///
    /// It belongs to another active request.
    #[inline(always)]
    pub fn shared_pool_of(
        &mut self,
        key: SessionKey,
        request: Request,
    ) -> Result<Option<SharedPoolKey>, Error> {
        match self.at_rest(key, request) {
            Some(&State::Shared { shared_pool, .. }) => Ok(Some(shared_pool)),
            Some(_) => Ok(None),
            None => self.shared_pool_of_slow(key, request),
        }
    }

    #[inline(never)]
    pub fn shared_pool_of_slow(
        &mut self,
        key: SessionKey,
        request: Request,
    ) -> Result<Option<SharedPoolKey>, Error> {
        self.reap(key);
        match self.sessions.get(key) {
            Some(session) => match session.state {
                State::Shared { .. } if session.request() != Some(request) => {
                    Err(Error::BadRequest)
                }
                State::Shared { shared_pool, .. } => Ok(Some(shared_pool)),
                _ => Ok(None),
            },
            None => Ok(None),
        }
    }

    /// Whether a session has no connection, nor is about to have one. One that the server closed
    /// while nobody used it is closed here, too: nothing was sent, so another can take its place.
    pub fn is_lost(&mut self, key: SessionKey) -> bool {
        self.reap(key);
        let Some(session) = self.sessions.get(key) else {
            return true;
        };
        match session.state {
            State::Closed | State::Broken { .. } => true,
            State::Private(connection) if !session.has_calls() => {
                let ended = self.connections.get(connection).is_some_and(|connection| {
                    connection.nginx.is_readable()
                        && connection.pipeline.is_answered()
                        && connection.nginx.peek() == Ok(0)
                });
                if ended {
                    self.disconnect(key, State::Closed);
                }
                ended
            }
            _ => false,
        }
    }

    /// Whether a session can take a command now: it is connected or about to be, and has sent no
    /// command whose reply no coroutine waits for yet.
    pub fn is_ready(&mut self, key: SessionKey) -> bool {
        !self.is_lost(key) && !self.sessions.get(key).is_some_and(Session::has_begun)
    }

    /// The connection of a connected session that `request` may use now. It may still be
    /// connecting, if it was deferred until now.
    ///
    /// # Errors
    ///
    /// It belongs to another active request, or it is not connected.
    #[inline(always)]
    pub fn private_connection(
        &mut self,
        key: SessionKey,
        request: Request,
    ) -> Result<ConnectionKey, Error> {
        match self.at_rest(key, request) {
            Some(State::Private(connection)) => Ok(*connection),
            _ => self.private_connection_slow(key, request),
        }
    }

    #[inline(never)]
    pub fn private_connection_slow(
        &mut self,
        key: SessionKey,
        request: Request,
    ) -> Result<ConnectionKey, Error> {
        self.reap(key);
        let Some(session) = self.sessions.get(key) else {
            return Err(Error::Closed);
        };
        match session.state {
            State::Closed | State::Broken { .. } => Err(Error::Closed),
            _ if session.request() != Some(request) => Err(Error::BadRequest),
            State::Connecting if self.is_joining(key) => Err(Error::BusyConnecting),
            // as with cosockets, there is no connection yet to be busy
            State::Connecting => Err(Error::Closed),
            State::Shared { shared_pool, .. } => self.take_private_connection(key, shared_pool),
            State::Deferred { .. } => match self.open_deferred(key) {
                Ok(()) => self.private_connection(key, request),
                Err(error) => Err(error),
            },
            State::Private(connection) => Ok(connection),
        }
    }

    /// Gives an attached session a connection of its own, which may still have to be opened.
    pub fn take_private_connection(
        &mut self,
        key: SessionKey,
        shared_pool: SharedPoolKey,
    ) -> Result<ConnectionKey, Error> {
        self.check_idle(key)?;
        let shared_pool = self
            .shared_pools
            .get_mut(shared_pool)
            .ok_or(Error::Closed)?;
        shared_pool.usage.note_plaintext();
        let address = shared_pool.address.ok_or(Error::Closed)?;
        self.disconnect(key, State::Closed);
        let pool = self.pool_for_private(key);
        let connections = &self.connections;
        let named = pool.and_then(|pool| self.pools.get_mut(pool));
        let admission = named.map(|named| {
            named
                .pool
                .admit(|connection| match connections.get(*connection) {
                    Some(connection) if connection.tls.is_none() => Fitness::Fits,
                    _ => Fitness::Unfit,
                })
        });
        match admission {
            Some(Admission::Reuse(connection)) => {
                self.take_idle(connection, key);
                return Ok(connection);
            }
            Some(Admission::Wait) => {
                self.release_counted(pool);
                return Err(Error::TooManyWaiting);
            }
            Some(Admission::Refuse) => return Err(Error::TooManyWaiting),
            Some(Admission::Replace(unfit)) => drop(self.connections.remove(unfit)),
            Some(Admission::Connect | Admission::Undecided) | None => {}
        }
        match self.open_address(key, address, pool, None) {
            Ok((connection, _)) => Ok(connection),
            Err(error) => {
                self.release_counted(pool);
                Err(error)
            }
        }
    }

    /// Whether `request` may connect this session: it belongs to no other active request.
    pub fn may_connect(&mut self, key: SessionKey, request: Request) -> Result<(), Error> {
        self.reap(key);
        match self.sessions.get(key).and_then(Session::request) {
            Some(owner) if owner != request => Err(Error::BadRequest),
            _ => Ok(()),
        }
    }

    /// Opens the plain connection of a session that was deferred.
    pub fn open_deferred(&mut self, key: SessionKey) -> Result<(), Error> {
        let Some(session) = self.sessions.get_mut(key) else {
            return Ok(());
        };
        let State::Deferred { pool, address } = &session.state else {
            return Ok(());
        };
        let (pool, address) = (*pool, **address);
        session.state = State::Closed;
        self.claim(pool);
        match self.open_address(key, address, Some(pool), None) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.release(pool);
                Err(error)
            }
        }
    }
}
