//! The `lua_ssl_*` directives of a location, while the configuration is read.
//!
//! ngx_lua makes its SSL contexts from them. Where it stores these differs from
//! version to version, so we make our own contexts from the same values.

use std::ptr::NonNull;

use nginx_sys::{
    ngx_array_t, ngx_conf_t, ngx_http_conf_ctx_t, ngx_http_module_t, ngx_int_t, ngx_str_t,
    ngx_uint_t,
};

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
    /// The settings of the location whose configuration is being merged. `None`
    /// if the loaded ngx_lua has no TLS.
    ///
    /// # Safety
    ///
    /// To be called from a module's `merge_loc_conf`, with its `cf`. As
    /// modules are merged in the order they were loaded, ngx_lua's values are
    /// final then.
    pub unsafe fn being_merged(cf: *mut ngx_conf_t) -> Option<TlsSettings> {
        // SAFETY: nginx sets the context to the location's while it merges.
        unsafe { TlsSettings::at(of_context(cf)?) }
    }

    /// The settings of the http block. `None` as above, or if there is no
    /// memory.
    ///
    /// # Safety
    ///
    /// To be called from a module's `postconfiguration`, with its `cf`.
    pub unsafe fn of_http_block(cf: *mut ngx_conf_t) -> Option<TlsSettings> {
        // SAFETY: nginx has set the context to the http block's again. What is
        // not set there has the initial value of nginx's slot functions.
        unsafe {
            let said = TlsSettings::at(of_context(cf)?)?;
            let default = TlsSettings::defaults(cf)?;
            let text = |said: ngx_str_t, default| match said.data.is_null() {
                true => default,
                false => said,
            };
            // NGX_CONF_UNSET_PTR
            let array = |said: *mut ngx_array_t, default| match said.addr() == usize::MAX {
                true => default,
                false => said,
            };
            Some(TlsSettings {
                protocols: match said.protocols {
                    0 => default.protocols,
                    protocols => protocols,
                },
                ciphers: text(said.ciphers, default.ciphers),
                verify_depth: match said.verify_depth {
                    -1 => default.verify_depth, // NGX_CONF_UNSET_UINT
                    depth => depth,
                },
                trusted_certificate: text(said.trusted_certificate, default.trusted_certificate),
                crl: text(said.crl, default.crl),
                conf_commands: array(said.conf_commands, default.conf_commands),
                certificates: array(said.certificates, default.certificates),
                certificate_keys: array(said.certificate_keys, default.certificate_keys),
            })
        }
    }

    /// The defaults. They differ from version to version, so they are taken
    /// from ngx_lua, as nginx would.
    ///
    /// # Safety
    ///
    /// As for [`Self::of_http_block`].
    unsafe fn defaults(cf: *mut ngx_conf_t) -> Option<TlsSettings> {
        // SAFETY: ngx_lua's hooks are called in the order in which nginx calls
        // them, with a configuration that names no file.
        unsafe {
            let hooks = ngx_http_lua_module.ctx.cast::<ngx_http_module_t>();
            let (create, merge) = ((*hooks).create_loc_conf?, (*hooks).merge_loc_conf?);
            let (parent, child) = (NonNull::new(create(cf))?, NonNull::new(create(cf))?);
            if !merge(cf, parent.as_ptr(), child.as_ptr()).is_null() {
                return None;
            }
            TlsSettings::at(child.cast())
        }
    }

    /// # Safety
    ///
    /// `conf` is ngx_lua's configuration of a location.
    unsafe fn at(conf: NonNull<u8>) -> Option<TlsSettings> {
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

/// ngx_lua's configuration in the context of `cf`.
///
/// # Safety
///
/// The context is one of http, filled for all modules.
unsafe fn of_context(cf: *mut ngx_conf_t) -> Option<NonNull<u8>> {
    // SAFETY: by this function's contract.
    unsafe {
        let context = (*cf).ctx.cast::<ngx_http_conf_ctx_t>();
        let conf = *(*context).loc_conf.add(ngx_http_lua_module.ctx_index);
        NonNull::new(conf.cast())
    }
}

fn read<T: Copy>(conf: NonNull<u8>, offset: usize) -> T {
    // SAFETY: the directive's slot function stores a `T` at this offset.
    unsafe { conf.as_ptr().add(offset).cast::<T>().read() }
}
