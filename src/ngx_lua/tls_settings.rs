//! The `lua_ssl_*` directives of a location, while the configuration is read.
//!
//! ngx_lua makes its SSL contexts from them. Where it stores these differs from version to version,
//! so we make our own contexts from the same values.

use std::ptr::{self, NonNull};

use nginx_sys::{ngx_int_t, ngx_keyval_t, ngx_str_t, ngx_uint_t};

use super::layout::{LocConf, ngx_http_lua_module};
use super::settings::{offset, read};
use crate::nginx::{Array, Conf, Live};

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
    /// `lua_ssl_conf_command`
    pub conf_commands: Array<ngx_keyval_t>,
    /// `lua_ssl_certificate`; newer ngx_lua only
    pub certificates: Array<ngx_str_t>,
    /// `lua_ssl_certificate_key`
    pub certificate_keys: Array<ngx_str_t>,
}

impl TlsSettings {
    /// The settings of the location whose configuration is being merged. `None` if the loaded
    /// ngx_lua has no TLS.
    ///
    /// To be called from a module's `merge_loc_conf`. As modules are merged in the order they were
    /// loaded, ngx_lua's values are final then.
    pub fn being_merged(cf: Conf) -> Option<TlsSettings> {
        TlsSettings::at(cf.of_block(&ngx_http_lua_module)?)
    }

    /// The settings of the http block. `None` as above, or if there is no memory.
    ///
    /// To be called from a module's `postconfiguration`. What is not set in the block has the
    /// initial value of nginx's slot functions.
    pub fn of_http_block(cf: Conf) -> Option<TlsSettings> {
        let said = TlsSettings::at(cf.of_block(&ngx_http_lua_module)?)?;
        let default = TlsSettings::defaults(cf)?;
        let text = |said: ngx_str_t, default| match said.data.is_null() {
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
            conf_commands: said.conf_commands.or(default.conf_commands),
            certificates: said.certificates.or(default.certificates),
            certificate_keys: said.certificate_keys.or(default.certificate_keys),
        })
    }

    /// The defaults. They differ from version to version, so they are taken from ngx_lua, as nginx
    /// would.
    fn defaults(cf: Conf) -> Option<TlsSettings> {
        let hooks = ngx_http_lua_module.hooks();
        // SAFETY: ngx_lua's hooks are called in the order in which nginx calls them, with a
        // configuration that names no file.
        let merged = unsafe {
            let (create, merge) = ((*hooks).create_loc_conf?, (*hooks).merge_loc_conf?);
            let (parent, child) = (create(cf.as_ptr()), create(cf.as_ptr()));
            let (parent, child) = (NonNull::new(parent)?, NonNull::new(child)?);
            if !merge(cf.as_ptr(), parent.as_ptr(), child.as_ptr()).is_null() {
                return None;
            }
            Live::new(child.cast())
        };
        TlsSettings::at(merged)
    }

    fn at(conf: Live<LocConf>) -> Option<TlsSettings> {
        // SAFETY: these are stored as such. An array has elements of this type, and is in the
        // memory of the configuration.
        unsafe {
            let array = |name| offset(name).map_or(ptr::null_mut(), |at| read(conf, &at));
            Some(TlsSettings {
                protocols: read(conf, &offset("lua_ssl_protocols").ok()?),
                ciphers: read(conf, &offset("lua_ssl_ciphers").ok()?),
                verify_depth: read(conf, &offset("lua_ssl_verify_depth").ok()?),
                trusted_certificate: read(conf, &offset("lua_ssl_trusted_certificate").ok()?),
                crl: read(conf, &offset("lua_ssl_crl").ok()?),
                conf_commands: Array::new(array("lua_ssl_conf_command")),
                certificates: Array::new(array("lua_ssl_certificate")),
                certificate_keys: Array::new(array("lua_ssl_certificate_key")),
            })
        }
    }
}
