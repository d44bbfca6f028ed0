//! `setkeepalive`.

use std::ptr::NonNull;
use std::rc::Rc;

use nginx_sys::{NGX_OK, ngx_handle_read_event, ngx_http_request_t, ngx_int_t};

use crate::fault;
use crate::nginx::{self, Msec};
use crate::ngx_lua::Settings;
use crate::transport::error::{Denied, Error, KeepaliveError};
use crate::transport::ids::{LinkKey, PoolKey, SessionKey, TrunkKey};
use crate::transport::link::Link;
use crate::transport::link::idle::has_failed;
use crate::transport::state::session::State;
use crate::transport::worker::Worker;
use crate::transport::worker::pools::settings;

impl Worker {
    /// `setkeepalive`: gives a session's connection to its pool, for at most
    /// `timeout` milliseconds of idleness (0: for ever; `None`: as the
    /// location says). `pool_size` matters only if the pool is created now. The
    /// session is retired then, see [`Self::retire`].
    ///
    /// # Errors
    ///
    /// Outer: the session belongs to another active request. Inner: all else;
    /// the session keeps its connection unless the error is `Dubious`.
    pub fn set_keepalive(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        timeout: Option<Msec>,
        pool_size: Option<i64>,
    ) -> Result<Result<Option<usize>, KeepaliveError>, Denied> {
        match self.at_rest(key, request) {
            Some(&State::Linked(link)) => {
                Ok(self.pool_link(key, link, request, timeout, pool_size))
            }
            Some(&State::Attached { trunk, .. }) => {
                Ok(self.keep_shared(key, trunk, request, timeout, pool_size))
            }
            _ => self.keep_or_not(key, request, timeout, pool_size),
        }
    }

    #[cold]
    pub fn keep_or_not(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        timeout: Option<Msec>,
        pool_size: Option<i64>,
    ) -> Result<Result<Option<usize>, KeepaliveError>, Denied> {
        if self.is_postponed(key, request) {
            // what would be pooled is there already
            return Ok(Ok(self.close_and_retire(key)));
        }
        if let Some(trunk) = self.attached(key, request)? {
            fault::point();
            return Ok(match self.check_idle(key) {
                Ok(()) => self.keep_shared(key, trunk, request, timeout, pool_size),
                Err(busy) => Err(busy.into()),
            });
        }
        let link = match self.connected(key, request)? {
            Ok(link) => link,
            Err(error) => return Ok(Err(error.into())),
        };
        // that it was closed is told first
        let ended = self.links.get(link).is_none_or(Link::has_ended);
        Ok(match self.check_idle(key) {
            Err(busy) if !ended => Err(busy.into()),
            _ => self.pool_link(key, link, request, timeout, pool_size),
        })
    }

    /// `setkeepalive` of a session at rest with a connection of its own.
    #[inline(always)]
    pub fn pool_link(
        &mut self,
        key: SessionKey,
        link_key: LinkKey,
        request: NonNull<ngx_http_request_t>,
        timeout: Option<Msec>,
        pool_size: Option<i64>,
    ) -> Result<Option<usize>, KeepaliveError> {
        let link = self.links.get_mut(link_key).ok_or(Error::Closed)?;
        if link.has_ended() {
            return Err(Error::Closed.into());
        }
        if !link.pipeline.buffered().is_empty() {
            return Err(Error::UnreadData.into());
        }
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open.
        unsafe {
            if !link.pipeline.is_quiet() || has_failed(c) {
                return Err(Error::InvalidConnection.into());
            }
            if ngx_handle_read_event((*c).read, 0) != NGX_OK as ngx_int_t {
                return Err(Error::InvalidConnection.into());
            }
        }
        // one that was postponed until a command was refused: nobody wants it
        if nginx::is_exiting() || link.is_connecting() {
            return Ok(self.close_and_retire(key));
        }
        if link.unanswered {
            // a reply may come at any time, and the next user would get it
            // SAFETY: as above.
            let dubious = unsafe { (*(*c).read).ready() != 0 } && !self.is_alive(link_key);
            if dubious {
                self.disconnect(key, State::Closed);
                return Err(Error::Dubious.into());
            }
            return Ok(self.close_and_retire(key));
        }
        let counting = link.pool;
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
        let alive = self.park(pool, link_key, counted, timeout);
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
        // an idle connection is reason enough to keep the pool
        let named = self.pools.get(pool);
        if named.is_some_and(|named| named.pool.next_waiting().is_some()) {
            self.resume_waiting(pool);
        }
        Ok(retired)
    }

    /// `setkeepalive` of an attached session that is at rest, see
    /// [`Worker::set_keepalive`].
    #[inline(always)]
    pub fn keep_shared(
        &mut self,
        key: SessionKey,
        trunk_key: TrunkKey,
        request: NonNull<ngx_http_request_t>,
        timeout: Option<Msec>,
        pool_size: Option<i64>,
    ) -> Result<Option<usize>, KeepaliveError> {
        if let Some(trunk) = self.trunks.get_mut(trunk_key) {
            if let Some(size) = pool_size.filter(|size| *size <= 0 && !trunk.kept) {
                return Err(KeepaliveError::BadPoolSize(size));
            }
            trunk.kept = true;
            trunk.plain = true;
            // SAFETY: the request is the running one.
            let settings = || unsafe { Settings::of(request) };
            let usual = || settings().map_or(0, |settings| settings.keepalive_timeout());
            let now = timeout.unwrap_or_else(usual);
            let before = std::mem::replace(&mut trunk.keepalive, now);
            if now != 0 && (now < before || before == 0) {
                self.rest_all(trunk_key);
            }
        }
        fault::point();
        Ok(self.detach(key, trunk_key))
    }

    /// Retires an attached session that is at rest.
    #[inline(always)]
    pub fn detach(&mut self, key: SessionKey, trunk_key: TrunkKey) -> Option<usize> {
        if let Some(session) = self.sessions.get(key)
            && let State::Attached { flight: None, .. } = session.state
            && session.deadline.is_none()
            && let Some(trunk) = self.trunks.get_mut(trunk_key)
            && !trunk.links.is_empty()
        {
            // nothing is under way, and nobody waits for its place
            trunk.users = trunk.users.saturating_sub(1);
            return self.forget(key);
        }
        self.close_and_retire(key)
    }
}
