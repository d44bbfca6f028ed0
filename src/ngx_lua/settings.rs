//! The `lua_socket_*` directives in force at a location.
//!
//! ngx_lua's configuration struct differs from version to version. Its command
//! table tells at which offset each directive stores its value, so that is
//! looked up once and no header is needed.

use std::ptr::NonNull;
use std::sync::OnceLock;

use nginx_sys::{ngx_command_t, ngx_flag_t, ngx_int_t, ngx_msec_t};

use super::ngx_http_lua_module;
use crate::nginx::{HttpBlock, Msec, Request};

/// ngx_lua's default of `lua_socket_keepalive_timeout`.
const KEEPALIVE_TIMEOUT: Msec = 60_000;

#[derive(Debug)]
struct Offsets {
    connect_timeout: usize,
    send_timeout: usize,
    read_timeout: usize,
    keepalive_timeout: usize,
    pool_size: usize,
    send_lowat: usize,
    log_errors: usize,
}

static OFFSETS: OnceLock<Offsets> = OnceLock::new();

/// The loaded ngx_lua has no such directive.
#[derive(Debug, thiserror::Error)]
#[error("the loaded ngx_http_lua_module has no directive \"{0}\"")]
pub struct MissingDirective(&'static str);

/// Looks the directives up in ngx_lua's command table.
///
/// # Errors
///
/// If one is missing; the module cannot work with such an ngx_lua.
pub fn discover() -> Result<(), MissingDirective> {
    let offsets = Offsets {
        connect_timeout: offset("lua_socket_connect_timeout")?,
        send_timeout: offset("lua_socket_send_timeout")?,
        read_timeout: offset("lua_socket_read_timeout")?,
        keepalive_timeout: offset("lua_socket_keepalive_timeout")?,
        pool_size: offset("lua_socket_pool_size")?,
        send_lowat: offset("lua_socket_send_lowat")?,
        log_errors: offset("lua_socket_log_errors")?,
    };
    // a second configuration finds the same module
    let _ = OFFSETS.set(offsets);
    Ok(())
}

/// Where ngx_lua's configuration of a location keeps a directive's value.
pub(super) fn offset(name: &'static str) -> Result<usize, MissingDirective> {
    // SAFETY: ngx_lua's command table is static and ends with an empty name.
    unsafe {
        let mut command: *const ngx_command_t = ngx_http_lua_module.commands;
        while !command.is_null() && (*command).name.len != 0 {
            let text = std::slice::from_raw_parts((*command).name.data, (*command).name.len);
            if text == name.as_bytes() {
                return Ok((*command).offset);
            }
            command = command.add(1);
        }
    }
    Err(MissingDirective(name))
}

/// The directives in force at the current location of a request.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    conf: NonNull<u8>,
    offsets: &'static Offsets,
}

impl Settings {
    /// The directives of `request`'s location, for as long as one has the
    /// request. `None` only before configuration.
    #[inline(always)]
    pub fn of(request: Request) -> Option<Settings> {
        // SAFETY: ngx_lua is an HTTP module.
        let conf = unsafe { request.loc_conf(ngx_http_lua_module.ctx_index) };
        Some(Settings {
            conf: NonNull::new(conf.cast())?,
            offsets: OFFSETS.get()?,
        })
    }

    /// `lua_socket_keepalive_timeout` of the current http block; 0: no limit
    pub fn idle_timeout_of_http() -> Msec {
        // SAFETY: ngx_lua is an HTTP module.
        let conf = HttpBlock::current()
            .and_then(|http| NonNull::new(unsafe { http.loc_conf(ngx_http_lua_module.ctx_index) }));
        let settings = conf.zip(OFFSETS.get()).map(|(conf, offsets)| Settings {
            conf: conf.cast(),
            offsets,
        });
        match settings.map(|settings| settings.keepalive_timeout()) {
            // it is not set there
            None | Some(Msec::MAX) => KEEPALIVE_TIMEOUT,
            Some(timeout) => timeout,
        }
    }

    fn read<T: Copy>(&self, offset: usize) -> T {
        // SAFETY: the directive's slot function stores a `T` at this offset.
        unsafe { self.conf.as_ptr().add(offset).cast::<T>().read() }
    }

    /// `lua_socket_connect_timeout`
    pub fn connect_timeout(&self) -> Msec {
        self.read::<ngx_msec_t>(self.offsets.connect_timeout)
    }

    /// `lua_socket_send_timeout`
    pub fn send_timeout(&self) -> Msec {
        self.read::<ngx_msec_t>(self.offsets.send_timeout)
    }

    /// `lua_socket_read_timeout`
    pub fn read_timeout(&self) -> Msec {
        self.read::<ngx_msec_t>(self.offsets.read_timeout)
    }

    /// `lua_socket_keepalive_timeout`; 0: no limit
    pub fn keepalive_timeout(&self) -> Msec {
        self.read::<ngx_msec_t>(self.offsets.keepalive_timeout)
    }

    /// `lua_socket_pool_size`, in connections
    pub fn pool_size(&self) -> isize {
        self.read::<ngx_int_t>(self.offsets.pool_size)
    }

    /// `lua_socket_send_lowat`, in bytes
    pub fn send_lowat(&self) -> usize {
        self.read::<usize>(self.offsets.send_lowat)
    }

    /// `lua_socket_log_errors`
    pub fn log_errors(&self) -> bool {
        self.read::<ngx_flag_t>(self.offsets.log_errors) != 0
    }
}
