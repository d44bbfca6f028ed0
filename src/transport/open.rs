//! Opening a connection: name, address, socket.

use std::ffi::c_void;
use std::ptr::NonNull;

use nginx_sys::{
    NGX_AGAIN, NGX_OK, ngx_add_timer, ngx_connection_error,
    ngx_connection_log_error_e_NGX_ERROR_ERR as NGX_ERROR_ERR, ngx_connection_t,
    ngx_event_connect_peer, ngx_event_get_peer, ngx_handle_read_event, ngx_handle_write_event,
    ngx_http_core_loc_conf_t, ngx_http_core_module, ngx_http_request_t, ngx_int_t,
    ngx_peer_connection_t, ngx_str_t, ngx_tcp_nodelay,
};

use super::Error;
use super::address::{Address, Parsed};
use super::events::on_connection_event;
use super::io::log_socket_error;
use super::link::{Connection, Link, Owner};
use super::op::{Op, Outcome, Work};
use super::resolve::Resolution;
use super::room::Errand;
use super::session::State;
use super::sessions::Sessions;
use super::worker::{LinkKey, PoolKey, SessionKey, Worker};
use crate::conf::LocConf;
use crate::fault;
use crate::nginx::{self, stop_timer};
use crate::ngx_lua::Settings;
use crate::protocol::{Limits, Pipeline, Record};

/// Longest reply line accepted, in bytes. memcached's own limit on keys makes
/// the longest regular line much shorter.
pub(super) const MAX_LINE: usize = 2048;

/// How far opening a connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It stands.
    Connected,
    /// A name is being looked up, the handshake of TCP is under way, or there
    /// is no room for it yet.
    Pending,
}

impl Worker {
    /// Opens a connection for a connect operation. On failure the session is
    /// closed, and what the pool counted is still counted.
    pub(super) fn begin_open(
        &mut self,
        key: SessionKey,
        host: &[u8],
        port: u16,
        pool: Option<PoolKey>,
    ) -> Result<Opened, Error> {
        if self.open(key, host, port, pool)? == Opened::Connected {
            return Ok(Opened::Connected);
        }
        let op = self.new_op(Work::Connect);
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        match op {
            Ok(op) => {
                session.reader = Some(op);
                Ok(Opened::Pending)
            }
            Err(error) => {
                let link = session.link();
                session.state = State::Closed;
                link.and_then(|link| self.links.remove(link));
                Err(error)
            }
        }
    }

    /// Opens a connection to a host. On failure as with [`Self::begin_open`].
    pub(super) fn open(
        &mut self,
        key: SessionKey,
        host: &[u8],
        port: u16,
        pool: Option<PoolKey>,
    ) -> Result<Opened, Error> {
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        let request = session.request().ok_or(Error::Closed)?;
        // SAFETY: a session's request is live.
        match unsafe { Address::parse(host, port, request)? } {
            Parsed::Address(address) => self.open_address(key, address, pool),
            Parsed::Name => {
                // SAFETY: as above.
                let mut resolution = unsafe { Resolution::start(host, key.to_bits(), request)? };
                if let Some(answer) = resolution.take_answer() {
                    return self.open_address(key, answer?.with_port(port), pool);
                }
                session.state = State::Resolving {
                    resolution,
                    port,
                    pool,
                    handshake: None,
                    trunk: None,
                };
                Ok(Opened::Pending)
            }
        }
    }

