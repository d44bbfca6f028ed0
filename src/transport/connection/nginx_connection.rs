//! An nginx connection that is ours: its socket, events, timers and flags.
//!
//! It is open from [`NgxConnection::from_raw`] until it is dropped. That is why the methods may
//! follow its pointers: a connection that is open has a read event, a write event and a log, which
//! nginx frees or uses again only after it was closed.

use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::ptr::NonNull;

use nginx_sys::{
    NGX_ERROR, NGX_OK, ngx_add_timer, ngx_close_connection, ngx_connection_error,
    ngx_connection_log_error_e_NGX_ERROR_ERR as NGX_ERROR_ERR,
    ngx_connection_log_error_e_NGX_ERROR_INFO as NGX_ERROR_INFO, ngx_connection_t, ngx_err_t,
    ngx_event_t, ngx_handle_read_event, ngx_handle_write_event, ngx_int_t, ngx_tcp_nodelay,
};

use crate::nginx::{self, Log, Msec, PeerLog, stop_timer};
use crate::transport::connection::handlers::handlers;
use crate::transport::error::Error;

/// An nginx connection that is closed when dropped.
pub struct NgxConnection(NonNull<ngx_connection_t>, PeerLog);

impl NgxConnection {
    /// Its lines in the log end with the server's address, by `peer_log`. It writes to `log`.
    ///
    /// # Safety
    ///
    /// `connection` is open and nobody else closes it.
    pub unsafe fn from_raw(
        connection: NonNull<ngx_connection_t>,
        peer_log: PeerLog,
        log: Log,
    ) -> NgxConnection {
        let mut this = NgxConnection(connection, peer_log);
        this.set_log(log);
        this
    }

    /// The server's address.
    pub fn peer(&self) -> &str {
        self.1.peer()
    }

    /// For nginx's own functions. The connection is open while this lives.
    #[inline(always)]
    pub fn as_ptr(&self) -> *mut ngx_connection_t {
        self.0.as_ptr()
    }

    #[inline(always)]
    fn get(&self) -> &ngx_connection_t {
        // SAFETY: it is open; nginx and this module have one thread, and no reference to it is kept
        // across a call of nginx.
        unsafe { self.0.as_ref() }
    }

    #[inline(always)]
    fn get_mut(&mut self) -> &mut ngx_connection_t {
        // SAFETY: as for `get`.
        unsafe { self.0.as_mut() }
    }

    #[inline(always)]
    fn read(&self) -> &ngx_event_t {
        // SAFETY: as for `get`; an open connection has its events.
        unsafe { &*self.get().read }
    }

    #[inline(always)]
    fn read_mut(&mut self) -> &mut ngx_event_t {
        // SAFETY: as for `read`.
        unsafe { &mut *self.get().read }
    }

    #[inline(always)]
    fn write(&self) -> &ngx_event_t {
        // SAFETY: as for `read`.
        unsafe { &*self.get().write }
    }

    #[inline(always)]
    fn write_mut(&mut self) -> &mut ngx_event_t {
        // SAFETY: as for `read`.
        unsafe { &mut *self.get().write }
    }

    /// Its events have this id, and go to the handlers.
    pub fn set_id(&mut self, id: u64) {
        self.get_mut().data = id as usize as *mut c_void;
        self.set_handlers();
    }

    /// Has its events go to our handlers. During a TLS handshake nginx has handlers of its own
    /// there.
    pub fn set_handlers(&mut self) {
        self.read_mut().handler = Some(handlers().connection);
        self.write_mut().handler = Some(handlers().connection);
    }

    // ---- bytes

    /// One call of its send function: how many bytes it took, 0: none now.
    ///
    /// # Errors
    ///
    /// The error of the socket or of TLS, which nginx has logged.
    #[inline(always)]
    pub fn send(&mut self, bytes: &[u8]) -> Result<usize, Error> {
        let c = self.as_ptr();
        // SAFETY: the connection is open; at most so many bytes are read.
        let sent = unsafe {
            (*c).send.map_or(NGX_ERROR as isize, |send| {
                send(c, bytes.as_ptr().cast_mut(), bytes.len())
            })
        };
        match sent {
            sent if sent > 0 => Ok(sent.unsigned_abs()),
            sent if sent == NGX_ERROR as isize => Err(Error::from_errno(nginx::last_errno())),
            _ => Ok(0),
        }
    }

    /// One call of its receive function: how many bytes were written to `room`, 0 at the end of the
    /// stream; `None`: there are none now.
    #[inline(always)]
    pub fn receive(&mut self, room: &mut [MaybeUninit<u8>]) -> Option<Result<usize, Error>> {
        let c = self.as_ptr();
        // SAFETY: the connection is open; at most so many bytes are written.
        let got = unsafe {
            (*c).recv.map_or(NGX_ERROR as isize, |recv| {
                recv(c, room.as_mut_ptr().cast(), room.len())
            })
        };
        match got {
            got if got >= 0 => Some(Ok(got.unsigned_abs())),
            got if got == NGX_ERROR as isize => Some(Err(Error::from_errno(nginx::last_errno()))),
            _ => None,
        }
    }

