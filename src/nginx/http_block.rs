//! What the http block says, for what is done on behalf of no request.

use std::ptr;

use nginx_sys::{ngx_http_conf_ctx_t, ngx_resolver_t};

use super::Msec;
use super::cycle::Cycle;
use super::live::Live;
use super::module::{Confs, Module, ngx_http_core_module};

/// nginx's default of `resolver_timeout`.
const RESOLVER_TIMEOUT: Msec = 30_000;

/// The http block of the current cycle. It is looked for each time and not kept: a cycle ends when
/// nginx has read its configuration again. What the block does not set has nginx's mark for that.
#[derive(Clone, Copy)]
pub struct HttpBlock(Live<ngx_http_conf_ctx_t>);

impl HttpBlock {
    /// `None`: there is no cycle yet, or no http block in it.
    pub fn current() -> Option<HttpBlock> {
        Cycle::current().and_then(Cycle::http).map(HttpBlock)
    }

    /// A module's configuration for the block.
    pub fn conf<C, X>(self, module: &Module<C, X>) -> Option<Live<C>> {
        Confs::of_block(&self.0).get(module)
    }

    /// What modules have once in the block.
    pub(super) fn mains(self) -> Confs {
        Confs::mains(self.0.main_conf)
    }

    /// `tcp_nodelay`, which is on by default.
    pub fn tcp_nodelay(self) -> bool {
        self.conf(&ngx_http_core_module)
            .is_none_or(|conf| conf.tcp_nodelay != 0)
    }

    /// `resolver` (may be null), and `resolver_timeout`.
    pub fn resolver(self) -> (*mut ngx_resolver_t, Msec) {
        let conf = self.conf(&ngx_http_core_module);
        conf.map_or((ptr::null_mut(), RESOLVER_TIMEOUT), |conf| {
            let timeout = match conf.resolver_timeout {
                Msec::MAX => RESOLVER_TIMEOUT,
                timeout => timeout,
            };
            (conf.resolver, timeout)
        })
    }
}
