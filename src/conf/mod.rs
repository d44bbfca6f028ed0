//! The configuration of locations and of `upstream` blocks: this module's
//! directives, and the SSL contexts made of ngx_lua's.

#[allow(dead_code)]
mod mapping;
mod multiplex;
#[cfg(ngx_feature = "http_ssl")]
mod tls;
#[allow(dead_code)]
mod upstream;
mod words;

use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

#[cfg(ngx_feature = "http_ssl")]
use crate::contain::contain;
use mapping::Mappings;
use nginx_sys::{ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_module, ngx_http_request_t, ngx_palloc};

#[cfg(ngx_feature = "http_ssl")]
pub use tls::Context;

#[allow(unused_imports)]
pub use mapping::set as set_mapping;
pub use multiplex::{MAX_CONNECTIONS, Multiplex, set as set_multiplex};
#[allow(unused_imports)]
pub use upstream::{
    Check, Chosen, Current, Discover, Servers, UpstreamError, check as check_upstreams,
    create as create_srv_conf, set_check, set_discover, set_failover, set_hash,
};

/// Where in `loc_conf` arrays this module's configuration is.
static INDEX: AtomicUsize = AtomicUsize::new(0);

/// Bytes; well above memcached's default item size of 1 MiB.
const DEFAULT_MAX_VALUE_SIZE: usize = 128 * 1024 * 1024;

/// Unset, as nginx's slot functions and merges understand it (`NGX_CONF_UNSET_SIZE`).
const UNSET: usize = usize::MAX;

/// The directives of a location.
#[repr(C)]
#[derive(Debug)]
pub struct LocConf {
    max_value_size: usize,
    /// `None`: not set here.
    multiplex: Option<Multiplex>,
    mappings: Mappings,
    #[cfg(ngx_feature = "http_ssl")]
    ssl: Context,
}

impl LocConf {
    /// The configuration of `request`'s location.
    ///
    /// # Safety
    ///
    /// `request` is live; the reference must not outlive it.
    pub unsafe fn of<'a>(request: NonNull<ngx_http_request_t>) -> Option<&'a LocConf> {
        // SAFETY: every request has a loc_conf array, filled for all modules.
        unsafe {
            let conf = *(*request.as_ptr())
                .loc_conf
                .add(INDEX.load(Ordering::Relaxed));
            conf.cast::<LocConf>().as_ref()
        }
    }

    /// `lua_memcached_max_value_size`: the longest value accepted from a
    /// server, in bytes.
    pub fn max_value_size(&self) -> usize {
        self.max_value_size
    }

    /// `lua_memcached_multiplex`
    pub fn multiplex(&self) -> Multiplex {
        self.multiplex.unwrap_or(Multiplex::OFF)
    }

    #[allow(dead_code)]
    /// `lua_memcached_upstream`: the servers that `connect(host, port)` means.
    pub fn upstream_for(&self, host: &[u8], port: u16) -> Option<Servers> {
        self.mappings.find(host, port)
    }

    /// The SSL context of ngx_lua's `lua_ssl_*` directives.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn ssl(&self) -> Context {
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
        self.mappings = self.mappings.or(parent.mappings);
    }
}

/// `NGX_CONF_ERROR`
pub const ERROR: *mut c_char = usize::MAX as *mut c_char;

/// Sets the index that nginx gave the module. To be called before any request.
pub fn set_index(index: usize) {
    INDEX.store(index, Ordering::Relaxed);
}

/// Where a `LocConf` keeps `lua_memcached_max_value_size`, for the command table.
pub const MAX_VALUE_SIZE_OFFSET: usize = std::mem::offset_of!(LocConf, max_value_size);

/// Drops what was recorded while a configuration was read. To be called before
/// a configuration is read, because reading the last one may have failed.
pub fn forget() {
    mapping::forget();
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
    forget();
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
            conf.write(LocConf {
                max_value_size: UNSET,
                multiplex: None,
                mappings: Mappings::NONE,
                #[cfg(ngx_feature = "http_ssl")]
                ssl: Context::None,
            });
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