    /// Peeks at the socket, and leaves nginx's flags as they are: 1 if there are bytes to read, 0
    /// at the end of the stream, or an errno.
    pub fn peek(&self) -> Result<usize, i32> {
        let mut byte = 0u8;
        // SAFETY: the descriptor is open; one byte is peeked at most.
        let n = unsafe { libc::recv(self.get().fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK) };
        usize::try_from(n).map_err(|_| nginx::last_errno())
    }

    /// Several parts in one call, as `ngx_unix_send` does for one. How many bytes the socket took.
    ///
    /// # Errors
    ///
    /// The error of the socket, which was logged.
    pub fn write_parts(&mut self, parts: [&[u8]; 3]) -> Result<usize, Error> {
        let vectors = parts.map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        let len: usize = parts.iter().map(|part| part.len()).sum();
        loop {
            // SAFETY: the descriptor is open; the parts are only read.
            let sent = unsafe { libc::writev(self.get().fd, vectors.as_ptr(), vectors.len() as _) };
            if let Ok(sent) = usize::try_from(sent) {
                self.get_mut().sent += sent as libc::off_t;
                if sent < len {
                    self.write_mut().set_ready(0);
                }
                return Ok(sent);
            }
            match nginx::last_errno() {
                libc::EINTR => {}
                libc::EAGAIN => {
                    self.write_mut().set_ready(0);
                    return Ok(0);
                }
                errno => {
                    self.write_mut().set_error(1);
                    self.log_error(errno, c"send() failed");
                    return Err(Error::from_errno(errno));
                }
            }
        }
    }

    /// The pending error of the socket; 0: none.
    pub fn socket_error(&self) -> i32 {
        let mut errno: libc::c_int = 0;
        let mut len = size_of::<libc::c_int>() as libc::socklen_t;
        // SAFETY: both out parameters are valid, the descriptor is open.
        let rc = unsafe {
            libc::getsockopt(
                self.get().fd,
                libc::SOL_SOCKET,
                libc::SO_ERROR,
                (&raw mut errno).cast(),
                &mut len,
            )
        };
        if rc == -1 { nginx::last_errno() } else { errno }
    }

    // ---- events and timers

    /// Asks for read events (`ngx_handle_read_event`).
    #[inline(always)]
    pub fn arm_read(&mut self) -> Result<(), Error> {
        // SAFETY: the connection is open.
        result_of(unsafe { ngx_handle_read_event(self.read_mut(), 0) })
    }

    /// Asks for write events (`ngx_handle_write_event`) if it has to. They come when the socket
    /// takes `lowat` bytes.
    #[inline(always)]
    pub fn arm_write(&mut self, lowat: usize) -> Result<(), Error> {
        // SAFETY: the connection is open.
        result_of(unsafe { ngx_handle_write_event(self.write_mut(), lowat) })
    }

    /// It was established: nothing is waited for until it is used, or a level-triggered event
    /// method would spin.
    pub fn arm_established(&mut self, nodelay: bool) -> Result<(), Error> {
        if nodelay {
            // SAFETY: the connection is open.
            result_of(unsafe { ngx_tcp_nodelay(self.as_ptr()) })?;
        }
        self.arm_write(0)?;
        self.arm_read()
    }

    /// Whether the socket may have something to read.
    #[inline(always)]
    pub fn is_readable(&self) -> bool {
        let read = self.read();
        read.ready() != 0 || read.eof() != 0 || read.active() == 0
    }

    /// The last event or read said that there is something to read.
    #[inline(always)]
    pub fn is_read_ready(&self) -> bool {
        self.read().ready() != 0
    }

    /// There is nothing to read, until an event says otherwise.
    pub fn clear_read_ready(&mut self) {
        self.read_mut().set_ready(0);
    }

    /// Has the next read ask the socket, as if an event had said that there is something.
    pub fn assume_readable(&mut self) {
        let read = self.read_mut();
        read.set_ready(1);
        read.available = -1;
    }

    /// The socket takes what is written, as far as is known.
    #[inline(always)]
    pub fn is_write_ready(&self) -> bool {
        self.write().ready() != 0
    }

    /// Handles the read event in the next turn of the event loop: with edge-triggered events nobody
    /// would tell of what is there already.
    pub fn post_read(&mut self) {
        // SAFETY: the connection takes it out of the queue when it closes.
        unsafe { nginx::post_next(self.read_mut()) };
    }

    /// Arms the timer of the read event, to expire in so many milliseconds.
    #[inline(always)]
    pub fn start_read_timer(&mut self, timeout: Msec) {
        restart_timer(self.read_mut(), timeout);
    }

    /// As [`Self::start_read_timer`], unless it expires earlier already.
    #[inline(always)]
    pub fn advance_read_timer(&mut self, timeout: Msec) {
        let due = nginx::now().saturating_add(timeout);
        let read = self.read();
        if read.timer_set() == 0 || read.timer.key > due {
            self.start_read_timer(timeout);
        }
    }

