//! Idle connections: into a pool, watched there, and out again.

use std::ptr::NonNull;
use std::rc::Rc;

use nginx_sys::{
    NGX_OK, ngx_connection_log_error_e_NGX_ERROR_ERR as NGX_ERROR_ERR,
    ngx_connection_log_error_e_NGX_ERROR_INFO as NGX_ERROR_INFO, ngx_connection_t, ngx_cycle,
    ngx_handle_read_event, ngx_http_request_t, ngx_int_t, ngx_log_t,
};

use super::Error;
use super::access::Denied;
use super::link::{Link, Owner, ReadTimer};
use super::session::State;
use super::worker::{LinkKey, PoolKey, SessionKey, Worker};
use crate::conf::LocConf;
use crate::fault;
use crate::nginx::{self, Msec, stop_timer};
use crate::ngx_lua::Settings;

/// Why a connection was not pooled.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeepaliveError {
    /// Returned in Lua.
    #[error(transparent)]
    Failed(#[from] Error),
    /// Raised in Lua: there is no pool yet, and this is no size for one.
    #[error("bad \"pool_size\" option value: {0}")]
    BadPoolSize(i64),
}

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
    fn keep_or_not(
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
    fn pool_link(
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

    /// The pool of this name, made now if there is none.
    #[inline(never)]
    fn pool_named(
        &mut self,
        name: Rc<[u8]>,
        request: NonNull<ngx_http_request_t>,
        pool_size: Option<i64>,
    ) -> Result<PoolKey, KeepaliveError> {
        if let Some(pool) = self.pool_names.get(&name) {
            return Ok(*pool);
        }
        let size = match pool_size {
            Some(size) => size,
            None => settings(request)?.pool_size() as i64,
        };
        match usize::try_from(size) {
            Ok(size) if size > 0 => Ok(self.create_pool(name, size, None)),
            _ => Err(KeepaliveError::BadPoolSize(size)),
        }
    }

    /// Gives a plain connection that was taken from a pool, and turned out not
    /// to be wanted, back to it. Its session stays counted. False if it cannot
    /// be pooled.
    pub(super) fn put_back(&mut self, key: LinkKey, request: NonNull<ngx_http_request_t>) -> bool {
        // SAFETY: the request is the running one.
        let settings = unsafe { Settings::of(request) };
        let (Some(link), Some(settings)) = (self.links.get_mut(key), settings) else {
            return false;
        };
        let Some(pool) = link.pool else {
            return false;
        };
        if link.has_ended() || link.tls.is_some() || link.unanswered || !link.pipeline.is_quiet() {
            return false;
        }
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open.
        let usable = unsafe {
            !has_failed(c)
                && ngx_handle_read_event((*c).read, 0) == NGX_OK as ngx_int_t
                && !nginx::is_exiting()
        };
        if !usable {
            return false;
        }
        self.park(pool, key, false, settings.keepalive_timeout());
        true
    }

    /// Makes a link idle in a pool, for at most `timeout` milliseconds. False
    /// if it turns out to be dead, and is gone then.
    #[inline(always)]
    fn park(&mut self, pool: PoolKey, key: LinkKey, counted: bool, timeout: Msec) -> bool {
        let readable = self
            .links
            .get_mut(key)
            .is_some_and(|link| link.make_idle(timeout));
        self.put_idle(pool, key, counted);
        if readable && !self.is_alive(key) {
            self.evict(key);
            return false;
        }
        true
    }

    /// Makes a link idle in a pool; the least recently used one goes if there
    /// is no room.
    #[inline(always)]
    pub(super) fn put_idle(&mut self, pool: PoolKey, key: LinkKey, counted: bool) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let (place, evicted) = match self.pools.get_mut(pool) {
            Some(named) => {
                named.tls |= link.tls.is_some();
                named.pool.put(key, counted)
            }
            None => Default::default(),
        };
        link.owner = Owner::Pool { pool, place };
        fault::point();
        link.pool = Some(pool);
        if let Some(evicted) = evicted {
            self.close_evicted(evicted);
        }
    }

    /// Closes a link that its pool does not count any more.
    #[cold]
    fn close_evicted(&mut self, key: LinkKey) {
        self.links.remove(key);
    }

    /// Hands an idle link to a session.
    pub(super) fn take_idle(&mut self, key: LinkKey, owner: SessionKey) {
        if let Some(link) = self.links.get_mut(key)
            && let Some(session) = self.sessions.get_mut(owner)
        {
            session.enter(State::Linked(key));
            link.make_busy(owner, session.request());
        }
    }

    /// An event of an idle link: its time is over, the worker exits, or the
    /// peer closed or sent something; then it goes. Or it was nothing.
    pub(super) fn on_idle_event(&mut self, key: LinkKey) {
        fault::point();
        let timer = self.links.get_mut(key).map(Link::read_timer);
        let alive = match timer {
            Some(ReadTimer::Early) => true,
            Some(ReadTimer::Silent) => self.is_alive(key),
            Some(ReadTimer::Expired) | None => false,
        };
        if !alive {
            self.evict(key);
        }
    }

    fn is_alive(&mut self, key: LinkKey) -> bool {
        let Some(link) = self.links.get_mut(key) else {
            return false;
        };
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open.
        unsafe {
            if (*c).close() != 0 {
                return false;
            }
            if link.tls.is_some() {
                // what came may be TLS's own, e.g. a session ticket
                return link.receive().is_none()
                    && ngx_handle_read_event((*c).read, 0) == NGX_OK as ngx_int_t;
            }
            if link.peek() == Err(libc::EAGAIN) {
                (*(*c).read).set_ready(0);
                return ngx_handle_read_event((*c).read, 0) == NGX_OK as ngx_int_t;
            }
        }
        false
    }

    fn evict(&mut self, key: LinkKey) {
        fault::point();
        let Some(link) = self.links.remove(key) else {
            return;
        };
        let Owner::Pool { pool, place } = link.owner else {
            return;
        };
        drop(link);
        if let Some(named) = self.pools.get_mut(pool) {
            named.pool.remove(place);
        }
        self.resume_waiting(pool);
    }

    /// A counted connection is gone; those who wait for it may go on.
    pub(super) fn release(&mut self, pool: PoolKey) {
        self.release_only(pool);
        self.resume_waiting(pool);
    }

    pub(super) fn release_only(&mut self, pool: PoolKey) {
        if let Some(named) = self.pools.get_mut(pool) {
            named.pool.release();
        }
    }

    /// A pool that counts nothing goes, and with it its size and backlog.
    pub(super) fn drop_unused_pool(&mut self, pool: PoolKey) {
        let unused = |named: &super::worker::NamedPool| named.pool.is_unused();
        if self.pools.get(pool).is_some_and(unused)
            && let Some(named) = self.pools.remove(pool)
        {
            self.pool_names.remove(&named.name);
        }
    }

    /// Closes all connections and frees all semaphores.
    pub(super) fn close_all(&mut self) {
        self.watch = None;
        self.deadline = None;
        self.turn_end = None;
        self.errands = Default::default();
        self.links.clear();
        for session in self.sessions.drain() {
            let writer = session.writer.map(|op| *op);
            for op in session.reader.into_iter().chain(writer) {
                self.semaphores.give(op.into_semaphore());
            }
        }
        self.semaphores.free_all();
    }
}

