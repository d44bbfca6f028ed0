//! A request, as far as this module has to do with it.

use std::ptr;

use nginx_sys::{ngx_connection_t, ngx_http_log_ctx_t, ngx_http_request_t, ngx_resolver_t};

use super::cycle::Cycle;
use super::live::Live;
use super::module::{Confs, Contexts, Module, ngx_http_core_module};
use super::{Log, Msec};

/// A request that has not ended.
///
/// The methods are safe because nobody keeps one for too long: a function that Lua calls has it
/// while it runs, and a session only until the clean-up handler that it has registered with the
/// request is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Request(Live<ngx_http_request_t>);

impl Request {
    /// For functions of nginx and ngx_lua.
    pub fn as_ptr(self) -> *mut ngx_http_request_t {
        self.0.as_ptr()
    }

    /// A module's configuration for its location.
    #[inline(always)]
    pub fn conf<C, X>(self, module: &Module<C, X>) -> Option<Live<C>> {
        Confs::of_request(&self.0).get(module)
    }

    /// A module's context of it.
    #[inline(always)]
    pub fn context<C, X>(self, module: &Module<C, X>) -> Option<Live<X>> {
        Contexts::of_request(&self.0).get(module)
    }

    /// What modules have once in its configuration.
    pub(super) fn mains(self) -> Confs {
        Confs::mains(self.0.main_conf)
    }

    /// `tcp_nodelay`
    pub fn tcp_nodelay(self) -> bool {
        self.conf(&ngx_http_core_module)
            .is_some_and(|conf| conf.tcp_nodelay != 0)
    }

    /// `resolver` (may be null), and `resolver_timeout`.
    pub fn resolver(self) -> (*mut ngx_resolver_t, Msec) {
        let conf = self.conf(&ngx_http_core_module);
        conf.map_or((ptr::null_mut(), 0), |conf| {
            (conf.resolver, conf.resolver_timeout)
        })
    }

    #[inline(always)]
    fn connection(&self) -> &ngx_connection_t {
        // SAFETY: a request has a connection.
        unsafe { &*self.0.connection }
    }

    /// The log of its connection.
    #[inline(always)]
    pub fn log(self) -> Log {
        Log::of(self.connection())
    }

    /// Makes log lines written from here on name this (sub)request.
    pub fn set_log_context(self) {
        let connection = self.connection();
        if connection.fd == -1 {
            return;
        }
        // SAFETY: a connection with a descriptor is a client's, and the data of its log is nginx's
        // HTTP log context.
        unsafe {
            let context = (*connection.log).data.cast::<ngx_http_log_ctx_t>();
            if !context.is_null() {
                (*context).current_request = self.as_ptr();
            }
        }
    }

    /// Whether it has the configuration of the current cycle. If not, its resolver may go away
    /// together with the last request of an older cycle.
    pub fn is_of_cycle(self) -> bool {
        let http = Cycle::current().and_then(Cycle::http);
        http.is_some_and(|http| http.main_conf == self.0.main_conf)
    }
}
