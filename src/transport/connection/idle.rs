//! A private connection that becomes idle or busy.

use std::ptr::NonNull;

use nginx_sys::{
    ngx_connection_log_error_e_NGX_ERROR_ERR as NGX_ERROR_ERR,
    ngx_connection_log_error_e_NGX_ERROR_INFO as NGX_ERROR_INFO, ngx_connection_t, ngx_cycle,
    ngx_http_request_t, ngx_log_t,
};

use crate::conf::LocConf;
use crate::fault;
use crate::nginx::{Msec, stop_timer};
use crate::transport::connection::{Connection, Owner};
use crate::transport::ids::SessionKey;

impl Connection {
    /// The peer has closed, and nginx knows, or was told to.
    pub fn has_ended(&self) -> bool {
        let c = self.nginx.as_ptr();
        // SAFETY: the connection is open.
        self.quitting || unsafe { (*(*c).read).eof() != 0 || (*(*c).read).pending_eof() != 0 }
    }

    /// Serves a session of `request`, after it was idle.
    #[inline(always)]
    pub fn begin_use(&mut self, session: SessionKey, request: Option<NonNull<ngx_http_request_t>>) {
        self.owner = Owner::Session {
            session,
            connecting: false,
        };
        self.reused += 1;
        fault::point();
        self.read_due = None;
        let Some(request) = request else { return };
        let c = self.nginx.as_ptr();
        // SAFETY: the connection is open, the request live.
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
    pub fn make_idle(&mut self, timeout: Msec) -> bool {
        self.pipeline.shrink();
        if self.tls.is_some() {
            self.record.shrink();
        }
        self.read_due = None;
        if timeout != 0 {
            self.limit_read(timeout);
        }
        let c = self.nginx.as_ptr();
        // SAFETY: the connection is open; the cycle's log outlives it.
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

/// # Safety
///
/// `c` is open.
pub unsafe fn has_failed(c: *mut ngx_connection_t) -> bool {
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
pub unsafe fn set_log(c: *mut ngx_connection_t, log: *mut ngx_log_t) {
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

impl Connection {
    /// Whether it is a TLS connection to this host.
    pub fn is_tls_to(&self, host: &[u8], port: u16) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_to(host, port))
    }
}
