//! The line in error.log that says at the start what runs, and where connections are shared.

use std::sync::atomic::{AtomicU32, Ordering};

use nginx_sys::NGX_LOG_NOTICE;

use crate::nginx::{Conf, Log};
use crate::version::{NGINX, VERSION};
use crate::{conf, nginx, ngx_lua};

/// ngx_lua's version as it counts, 10023 for 0.10.23; 0 if it is unknown.
static NGX_LUA: AtomicU32 = AtomicU32::new(0);

/// Asks ngx_lua's new VM for its version.
pub fn look(cf: Conf) {
    NGX_LUA.store(ngx_lua::version(cf).unwrap_or(0), Ordering::Relaxed);
}

/// Writes the line when nginx starts or reads its configuration again, not when it only tests it.
/// To be called from `init_module`, with its cycle's log.
pub fn write(log: Log) {
    if !nginx::is_starting() {
        return;
    }
    let shared = conf::multiplex_places();
    let shared = if shared.is_empty() { "off" } else { &shared };
    let number = NGX_LUA.load(Ordering::Relaxed);
    let (major, minor, patch) = (number / 1_000_000, number / 1_000 % 1_000, number % 1_000);
    log.write(
        NGX_LOG_NOTICE,
        0,
        format_args!(
            "ngx_http_lua_memcached_module {VERSION}, built for nginx {NGINX}, runs with \
             ngx_lua {major}.{minor}.{patch}, shared connections: {shared}"
        ),
    );
}
