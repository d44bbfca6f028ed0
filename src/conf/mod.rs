//! The configuration of locations: this module's directives, and the SSL
//! contexts made of ngx_lua's.

mod multiplex;
mod queue;
mod size;
#[cfg(ngx_feature = "http_ssl")]
mod tls;

use std::ffi::{c_char, c_void};
use std::ptr;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::contain::contain;
use crate::nginx::{HttpBlock, Request};
use nginx_sys::{ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_module, ngx_palloc};

#[cfg(ngx_feature = "http_ssl")]
pub use tls::Context;

pub use multiplex::{MAX_CONNECTIONS, Multiplex, places as multiplex_places, set as set_multiplex};
pub use queue::{Queueing, set as set_queue};
pub use size::set_max_value_size;

/// Where in `loc_conf` arrays this module's configuration is.
static INDEX: AtomicUsize = AtomicUsize::new(0);

/// Bytes; well above memcached's default item size of 1 MiB.
const DEFAULT_MAX_VALUE_SIZE: usize = 128 * 1024 * 1024;

/// Not set here.
const UNSET: usize = usize::MAX;

/// The directives of a location.
#[derive(Clone, Copy, Debug)]
pub struct LocConf {
    /// 0: no limit.
    max_value_size: usize,
    /// `None`: not set here.
    multiplex: Option<Multiplex>,
    /// `None`: not set here.
    queue: Option<Queueing>,
    #[cfg(ngx_feature = "http_ssl")]
    ssl: Context,
}

impl LocConf {
    /// Nothing is set.
    const UNSET: LocConf = LocConf {
        max_value_size: UNSET,
        multiplex: None,
        queue: None,
        #[cfg(ngx_feature = "http_ssl")]
        ssl: Context::None,
    };

    /// The configuration of `request`'s location.
    #[inline(always)]
    pub fn of(request: Request) -> LocConf {
        // SAFETY: the index is this module's; `create_loc_conf` made what is there.
        let conf = unsafe {
            let conf = request.loc_conf(INDEX.load(Ordering::Relaxed));
            conf.cast::<LocConf>().as_ref()
        };
        conf.copied().unwrap_or(LocConf::UNSET)
    }

    /// The configuration of the current cycle's http block.
    pub fn of_http() -> LocConf {
        // SAFETY: as above.
        let conf = HttpBlock::current().and_then(|http| unsafe {
            let conf = http.loc_conf(INDEX.load(Ordering::Relaxed));
            conf.cast::<LocConf>().as_ref()
        });
        conf.copied().unwrap_or(LocConf::UNSET)
    }

    /// `lua_memcached_max_value_size`: the longest value accepted from a
    /// server, in bytes.
    pub fn max_value_size(self) -> usize {
        match self.max_value_size {
            0 => usize::MAX,
            size => size,
        }
    }

    /// `lua_memcached_multiplex`
    pub fn multiplex(self) -> Multiplex {
        self.multiplex.unwrap_or(Multiplex::OFF)
    }

    /// `lua_memcached_queue`
    pub fn queue(self) -> Queueing {
        self.queue.unwrap_or(Queueing::DEFAULT)
    }

    /// The SSL context of ngx_lua's `lua_ssl_*` directives.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn ssl(self) -> Context {
        self.ssl
    }

    /// Inherits from `parent` what is not set here.
    fn inherit(&mut self, parent: &LocConf) {
        if self.max_value_size == UNSET {
            self.max_value_size = match parent.max_value_size {
                UNSET => DEFAULT_MAX_VALUE_SIZE,
                size => size,
            };
        }
        self.multiplex = self.multiplex.or(parent.multiplex);
        self.queue = self.queue.or(parent.queue);
    }
}

/// `NGX_CONF_ERROR`
pub const ERROR: *mut c_char = usize::MAX as *mut c_char;