    /// Arms the timer of the write event, to expire in so many milliseconds.
    pub fn start_write_timer(&mut self, timeout: Msec) {
        restart_timer(self.write_mut(), timeout);
    }

    /// As [`Self::start_write_timer`], if the timer that is armed expires earlier.
    pub fn delay_write_timer(&mut self, timeout: Msec) {
        if self.write().timer.key < nginx::now().saturating_add(timeout) {
            self.start_write_timer(timeout);
        }
    }

    /// Disarms the timer of the write event.
    #[inline(always)]
    pub fn stop_write_timer(&mut self) {
        // SAFETY: the event is an open connection's.
        unsafe { stop_timer(self.write_mut()) };
    }

    /// Whether the timer of the read event has expired. Clears that flag.
    #[inline(always)]
    pub fn take_read_timeout(&mut self) -> bool {
        let timed_out = self.read().timedout() != 0;
        if timed_out {
            self.read_mut().set_timedout(0);
        }
        timed_out
    }

    /// The timer of the write event has expired.
    pub fn has_write_timed_out(&self) -> bool {
        self.write().timedout() != 0
    }

    /// A worker that exits does not wait for its timers.
    pub fn make_cancelable(&mut self) {
        self.read_mut().set_cancelable(1);
        self.write_mut().set_cancelable(1);
    }

    // ---- flags and logs

    /// nginx wants it closed: the worker exits and it is idle, or `worker_shutdown_timeout` is over
    /// ([`Self::is_aborting`]).
    #[inline(always)]
    pub fn is_closing(&self) -> bool {
        self.get().close() != 0
    }

    /// `worker_shutdown_timeout` is over.
    pub fn is_aborting(&self) -> bool {
        self.is_closing() && self.get().error() != 0
    }

    /// The peer has closed it, and nginx knows.
    #[inline(always)]
    pub fn has_ended(&self) -> bool {
        self.read().eof() != 0 || self.read().pending_eof() != 0
    }

    /// Reading or writing has failed or timed out.
    #[inline(always)]
    pub fn has_failed(&self) -> bool {
        [self.read(), self.write()]
            .iter()
            .any(|event| event.error() != 0 || event.timedout() != 0)
    }

    /// It is idle: an exiting worker closes it, and what happens to it is no error of anybody.
    #[inline(always)]
    pub fn set_idle(&mut self) {
        let c = self.get_mut();
        c.set_idle(1);
        c.set_log_error(NGX_ERROR_INFO as _);
    }

    /// It is in use: what happens to it is an error.
    #[inline(always)]
    pub fn set_active(&mut self) {
        let c = self.get_mut();
        c.set_idle(0);
        c.set_log_error(NGX_ERROR_ERR as _);
    }

    /// What happens to it is no error of anybody, until it is active again.
    pub fn hush(&mut self) {
        self.get_mut().set_log_error(NGX_ERROR_INFO as _);
    }

    /// Has nginx write lines about it to `log`: that of the request that uses it, until the request
    /// ends at the latest, or that of the cycle.
    #[inline(always)]
    pub fn set_log(&mut self, log: Log) {
        let log = self.1.stand_for(log).as_ptr();
        let c = self.get_mut();
        c.log = log;
        if !c.pool.is_null() {
            // SAFETY: the pool is the connection's.
            unsafe { (*c.pool).log = log };
        }
        self.read_mut().log = log;
        self.write_mut().log = log;
    }

    /// The log to which nginx writes lines about it.
    pub fn log(&self) -> Log {
        // SAFETY: an open connection has a log, which lives as long as it is used.
        unsafe { Log::from_raw(self.get().log) }
    }

    /// Logs an errno as nginx does, at the level that the connection has now.
    pub fn log_error(&self, errno: ngx_err_t, text: &'static std::ffi::CStr) {
        // SAFETY: the connection is open; the text is only read.
        unsafe { ngx_connection_error(self.as_ptr(), errno, text.as_ptr().cast_mut().cast()) };
    }

    /// As [`Self::log_error`], to another log.
    pub fn log_error_to(&mut self, log: Log, errno: ngx_err_t, text: &'static std::ffi::CStr) {
        let own = self.1.target();
        self.1.stand_for(log);
        self.log_error(errno, text);
        self.1.stand_for(own);
    }
}

impl Drop for NgxConnection {
    fn drop(&mut self) {
        self.end_tls();
        // SAFETY: it is open until here; nginx deletes its timers and its events, posted ones
        // included.
        unsafe { ngx_close_connection(self.as_ptr()) };
    }
}

#[inline(always)]
fn result_of(rc: ngx_int_t) -> Result<(), Error> {
    match rc {
        rc if rc == NGX_OK as ngx_int_t => Ok(()),
        _ => Err(Error::Unknown),
    }
}

/// Arms the timer of an open connection's event anew. The connection stops it at its end.
#[inline(always)]
fn restart_timer(event: &mut ngx_event_t, timeout: Msec) {
    // SAFETY: the event is one of an open connection, and stays where it is.
    unsafe {
        stop_timer(event);
        ngx_add_timer(event, timeout);
    }
}
