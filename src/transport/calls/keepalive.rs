//! `setkeepalive`.

use std::rc::Rc;

use crate::fault;
use crate::nginx::{self, Msec, Request};
use crate::ngx_lua::Settings;
use crate::transport::connection::Connection;
use crate::transport::error::{Error, KeepaliveError};
use crate::transport::ids::{ConnectionKey, PoolKey, SessionKey, SharedPoolKey};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;
use crate::transport::worker::pools::settings;

impl Worker {
    /// `setkeepalive`: gives a session's connection to its pool, for at most `timeout` milliseconds
    /// of idleness (0: for ever; `None`: as the location says). `pool_size` matters only if the
    /// pool is created now. The session is retired then, see [`Self::retire`].
    ///
    /// # Errors
    ///
    /// [`Error::BadRequest`]: the session belongs to another active request. The session keeps its
    /// connection unless the error is `Dubious`.
    pub fn set_keepalive(
        &mut self,
        key: SessionKey,
        request: Request,
        timeout: Option<Msec>,
        pool_size: Option<i64>,
    ) -> Result<Option<usize>, KeepaliveError> {
        match self.at_rest(key, request) {
            Some(&State::Private(connection)) => {
                self.pool_connection(key, connection, request, timeout, pool_size)
            }
            Some(&State::Shared { shared_pool, .. }) => {
                self.keep_shared(key, shared_pool, request, timeout, pool_size)
            }
            _ => self.keep_slow(key, request, timeout, pool_size),
        }
    }

    #[cold]
    pub fn keep_slow(
        &mut self,
        key: SessionKey,
        request: Request,
        timeout: Option<Msec>,
        pool_size: Option<i64>,
    ) -> Result<Option<usize>, KeepaliveError> {
        if self.is_deferred(key, request) {
            // nothing was taken from the pool yet, so nothing goes back
            return Ok(self.close_and_retire(key));
        }
        if let Some(shared_pool) = self.shared_pool_of(key, request)? {
            fault::point();
            self.check_idle(key)?;
            return self.keep_shared(key, shared_pool, request, timeout, pool_size);
        }
        let connection = self.private_connection(key, request)?;
        // report closed before busy
        let ended = self
            .connections
            .get(connection)
            .is_none_or(Connection::has_ended);
        match self.check_idle(key) {
            Err(busy) if !ended => Err(busy.into()),
            _ => self.pool_connection(key, connection, request, timeout, pool_size),
        }
    }

    /// `setkeepalive` of a session at rest with a connection of its own.
    #[inline(always)]
    pub fn pool_connection(
        &mut self,
        key: SessionKey,
        connection_key: ConnectionKey,
        request: Request,
        timeout: Option<Msec>,
        pool_size: Option<i64>,
    ) -> Result<Option<usize>, KeepaliveError> {
        let connection = self
            .connections
            .get_mut(connection_key)
            .ok_or(Error::Closed)?;
        if connection.has_ended() {
            return Err(Error::Closed.into());
        }
        if !connection.pipeline.buffered().is_empty() {
            return Err(Error::UnreadData.into());
        }
        let usable = connection.pipeline.is_quiet() && !connection.nginx.has_failed();
        if !usable || connection.nginx.arm_read().is_err() {
            return Err(Error::InvalidConnection.into());
        }
        // not kept: the worker exits, the connection is still being opened, or its server was
        // removed from the list
        let leaving = connection.private().is_some_and(|private| private.leaving);
        if nginx::is_exiting() || connection.is_connecting() || leaving {
            return Ok(self.close_and_retire(key));
        }
        if connection
            .private()
            .is_some_and(|private| private.unanswered)
        {
            // a reply may come at any time, and the next user would get it
            let dubious = connection.nginx.is_read_ready() && !self.is_alive(connection_key);
            if dubious {
                self.disconnect(key, State::Closed);
                return Err(Error::Dubious.into());
            }
            return Ok(self.close_and_retire(key));
        }
        let counting = connection.pool;
        let name = self.sessions.get(key).and_then(|s| s.pool_name.as_ref());
        let name = name.ok_or(Error::Closed)?;
        let is_its = |pool: &PoolKey| {
            let named = self.pools.get(*pool);
            named.is_some_and(|named| Rc::ptr_eq(&named.name, name))
        };
        let (pool, counted) = match counting.filter(is_its) {
            Some(pool) => (pool, true),
            None => {
                let pool = self.pool_named(name.clone(), request, pool_size)?;
                (pool, counting == Some(pool))
            }
        };
        let timeout = match timeout {
            Some(timeout) => timeout,
            None => settings(request)?.keepalive_timeout(),
        };
        fault::point();
        let alive = self.park(pool, connection_key, counted, timeout);
        if let Some(other) = counting.filter(|_| !counted) {
            self.release(other);
        }
        if !alive {
            if let Some(session) = self.sessions.get_mut(key) {
                session.state = State::Closed;
            }
            return Err(Error::Dubious.into());
        }
        let retired = self.forget(key);
        // without waiting operations there is nothing to do: a pool with an idle connection stays
        let named = self.pools.get(pool);
        if named.is_some_and(|named| named.pool.next_waiting().is_some()) {
            self.resume_waiting(pool);
        }
        Ok(retired)
    }

    /// `setkeepalive` of an attached session that is at rest, see [`Worker::set_keepalive`].
    #[inline(always)]
    pub fn keep_shared(
        &mut self,
        key: SessionKey,
        shared_key: SharedPoolKey,
        request: Request,
        timeout: Option<Msec>,
        pool_size: Option<i64>,
    ) -> Result<Option<usize>, KeepaliveError> {
        if let Some(size) = pool_size.filter(|size| *size <= 0)
            && let Some(shared_pool) = self.shared_pools.get(shared_key)
            && !shared_pool.usage.is_kept_alive()
        {
            return Err(KeepaliveError::BadPoolSize(size));
        }
        self.note_keepalive(shared_key, request, timeout);
        fault::point();
        Ok(self.detach(key, shared_key))
    }

    /// Notes for how long connections of a shared pool may be idle, as `setkeepalive` says.
    #[inline(always)]
    pub fn note_keepalive(
        &mut self,
        shared_key: SharedPoolKey,
        request: Request,
        timeout: Option<Msec>,
    ) {
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_key) {
            let configured =
                || Settings::of(request).map_or(0, |settings| settings.keepalive_timeout());
            if shared_pool
                .usage
                .keep_alive(timeout.unwrap_or_else(configured))
            {
                self.shorten_idle_timeouts(shared_key);
            }
        }
    }

    /// Retires an attached session that is at rest.
    #[inline(always)]
    pub fn detach(&mut self, key: SessionKey, shared_key: SharedPoolKey) -> Option<usize> {
        if let Some(session) = self.sessions.get(key)
            && !session.has_calls()
            && let Some(shared_pool) = self.shared_pools.get_mut(shared_key)
            && !shared_pool.connections.is_empty()
        {
            // the session has no operation, and nobody waits for its place: there is no more to
            // clean up
            shared_pool.usage.leave();
            return self.forget(key);
        }
        self.close_and_retire(key)
    }
}
