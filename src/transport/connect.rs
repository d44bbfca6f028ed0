//! Connecting: through a pool's idle connections, its queue, or anew.

use std::ffi::c_void;
use std::ptr::NonNull;
use std::rc::Rc;

use nginx_sys::{
    NGX_AGAIN, NGX_LOG_ERR, NGX_OK, ngx_add_timer, ngx_connection_error,
    ngx_connection_log_error_e_NGX_ERROR_ERR as NGX_ERROR_ERR, ngx_connection_t,
    ngx_event_connect_peer, ngx_event_get_peer, ngx_handle_read_event, ngx_handle_write_event,
    ngx_http_core_loc_conf_t, ngx_http_core_module, ngx_http_request_t, ngx_int_t,
    ngx_peer_connection_t, ngx_str_t, ngx_tcp_nodelay,
};

use super::Error;
use super::address::Address;
use super::events::{on_connection_event, on_queue_timeout, on_request_end};
use super::link::{Connection, Link, Owner};
use super::op::{Begun, Op, Outcome, Work};
use super::session::{Denied, State};
use super::worker::{LinkKey, NamedPool, PoolKey, SessionKey, Worker};
use crate::conf::LocConf;
use crate::nginx::{self, Timer, stop_timer};
use crate::ngx_lua::{Cleanup, Settings};
use crate::protocol::{Limits, Pipeline};
use crate::upstream::{Admission, Pool};

/// Longest reply line accepted, in bytes. memcached's own limit on keys makes
/// the longest regular line much shorter.
const MAX_LINE: usize = 2048;

/// Where to connect to.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// An IP address or `unix:/path`.
    pub host: &'a [u8],
    /// The TCP port; 0 with a unix socket.
    pub port: u16,
    /// The pool's name.
    pub pool: &'a [u8],
    /// With a size the pool is created now, if there is none of this name.
    pub pool_size: Option<usize>,
    /// See [`Pool::new`].
    pub backlog: Option<usize>,
}

/// What `open` made.
enum Opened {
    Connected,
    InProgress(LinkKey),
}

impl Worker {
    /// Connects a session on behalf of `request`. An existing connection is
    /// closed first.
    ///
    /// # Errors
    ///
    /// Outer: the session belongs to another active request. Inner: all else.
    pub fn connect(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        peer: Peer<'_>,
    ) -> Result<Result<Begun, Error>, Denied> {
        self.may_connect(key, request)?;
        if let Err(busy) = self.check_idle(key) {
            return Ok(Err(busy));
        }
        self.disconnect(key, State::Closed);
        Ok(self.start_connect(key, request, peer))
    }

    fn start_connect(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        peer: Peer<'_>,
    ) -> Result<Begun, Error> {
        let pool = self.find_pool(peer);
        let name = match pool.and_then(|pool| self.pools.get(pool)) {
            Some(named) => named.name.clone(),
            None => peer.pool.into(),
        };
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        session.pool_name = Some(name);
        if session.cleanup.is_none() {
            // SAFETY: the request is the running one.
            let cleanup = unsafe { Cleanup::register(request, on_request_end, key.to_bits()) };
            session.cleanup = Some(cleanup.ok_or(Error::NoMemory)?);
        }
        let Some(pool) = pool else {
            return self.begin_open(key, peer.host, peer.port, None);
        };
        match self.pools.get_mut(pool).map(|named| named.pool.admit()) {
            Some(Admission::Reuse(link)) => {
                self.take_idle(link, key);
                Ok(Begun::Ready(Outcome::Connected))
            }
            Some(Admission::Wait) => self.enqueue(key, pool, peer),
            Some(Admission::Refuse) => Err(Error::TooManyWaiting),
            Some(Admission::Connect) | None => {
                let begun = self.begin_open(key, peer.host, peer.port, Some(pool));
                if begun.is_err() {
                    self.release(pool);
                }
                begun
            }
        }
    }

    fn find_pool(&mut self, peer: Peer<'_>) -> Option<PoolKey> {
        if let Some(pool) = self.pool_names.get(peer.pool) {
            return Some(*pool);
        }
        Some(self.create_pool(peer.pool.into(), peer.pool_size?, peer.backlog))
    }

    pub(super) fn create_pool(
        &mut self,
        name: Rc<[u8]>,
        size: usize,
        backlog: Option<usize>,
    ) -> PoolKey {
        let pool = self.pools.insert(NamedPool {
            name: name.clone(),
            pool: Pool::new(size, backlog),
        });
        self.pool_names.insert(name, pool);
        pool
    }

    fn new_op(&mut self, work: Work) -> Result<Op, Error> {
        let semaphore = self.semaphores.take().ok_or(Error::NoMemory)?;
        Ok(Op::new(semaphore, work))
    }

