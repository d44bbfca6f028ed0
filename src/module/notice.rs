//! The line in error.log that says at the start what runs, and where connections are shared.

use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use nginx_sys::{NGX_LOG_NOTICE, NGX_PROCESS_MASTER, ngx_cycle_t, ngx_process, ngx_test_config};

use crate::nginx::Conf;
use crate::version::{NGINX, VERSION};
use crate::{conf, nginx, ngx_lua};

/// ngx_lua's version as it counts, 10023 for 0.10.23; 0 if it is unknown.
static NGX_LUA: AtomicU32 = AtomicU32::new(0);

/// Asks ngx_lua's new VM for its version.
pub fn look(cf: Conf) {
    NGX_LUA.store(ngx_lua::version(cf).unwrap_or(0), Ordering::Relaxed);
}

/// Writes the line when nginx starts or reads its configuration again, not when it only tests it.
///
/// # Safety
///
/// To be called from `init_module`, with its `cycle`.
pub unsafe fn write(cycle: NonNull<ngx_cycle_t>) {
    // SAFETY: nginx's globals, and a cycle with a log.
    let (log, starts) = unsafe {
        let starts = ngx_test_config == 0 && ngx_process <= NGX_PROCESS_MASTER as usize;
        (nginx::Log::from_raw(cycle.as_ref().log), starts)
    };
    if !starts {
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