/// Sets the index that nginx gave the module. To be called before any request.
pub fn set_index(index: usize) {
    INDEX.store(index, Ordering::Relaxed);
}

/// Drops what was recorded while a configuration was read. To be called before
/// a configuration is read, because reading the last one may have failed.
pub fn forget() {
    multiplex::forget();
    #[cfg(ngx_feature = "http_ssl")]
    tls::forget();
}

/// Completes the configuration of the http block after all locations were
/// merged. It applies to timers of `init_worker_by_lua*`.
///
/// # Safety
///
/// To be called from `postconfiguration`, with its `cf`.
pub unsafe fn complete(cf: *mut ngx_conf_t) {
    // SAFETY: nginx has set the context to the http block's; `create_loc_conf`
    // made its configuration, to which nobody else refers now.
    unsafe {
        let Some(http) = of_block((*cf).ctx.cast()) else {
            return;
        };
        if (*http).max_value_size == UNSET {
            (*http).max_value_size = DEFAULT_MAX_VALUE_SIZE;
        }
        #[cfg(ngx_feature = "http_ssl")]
        {
            (*http).ssl = tls::http_context(cf);
        }
    }
    #[cfg(ngx_feature = "http_ssl")]
    tls::forget();
}

/// This module's configuration in the http block, if `cf` does not belong to
/// reading a configuration. For `init_worker_by_lua*`, ngx_lua makes all
/// modules merge a location in each worker, with an empty parent.
///
/// # Safety
///
/// To be called from `merge_loc_conf`, with its `cf`.
unsafe fn finished_http<'a>(cf: *mut ngx_conf_t) -> Option<&'a LocConf> {
    // SAFETY: the cycle has the http block's context as soon as nginx reads
    // that block, and merges with it. ngx_lua has one of its own.
    unsafe {
        let context = *(*(*cf).cycle).conf_ctx.add(ngx_http_module.index);
        if context.cast() == (*cf).ctx {
            return None;
        }
        of_block(context.cast())?.as_ref()
    }
}

/// # Safety
///
/// `context` is null or the context of an http block.
unsafe fn of_block(context: *mut ngx_http_conf_ctx_t) -> Option<*mut LocConf> {
    // SAFETY: by this function's contract, the array is filled for all modules.
    unsafe {
        let context = context.as_ref()?;
        let conf = *context.loc_conf.add(INDEX.load(Ordering::Relaxed));
        (!conf.is_null()).then_some(conf.cast())
    }
}

/// `create_loc_conf`
pub unsafe extern "C" fn create_loc_conf(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: nginx passes the configuration being read; its pool gives
    // memory that is big and aligned enough, or null.
    unsafe {
        let conf = ngx_palloc((*cf).pool, size_of::<LocConf>()).cast::<LocConf>();
        if !conf.is_null() {
            conf.write(LocConf::UNSET);
        }
        conf.cast()
    }
}

/// `merge_loc_conf`
pub unsafe extern "C" fn merge_loc_conf(
    cf: *mut ngx_conf_t,
    parent: *mut c_void,
    child: *mut c_void,
) -> *mut c_char {
    // SAFETY: both came from `create_loc_conf`.
    let (parent, child) = unsafe { (&*parent.cast::<LocConf>(), &mut *child.cast::<LocConf>()) };
    // SAFETY: this is `merge_loc_conf`.
    if let Some(http) = unsafe { finished_http(cf) } {
        // a worker may not be able to read what the master could
        child.inherit(http);
        #[cfg(ngx_feature = "http_ssl")]
        {
            child.ssl = http.ssl;
        }
        return ptr::null_mut(); // NGX_CONF_OK
    }
    child.inherit(parent);
    #[cfg(ngx_feature = "http_ssl")]
    // SAFETY: as above.
    match contain(|| unsafe { tls::context(cf) }).flatten() {
        Some(context) => child.ssl = context,
        None => return ERROR,
    }
    ptr::null_mut() // NGX_CONF_OK
}