    /// Queues a connect operation in a full pool.
    fn enqueue(&mut self, key: SessionKey, pool: PoolKey, peer: Peer<'_>) -> Result<Begun, Error> {
        let op = self.new_op(Work::Connect);
        let (Some(session), Some(named)) = (self.sessions.get_mut(key), self.pools.get_mut(pool))
        else {
            return Err(Error::Closed);
        };
        let op = op.inspect_err(|_| named.pool.release())?;
        // SAFETY: the cycle's log outlives the session's queueing.
        let mut timer =
            unsafe { Timer::new(on_queue_timeout, key.to_bits(), (*nginx_sys::ngx_cycle).log) };
        timer.start(session.connect_timeout());
        named.pool.enqueue(key);
        session.reader = Some(op);
        session.state = State::Queued {
            pool,
            host: peer.host.to_vec(),
            port: peer.port,
            _timer: timer,
        };
        Ok(Begun::Waiting)
    }

    /// Takes a session out of a pool's queue.
    pub(super) fn leave_queue(&mut self, pool: PoolKey, key: SessionKey) {
        if let Some(named) = self.pools.get_mut(pool) {
            named.pool.abandon(&key);
        }
        self.drop_unused_pool(pool);
    }

    /// The `connect_timeout` of a queued operation expired.
    pub(super) fn on_queue_timeout(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let request = session.request();
        let State::Queued {
            pool, host, port, ..
        } = std::mem::take(&mut session.state)
        else {
            return;
        };
        if let Some(op) = &mut session.reader {
            op.fail(Error::Timeout, false);
        }
        self.leave_queue(pool, key);
        log_socket_error(
            request,
            format_args!(
                "lua tcp socket queued connect timed out, when trying to connect to {}:{port}",
                String::from_utf8_lossy(&host)
            ),
        );
    }

    /// A pool has room again: whoever waits longest gets it.
    pub(super) fn resume_waiting(&mut self, pool: PoolKey) {
        while let Some((waiter, admission)) = self
            .pools
            .get_mut(pool)
            .and_then(|named| named.pool.resume())
        {
            if self.resume_connect(waiter, pool, admission) {
                break;
            }
        }
        self.drop_unused_pool(pool);
    }

    /// Carries on a queued connect. False if it is over at once and the room
    /// is free again.
    fn resume_connect(
        &mut self,
        key: SessionKey,
        pool: PoolKey,
        admission: Admission<LinkKey>,
    ) -> bool {
        let queued = self.sessions.get_mut(key).and_then(|session| {
            match std::mem::take(&mut session.state) {
                State::Queued { host, port, .. } => Some((host, port)),
                other => {
                    session.state = other;
                    None
                }
            }
        });
        let abandoned = self
            .sessions
            .get(key)
            .and_then(|session| session.reader.as_ref())
            .is_none_or(Op::is_abandoned);
        let Some((host, port)) = queued.filter(|_| !abandoned) else {
            match admission {
                Admission::Reuse(link) => self.put_idle(pool, link, true),
                _ => self.release_only(pool),
            }
            return false;
        };
        let started = match admission {
            Admission::Reuse(link) => {
                self.take_idle(link, key);
                Ok(Opened::Connected)
            }
            _ => self.open(key, &host, port, Some(pool)),
        };
        let outcome = match started {
            Ok(Opened::InProgress(_)) => return true,
            Ok(Opened::Connected) => Outcome::Connected,
            Err(error) => {
                self.release_only(pool);
                Outcome::Failed(error)
            }
        };
        let over = matches!(outcome, Outcome::Failed(_));
        if let Some(op) = self.sessions.get_mut(key).and_then(|s| s.reader.as_mut()) {
            op.finish(outcome);
        }
        !over
    }

    fn begin_open(
        &mut self,
        key: SessionKey,
        host: &[u8],
        port: u16,
        pool: Option<PoolKey>,
    ) -> Result<Begun, Error> {
        match self.open(key, host, port, pool)? {
            Opened::Connected => Ok(Begun::Ready(Outcome::Connected)),
            Opened::InProgress(link) => {
                let op = self.new_op(Work::Connect);
                let Some(session) = self.sessions.get_mut(key) else {
                    return Err(Error::Closed);
                };
                match op {
                    Ok(op) => session.reader = Some(op),
                    Err(error) => {
                        session.state = State::Closed;
                        self.links.remove(link);
                        return Err(error);
                    }
                }
                Ok(Begun::Waiting)
            }
        }
    }