    /// A name was looked up, or could not be.
    pub(super) fn on_resolved(&mut self, key: SessionKey) {
        if self.opens_when_resolved(key) && self.lacks_room() {
            return self.wait_for_room(Errand::Resolved(key));
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let (mut resolution, port, pool, handshake) = match std::mem::take(&mut session.state) {
            State::Resolving {
                resolution,
                port,
                trunk: Some(trunk),
                ..
            } => return self.on_trunk_resolved(key, trunk, resolution, port),
            State::Resolving {
                resolution,
                port,
                pool,
                handshake,
                ..
            } => (resolution, port, pool, handshake),
            other => {
                session.state = other;
                return;
            }
        };
        let abandoned = session.reader.as_ref().is_none_or(Op::is_abandoned);
        let answer = resolution.take_answer().unwrap_or(Err(Error::Unknown));
        drop(resolution);
        let opened = match answer {
            Ok(_) if abandoned => Err(Error::Closed),
            Ok(address) => self.open_address(key, address.with_port(port), pool),
            Err(error) => Err(error),
        };
        let link = self.sessions.get(key).and_then(|session| session.link());
        if let Some(link) = link.and_then(|link| self.links.get_mut(link)) {
            link.handshake = handshake.map(|pending| *pending);
        }
        let outcome = match (opened, link) {
            (Ok(Opened::Connected), Some(link)) => return self.go_on_with_handshake(link),
            (Ok(_), _) => return,
            (Err(error), _) => {
                if let Some(pool) = pool {
                    self.release(pool);
                }
                Outcome::Failed(error)
            }
        };
        if let Some(op) = self.sessions.get_mut(key).and_then(|s| s.reader.as_mut()) {
            op.finish(outcome);
        }
    }

    pub(super) fn open_address(
        &mut self,
        key: SessionKey,
        mut address: Address,
        pool: Option<PoolKey>,
    ) -> Result<Opened, Error> {
        self.links.try_reserve(1).map_err(|_| Error::NoMemory)?;
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        let request = session.request().ok_or(Error::Closed)?;
        // SAFETY: the request is live while the session has it.
        let (connection, connecting, max_value) = unsafe {
            let (connection, connecting) = dial(&mut address, request)?;
            let conf = LocConf::of(request);
            let max_value = conf.map_or(usize::MAX, LocConf::max_value_size);
            (connection, connecting, max_value)
        };
        let owner = Owner::Session {
            session: key,
            connecting,
        };
        let (link, c) = self.new_link(connection, address, owner, pool, max_value);
        session_linked(&mut self.sessions, key, link);
        fault::point();
        // SAFETY: the link's connection is open, the request live.
        unsafe {
            if connecting {
                let session = self.sessions.get(key).ok_or(Error::Closed)?;
                ngx_add_timer((*c).write, session.connect_timeout());
                return Ok(Opened::Pending);
            }
            match settle(c, wants_nodelay(request)) {
                Ok(()) => Ok(Opened::Connected),
                Err(error) => {
                    if let Some(session) = self.sessions.get_mut(key) {
                        session.state = State::Closed;
                    }
                    self.links.remove(link);
                    Err(error)
                }
            }
        }
    }

    /// Makes a link of a connection.
    pub(super) fn new_link(
        &mut self,
        connection: Connection,
        address: Address,
        owner: Owner,
        pool: Option<PoolKey>,
        max_value: usize,
    ) -> (LinkKey, *mut ngx_connection_t) {
        let c = connection.as_ptr();
        let link = self.links.insert(Link {
            connection,
            pipeline: Pipeline::new(Limits {
                max_line: MAX_LINE,
                max_value,
            })
            .with_buffers(self.buffers.clone()),
            owner,
            pool,
            address,
            tls: None,
            record: Record::default(),
            handshake: None,
            read_due: None,
            reused: 0,
            unanswered: false,
            quitting: false,
            sharing: None,
        });
        // SAFETY: the connection is open.
        unsafe {
            (*c).data = link.to_bits() as usize as *mut c_void;
            (*(*c).read).handler = Some(on_connection_event);
            (*(*c).write).handler = Some(on_connection_event);
        }
        (link, c)
    }

    /// A connect in progress succeeded, failed or timed out.
    pub(super) fn on_connected(&mut self, key: LinkKey) {
        fault::point();
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
            } else if (*c).close() != 0 {
                // worker_shutdown_timeout
                Err(Error::Closed)
            } else {
                stop_timer((*c).write);
                match socket_error(c) {
                    0 => settle(c, wants_nodelay(request)),
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
                self.go_on_with_handshake(key);
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

impl Worker {
    /// Tells the coroutine that waits for a link to be connected; or sends
    /// what has waited for that, if the connection had been postponed.
    pub(super) fn finish_connect(&mut self, key: LinkKey, outcome: Outcome) {
        fault::point();
        let Some(Owner::Session { session, .. }) = self.links.get(key).map(|link| link.owner)
        else {
            return;
        };
        match self
            .sessions
            .get_mut(session)
            .and_then(|s| s.reader.as_mut())
        {
            Some(op) if op.is_connect() => op.finish(outcome),
            _ => {
                // what a killed light thread asked for is not sent
                self.reap(session);
                self.flush(key);
                self.read_if_due(key);
            }
        }
    }
}

/// The session has a connection.
fn session_linked(sessions: &mut Sessions, key: SessionKey, link: LinkKey) {
    if let Some(session) = sessions.get_mut(key) {
        session.state = State::Linked(link);
    }
}

/// Begins a connection on behalf of a request, whose log it gets. Whether it
/// is still to be waited for.
///
/// # Safety
///
/// `request` is live.
pub(super) unsafe fn dial(
    address: &mut Address,
    request: NonNull<ngx_http_request_t>,
) -> Result<(Connection, bool), Error> {
    // SAFETY: by this function's contract; its connection has a log.
    unsafe {
        let text = address.text();
        let mut name = ngx_str_t {
            len: text.len(),
            data: text.as_ptr().cast_mut(),
        };
        let mut peer: ngx_peer_connection_t = std::mem::zeroed();
        peer.sockaddr = address.as_ptr();
        peer.socklen = address.len();
        peer.name = &mut name;
        peer.get = Some(ngx_event_get_peer);
        peer.log = (*(*request.as_ptr()).connection).log;
        peer.set_log_error(NGX_ERROR_ERR as _);
        // it says nothing of it if there is no free connection
        *libc::__errno_location() = 0;
        let rc = nginx::without_draining(|| ngx_event_connect_peer(&mut peer));
        let errno = nginx::last_errno();
        match NonNull::new(peer.connection) {
            Some(connection) if rc == NGX_OK as ngx_int_t || rc == NGX_AGAIN as ngx_int_t => {
                let connecting = rc == NGX_AGAIN as ngx_int_t;
                Ok((Connection::from_raw(connection), connecting))
            }
            None if errno == 0 => Err(Error::NoConnection),
            _ => Err(Error::from_errno(errno)),
        }
    }
}

/// `tcp_nodelay` at a request's location.
///
/// # Safety
///
/// `request` is live.
pub(super) unsafe fn wants_nodelay(request: NonNull<ngx_http_request_t>) -> bool {
    // SAFETY: every request has nginx's core configuration.
    unsafe {
        let conf = *(*request.as_ptr())
            .loc_conf
            .add(ngx_http_core_module.ctx_index);
        (*conf.cast::<ngx_http_core_loc_conf_t>()).tcp_nodelay != 0
    }
}

/// A connection was established: nothing is waited for until it is used, or a
/// level-triggered event method would spin.
///
/// # Safety
///
/// `c` is open.
pub(super) unsafe fn settle(c: *mut ngx_connection_t, nodelay: bool) -> Result<(), Error> {
    // SAFETY: by this function's contract.
    unsafe {
        let ok = NGX_OK as ngx_int_t;
        if nodelay && ngx_tcp_nodelay(c) != ok {
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
pub(super) unsafe fn socket_error(c: *mut ngx_connection_t) -> i32 {
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
