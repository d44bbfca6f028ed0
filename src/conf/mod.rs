//! The module's own directives, and what is made of ngx_lua's.

mod alias;
#[cfg(ngx_feature = "http_ssl")]
mod tls;

use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_CONF_TAKE1, NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MAIN_CONF,
    NGX_HTTP_SRV_CONF, ngx_command_t, ngx_conf_set_size_slot, ngx_conf_t, ngx_http_request_t,
    ngx_palloc, ngx_str_t, ngx_uint_t,
};

use crate::module::ngx_http_lua_memcached_module;

/// Bytes; well above memcached's default item size of 1 MiB.
const DEFAULT_MAX_VALUE_SIZE: usize = 128 * 1024 * 1024;

/// Unset, as nginx's slot functions and merges understand it (`NGX_CONF_UNSET_SIZE`).
const UNSET: usize = usize::MAX;

/// What the directives of a location say.
#[repr(C)]
#[derive(Debug)]
pub struct LocConf {
    max_value_size: usize,
    #[cfg(ngx_feature = "http_ssl")]
    ssl: *mut nginx_sys::ngx_ssl_t,
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
                .add(ngx_http_lua_memcached_module.ctx_index);
            conf.cast::<LocConf>().as_ref()
        }
    }

    /// `lua_memcached_max_value_size`: the longest value accepted from a
    /// server, in bytes.
    pub fn max_value_size(&self) -> usize {
        self.max_value_size
    }

    /// The SSL context of ngx_lua's `lua_ssl_*` directives; `None` if the
    /// loaded ngx_lua has none of them.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn ssl(&self) -> Option<NonNull<nginx_sys::ngx_ssl_t>> {
        NonNull::new(self.ssl)
    }
}

/// The command table: `lua_memcached_*`.
pub static mut COMMANDS: [ngx_command_t; 3] = [
    ngx_command_t {
        name: ngx_str_t {
            len: "lua_memcached_max_value_size".len(),
            data: c"lua_memcached_max_value_size".as_ptr().cast_mut().cast(),
        },
        type_: (NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1)
            as ngx_uint_t,
        set: Some(ngx_conf_set_size_slot),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset: std::mem::offset_of!(LocConf, max_value_size),
        post: ptr::null_mut(),
    },
    ngx_command_t {
        name: ngx_str_t {
            len: "lua_memcached_alias".len(),
            data: c"lua_memcached_alias".as_ptr().cast_mut().cast(),
        },
        type_: (NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1) as ngx_uint_t,
        set: Some(alias::set),
        conf: 0,
        offset: 0,
        post: ptr::null_mut(),
    },
    // ngx_null_command
    ngx_command_t {
        name: ngx_str_t {
            len: 0,
            data: ptr::null_mut(),
        },
        type_: 0,
        set: None,
        conf: 0,
        offset: 0,
        post: ptr::null_mut(),
    },
];

/// `NGX_CONF_ERROR`
const ERROR: *mut c_char = usize::MAX as *mut c_char;

/// Forgets what was noted while a configuration was read. To be called before
/// one is read (the last one may have failed) and after.
pub fn forget() {
    alias::forget();
    #[cfg(ngx_feature = "http_ssl")]
    tls::forget();
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
                #[cfg(ngx_feature = "http_ssl")]
                ssl: ptr::null_mut(),
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
    if child.max_value_size == UNSET {
        child.max_value_size = match parent.max_value_size {
            UNSET => DEFAULT_MAX_VALUE_SIZE,
            size => size,
        };
    }
    #[cfg(ngx_feature = "http_ssl")]
    // SAFETY: this is `merge_loc_conf`.
    match unsafe { tls::context(cf) } {
        Some(context) => child.ssl = context,
        None => return ERROR,
    }
    #[cfg(not(ngx_feature = "http_ssl"))]
    let _ = cf;
    ptr::null_mut() // NGX_CONF_OK
}