    /// Opens a connection. On failure the session is not linked, and what the
    /// pool counted is still counted.
    fn open(
        &mut self,
        key: SessionKey,
        host: &[u8],
        port: u16,
        pool: Option<PoolKey>,
    ) -> Result<Opened, Error> {
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        let request = session.request().ok_or(Error::Closed)?;
        // SAFETY: the request is live while the session has it; so are its
        // connection, log and configuration.
        unsafe {
            let mut address = Address::parse(host, port, request)?;
            let text = address.text();
            let mut name = ngx_str_t {
                len: text.len(),
                data: text.as_ptr().cast_mut(),
            };
            let log = (*(*request.as_ptr()).connection).log;
            let mut peer: ngx_peer_connection_t = std::mem::zeroed();
            peer.sockaddr = address.as_ptr();
            peer.socklen = address.len();
            peer.name = &mut name;
            peer.get = Some(ngx_event_get_peer);
            peer.log = log;
            peer.set_log_error(NGX_ERROR_ERR as _);
            let rc = ngx_event_connect_peer(&mut peer);
            let errno = nginx::last_errno();
            let connection = match NonNull::new(peer.connection) {
                Some(connection) if rc == NGX_OK as ngx_int_t || rc == NGX_AGAIN as ngx_int_t => {
                    connection
                }
                _ => return Err(Error::from_errno(errno)),
            };
            let connecting = rc == NGX_AGAIN as ngx_int_t;
            let max_value = LocConf::of(request).map_or(usize::MAX, LocConf::max_value_size);
            let link = self.links.insert(Link {
                connection: Connection::from_raw(connection),
                pipeline: Pipeline::new(Limits {
                    max_line: MAX_LINE,
                    max_value,
                }),
                owner: Owner::Session {
                    session: key,
                    connecting,
                },
                pool,
                address,
                reused: 0,
                quitting: false,
            });
            let c = connection.as_ptr();
            (*c).data = link.to_bits() as usize as *mut c_void;
            (*(*c).read).handler = Some(on_connection_event);
            (*(*c).write).handler = Some(on_connection_event);
            session.state = State::Linked(link);
            if connecting {
                ngx_add_timer((*c).write, session.connect_timeout());
                return Ok(Opened::InProgress(link));
            }
            match settle(c, request) {
                Ok(()) => Ok(Opened::Connected),
                Err(error) => {
                    session.state = State::Closed;
                    self.links.remove(link);
                    Err(error)
                }
            }
        }
    }

    /// A connect in progress succeeded, failed or timed out.
    pub(super) fn on_connected(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Owner::Session { session, .. } = link.owner else {
            return;
        };
        let Some(request) = self.sessions.get(session).and_then(|s| s.request()) else {
            return;
        };
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open, the request live.
        let result = unsafe {
            if (*(*c).write).timedout() != 0 {
                Err(Error::Timeout)
            } else {
                stop_timer((*c).write);
                match socket_error(c) {
                    0 => settle(c, request),
                    errno => {
                        if Settings::of(request).is_some_and(|s| s.log_errors()) {
                            ngx_connection_error(
                                c,
                                errno,
                                c"connect() failed".as_ptr().cast_mut().cast(),
                            );
                        }
                        Err(Error::from_errno(errno))
                    }
                }
            }
        };
        match result {
            Ok(()) => {
                link.owner = Owner::Session {
                    session,
                    connecting: false,
                };
                if let Some(op) = self
                    .sessions
                    .get_mut(session)
                    .and_then(|s| s.reader.as_mut())
                {
                    op.finish(Outcome::Connected);
                }
            }
            Err(error) => {
                if error == Error::Timeout {
                    let peer = link.address.text_and_port();
                    log_socket_error(
                        Some(request),
                        format_args!("lua tcp socket connect timed out, when connecting to {peer}"),
                    );
                }
                self.fail(key, error, State::Closed);
            }
        }
    }
}

/// Logs what cosockets log, unless `lua_socket_log_errors` is off.
pub(super) fn log_socket_error(
    request: Option<NonNull<ngx_http_request_t>>,
    text: std::fmt::Arguments<'_>,
) {
    let Some(request) = request else { return };
    // SAFETY: a session's request is live.
    unsafe {
        if Settings::of(request).is_some_and(|settings| settings.log_errors()) {
            nginx::log(NGX_LOG_ERR, (*(*request.as_ptr()).connection).log, 0, text);
        }
    }
}

/// A connection was established: nothing is waited for until it is used, or a
/// level-triggered event method would spin.
///
/// # Safety
///
/// `c` is open, `request` live.
unsafe fn settle(
    c: *mut ngx_connection_t,
    request: NonNull<ngx_http_request_t>,
) -> Result<(), Error> {
    // SAFETY: by this function's contract; every request has nginx's core
    // configuration.
    unsafe {
        let conf = *(*request.as_ptr())
            .loc_conf
            .add(ngx_http_core_module.ctx_index);
        let ok = NGX_OK as ngx_int_t;
        if (*conf.cast::<ngx_http_core_loc_conf_t>()).tcp_nodelay != 0 && ngx_tcp_nodelay(c) != ok {
            return Err(Error::Unknown);
        }
        if ngx_handle_write_event((*c).write, 0) != ok || ngx_handle_read_event((*c).read, 0) != ok
        {
            return Err(Error::Unknown);
        }
    }
    Ok(())
}

/// The pending error of a socket; 0: none.
///
/// # Safety
///
/// `c` is open.
unsafe fn socket_error(c: *mut ngx_connection_t) -> i32 {
    let mut errno: libc::c_int = 0;
    let mut len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: both out parameters are valid, the descriptor is open.
    let rc = unsafe {
        libc::getsockopt(
            (*c).fd,
            libc::SOL_SOCKET,
            libc::SO_ERROR,
            (&raw mut errno).cast(),
            &mut len,
        )
    };
    if rc == -1 { nginx::last_errno() } else { errno }
}