impl Link {
    /// The peer has closed, and nginx knows, or was told to.
    fn has_ended(&self) -> bool {
        let c = self.connection.as_ptr();
        // SAFETY: the link's connection is open.
        self.quitting || unsafe { (*(*c).read).eof() != 0 || (*(*c).read).pending_eof() != 0 }
    }

    /// Serves a session of `request`, after it was idle.
    #[inline(always)]
    pub(super) fn make_busy(
        &mut self,
        session: SessionKey,
        request: Option<NonNull<ngx_http_request_t>>,
    ) {
        self.owner = Owner::Session {
            session,
            connecting: false,
        };
        self.reused += 1;
        fault::point();
        self.read_due = None;
        let Some(request) = request else { return };
        let c = self.connection.as_ptr();
        // SAFETY: the link's connection is open, the request live.
        unsafe {
            (*c).set_idle(0);
            (*c).set_log_error(NGX_ERROR_ERR as _);
            set_log(c, (*(*request.as_ptr()).connection).log);
            if let Some(conf) = LocConf::of(request) {
                self.pipeline.set_max_value(conf.max_value_size());
            }
        }
    }

    /// Prepares for being idle for at most `timeout` milliseconds (0: for
    /// ever). Whether there is something to read already.
    fn make_idle(&mut self, timeout: Msec) -> bool {
        self.pipeline.shrink();
        if self.tls.is_some() {
            self.record.shrink();
        }
        self.read_due = None;
        if timeout != 0 {
            self.limit_read(timeout);
        }
        let c = self.connection.as_ptr();
        // SAFETY: the link's connection is open; the cycle's log outlives it.
        unsafe {
            (*c).set_idle(1);
            // what happens to it now is no error of anybody
            (*c).set_log_error(NGX_ERROR_INFO as _);
            set_log(c, (*ngx_cycle).log);
            stop_timer((*c).write);
            (*(*c).read).ready() != 0
        }
    }
}

/// The directives that the running request goes by.
fn settings(request: NonNull<ngx_http_request_t>) -> Result<Settings, Error> {
    // SAFETY: the request is the running one.
    unsafe { Settings::of(request) }.ok_or(Error::Unknown)
}

/// # Safety
///
/// `c` is open.
unsafe fn has_failed(c: *mut ngx_connection_t) -> bool {
    // SAFETY: by this function's contract.
    unsafe {
        let (read, write) = ((*c).read, (*c).write);
        (*read).error() != 0
            || (*read).timedout() != 0
            || (*write).error() != 0
            || (*write).timedout() != 0
    }
}

/// # Safety
///
/// `c` is open; `log` outlives its use of it.
pub(super) unsafe fn set_log(c: *mut ngx_connection_t, log: *mut ngx_log_t) {
    // SAFETY: by this function's contract.
    unsafe {
        (*c).log = log;
        if !(*c).pool.is_null() {
            (*(*c).pool).log = log;
        }
        (*(*c).read).log = log;
        (*(*c).write).log = log;
    }
}
