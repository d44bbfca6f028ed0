//! A request, as far as this module has to do with it.

use std::ffi::c_void;
use std::ptr::NonNull;

use nginx_sys::{
    ngx_cycle, ngx_http_conf_ctx_t, ngx_http_core_loc_conf_t, ngx_http_core_module,
    ngx_http_log_ctx_t, ngx_http_module, ngx_http_request_t, ngx_resolver_t,
};

use super::{Log, Msec};

/// A request that has not ended.
///
/// The methods are safe because nobody keeps one for too long: a function that
/// Lua calls has it while it runs, and a session only until the clean-up handler
/// that it has registered with the request is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request(NonNull<ngx_http_request_t>);

impl Request {
    /// # Safety
    ///
    /// The request has not ended, and the value is dropped before it does.
    pub unsafe fn from_raw(request: NonNull<ngx_http_request_t>) -> Request {
        Request(request)
    }

    /// For functions of nginx and ngx_lua.
    pub fn as_ptr(self) -> *mut ngx_http_request_t {
        self.0.as_ptr()
    }

    #[inline(always)]
    fn get(&self) -> &ngx_http_request_t {
        // SAFETY: it has not ended; nginx and this module have one thread, and no
        // reference to it is kept across a call of nginx.
        unsafe { self.0.as_ref() }
    }

    /// A module's configuration for its location.
    ///
    /// # Safety
    ///
    /// `index` is the `ctx_index` of an HTTP module.
    #[inline(always)]
    pub unsafe fn loc_conf(self, index: usize) -> *mut c_void {
        // SAFETY: every request has a loc_conf array, filled for all modules.
        unsafe { *self.get().loc_conf.add(index) }
    }

    #[inline(always)]
    fn core_conf(&self) -> &ngx_http_core_loc_conf_t {
        // SAFETY: nginx's core module configures every location.
        unsafe { &*self.loc_conf(ngx_http_core_module.ctx_index).cast() }
    }

    /// `tcp_nodelay`
    pub fn tcp_nodelay(self) -> bool {
        self.core_conf().tcp_nodelay != 0
    }

    /// `resolver` (may be null), and `resolver_timeout`.
    pub fn resolver(self) -> (*mut ngx_resolver_t, Msec) {
        let conf = self.core_conf();
        (conf.resolver, conf.resolver_timeout)
    }

    /// The log of its connection.
    #[inline(always)]
    pub fn log(self) -> Log {
        // SAFETY: a request has a connection, and that has a log.
        unsafe { Log::from_raw((*self.get().connection).log) }
    }

    /// Makes log lines written from here on name this (sub)request.
    pub fn set_log_context(self) {
        // SAFETY: a connection with a descriptor is a client's, and the data of
        // its log is nginx's HTTP log context.
        unsafe {
            let connection = self.get().connection;
            if (*connection).fd != -1 {
                let context = (*(*connection).log).data.cast::<ngx_http_log_ctx_t>();
                if !context.is_null() {
                    (*context).current_request = self.as_ptr();
                }
            }
        }
    }

    /// Whether it has the configuration of the current cycle. If not, its
    /// resolver may go away together with the last request of an older cycle.
    pub fn is_of_cycle(self) -> bool {
        // SAFETY: the cycle exists, and with a request it has an http block.
        unsafe {
            let context = *(*ngx_cycle).conf_ctx.add(ngx_http_module.index);
            let context = context.cast::<ngx_http_conf_ctx_t>();
            !context.is_null() && (*context).main_conf == self.get().main_conf
        }
    }
}
