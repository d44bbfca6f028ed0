//! The `lua_socket_*` directives in force at a location.
//!
//! ngx_lua's configuration struct differs from version to version. Its command table tells at which
//! offset each directive stores its value, so that is looked up once and no header is needed.

use std::marker::PhantomData;
use std::sync::OnceLock;

use nginx_sys::{ngx_flag_t, ngx_int_t, ngx_msec_t};

use super::layout::{LocConf, ngx_http_lua_module};
use crate::nginx::{HttpBlock, Live, Msec, Request};

/// ngx_lua's default of `lua_socket_keepalive_timeout`.
const KEEPALIVE_TIMEOUT: Msec = 60_000;

/// Where that keeps the value of a directive, which its slot function stores as a `T`.
#[derive(Debug)]
pub(super) struct Offset<T>(usize, PhantomData<fn() -> T>);

#[derive(Debug)]
struct Offsets {
    connect_timeout: Offset<ngx_msec_t>,
    send_timeout: Offset<ngx_msec_t>,
    read_timeout: Offset<ngx_msec_t>,
    keepalive_timeout: Offset<ngx_msec_t>,
    pool_size: Offset<ngx_int_t>,
    send_lowat: Offset<usize>,
    log_errors: Offset<ngx_flag_t>,
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
    // SAFETY: these are stored as such, see `Offsets`.
    let offsets = unsafe {
        Offsets {
            connect_timeout: offset("lua_socket_connect_timeout")?,
            send_timeout: offset("lua_socket_send_timeout")?,
            read_timeout: offset("lua_socket_read_timeout")?,
            keepalive_timeout: offset("lua_socket_keepalive_timeout")?,
            pool_size: offset("lua_socket_pool_size")?,
            send_lowat: offset("lua_socket_send_lowat")?,
            log_errors: offset("lua_socket_log_errors")?,
        }
    };
    // a second configuration finds the same module
    let _ = OFFSETS.set(offsets);
    Ok(())
}

/// Where ngx_lua's configuration of a location keeps a directive's value.
///
/// # Safety
///
/// The directive's slot function stores a `T`.
pub(super) unsafe fn offset<T>(name: &'static str) -> Result<Offset<T>, MissingDirective> {
    let mut command = ngx_http_lua_module.commands();
    // SAFETY: ngx_lua's command table is static and ends with an empty name.
    unsafe {
        while !command.is_null() && (*command).name.len != 0 {
            if (*command).name.as_bytes() == name.as_bytes() {
                return Ok(Offset((*command).offset, PhantomData));
            }
            command = command.add(1);
        }
    }
    Err(MissingDirective(name))
}

/// The value of a directive in a location.
#[inline(always)]
pub(super) fn read<T: Copy>(conf: Live<LocConf>, at: &Offset<T>) -> T {
    // SAFETY: see the types.
    unsafe { conf.as_ptr().cast::<T>().byte_add(at.0).read() }
}

/// The directives in force at the current location of a request.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    conf: Live<LocConf>,
    offsets: &'static Offsets,
}

impl Settings {
    /// The directives of `request`'s location, for as long as one has the request. `None` only
    /// before configuration.
    #[inline(always)]
    pub fn of(request: Request) -> Option<Settings> {
        Some(Settings {
            conf: request.conf(&ngx_http_lua_module)?,
            offsets: OFFSETS.get()?,
        })
    }

    /// `lua_socket_keepalive_timeout` of the current http block; 0: no limit
    pub fn idle_timeout_of_http() -> Msec {
        let conf = HttpBlock::current().and_then(|http| http.conf(&ngx_http_lua_module));
        let settings = conf
            .zip(OFFSETS.get())
            .map(|(conf, offsets)| Settings { conf, offsets });
        match settings.map(|settings| settings.keepalive_timeout()) {
            // it is not set there
            None | Some(Msec::MAX) => KEEPALIVE_TIMEOUT,
            Some(timeout) => timeout,
        }
    }

    /// `lua_socket_connect_timeout`
    pub fn connect_timeout(&self) -> Msec {
        read(self.conf, &self.offsets.connect_timeout)
    }

    /// `lua_socket_send_timeout`
    pub fn send_timeout(&self) -> Msec {
        read(self.conf, &self.offsets.send_timeout)
    }

    /// `lua_socket_read_timeout`
    pub fn read_timeout(&self) -> Msec {
        read(self.conf, &self.offsets.read_timeout)
    }

    /// `lua_socket_keepalive_timeout`; 0: no limit
    pub fn keepalive_timeout(&self) -> Msec {
        read(self.conf, &self.offsets.keepalive_timeout)
    }

    /// `lua_socket_pool_size`, in connections
    pub fn pool_size(&self) -> isize {
        read(self.conf, &self.offsets.pool_size)
    }

    /// `lua_socket_send_lowat`, in bytes
    pub fn send_lowat(&self) -> usize {
        read(self.conf, &self.offsets.send_lowat)
    }

    /// `lua_socket_log_errors`
    pub fn log_errors(&self) -> bool {
        read(self.conf, &self.offsets.log_errors) != 0
    }
}
