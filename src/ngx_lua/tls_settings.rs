//! The `lua_ssl_*` directives of a location, while the configuration is read.
//!
//! ngx_lua makes its SSL contexts out of them; where it keeps those differs
//! from version to version, so we make our own out of the same values.

use std::ptr::NonNull;

use nginx_sys::{ngx_array_t, ngx_conf_t, ngx_http_conf_ctx_t, ngx_int_t, ngx_str_t, ngx_uint_t};

use super::ngx_http_lua_module;
use super::settings::offset;

/// Merged values of the `lua_ssl_*` directives.
#[derive(Clone, Copy, Debug)]
pub struct TlsSettings {
    /// `lua_ssl_protocols`, a mask of nginx's `NGX_SSL_*`
    pub protocols: ngx_uint_t,
    /// `lua_ssl_ciphers`, ends with NUL
    pub ciphers: ngx_str_t,
    /// `lua_ssl_verify_depth`
    pub verify_depth: ngx_int_t,
    /// `lua_ssl_trusted_certificate`, a path, or empty
    pub trusted_certificate: ngx_str_t,
    /// `lua_ssl_crl`, a path, or empty
    pub crl: ngx_str_t,
    /// `lua_ssl_conf_command` (ngx_keyval_t), or null
    pub conf_commands: *mut ngx_array_t,
    /// `lua_ssl_certificate` (ngx_str_t), or null; newer ngx_lua only
    pub certificates: *mut ngx_array_t,
    /// `lua_ssl_certificate_key` (ngx_str_t), or null
    pub certificate_keys: *mut ngx_array_t,
}

impl TlsSettings {
    /// Those of the location whose configuration is being merged. `None`: the
    /// loaded ngx_lua has no TLS.
    ///
    /// # Safety
    ///
    /// To be called from a module's `merge_loc_conf`, with its `cf`. As
    /// modules are merged in the order they were loaded, ngx_lua's values are
    /// final then.
    pub unsafe fn being_merged(cf: *mut ngx_conf_t) -> Option<TlsSettings> {
        // SAFETY: nginx sets the context to the location's while it merges.
        let conf = unsafe {
            let context = (*cf).ctx.cast::<ngx_http_conf_ctx_t>();
            NonNull::new(
                *(*context)
                    .loc_conf
                    .add(ngx_http_lua_module.ctx_index)
                    .cast::<*mut u8>(),
            )?
        };
        let array = |name| offset(name).map_or(std::ptr::null_mut(), |at| read(conf, at));
        Some(TlsSettings {
            protocols: read(conf, offset("lua_ssl_protocols").ok()?),
            ciphers: read(conf, offset("lua_ssl_ciphers").ok()?),
            verify_depth: read(conf, offset("lua_ssl_verify_depth").ok()?),
            trusted_certificate: read(conf, offset("lua_ssl_trusted_certificate").ok()?),
            crl: read(conf, offset("lua_ssl_crl").ok()?),
            conf_commands: array("lua_ssl_conf_command"),
            certificates: array("lua_ssl_certificate"),
            certificate_keys: array("lua_ssl_certificate_key"),
        })
    }
}

fn read<T: Copy>(conf: NonNull<u8>, offset: usize) -> T {
    // SAFETY: the directive's slot function stores a `T` at this offset.
    unsafe { conf.as_ptr().add(offset).cast::<T>().read() }
}
