//! What the http block says, for what is done on behalf of no request.

use std::ffi::c_void;
use std::ptr::NonNull;

use nginx_sys::{
    ngx_cycle, ngx_http_conf_ctx_t, ngx_http_core_loc_conf_t, ngx_http_core_module,
    ngx_http_module, ngx_resolver_t,
};

use super::Msec;

/// nginx's default of `resolver_timeout`.
const RESOLVER_TIMEOUT: Msec = 30_000;

/// The http block of the current cycle. It is looked for each time and not kept: a cycle ends when
/// nginx has read its configuration again. What the block does not set has nginx's mark for that.
#[derive(Clone, Copy)]
pub struct HttpBlock(NonNull<ngx_http_conf_ctx_t>);

impl HttpBlock {
    /// `None`: there is no cycle yet, or no http block in it.
    pub fn current() -> Option<HttpBlock> {
        // SAFETY: nginx's global; a cycle has a context for each module, or null.
        unsafe {
            let cycle = ngx_cycle.as_ref()?;
            if cycle.conf_ctx.is_null() {
                return None;
            }
            let context = *cycle.conf_ctx.add(ngx_http_module.index);
            NonNull::new(context.cast()).map(HttpBlock)
        }
    }

    /// A module's configuration for the block; null if it has none.
    ///
    /// # Safety
    ///
    /// `index` is the `ctx_index` of an HTTP module.
    pub unsafe fn loc_conf(self, index: usize) -> *mut c_void {
        // SAFETY: the block's array is filled for all modules.
        unsafe { *self.0.as_ref().loc_conf.add(index) }
    }

    fn core_conf(&self) -> &ngx_http_core_loc_conf_t {
        // SAFETY: nginx's core module configures the block.
        unsafe { &*self.loc_conf(ngx_http_core_module.ctx_index).cast() }
    }

    /// `tcp_nodelay`, which is on by default.
    pub fn tcp_nodelay(self) -> bool {
        self.core_conf().tcp_nodelay != 0
    }

    /// `resolver` (may be null), and `resolver_timeout`.
    pub fn resolver(self) -> (*mut ngx_resolver_t, Msec) {
        let conf = self.core_conf();
        let timeout = match conf.resolver_timeout {
            Msec::MAX => RESOLVER_TIMEOUT,
            timeout => timeout,
        };
        (conf.resolver, timeout)
    }
}
