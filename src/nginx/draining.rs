//! nginx closes idle connections when free ones run short (`ngx_drain_connections`). This decides
//! when it may.

use nginx_sys::{ngx_close_connection, ngx_cycle, ngx_get_connection, ngx_uint_t};

use super::log::silent_log;

/// Whether nginx closes idle connections before it gives the next one away
/// (`ngx_drain_connections`).
#[inline(always)]
pub fn is_scarce() -> bool {
    // SAFETY: the cycle exists while nginx runs; this is its only thread.
    unsafe {
        (*ngx_cycle).free_connection_n <= (*ngx_cycle).connection_n / 16
            && (*ngx_cycle).reusable_connections_n > 0
    }
}

/// Has nginx close idle connections if they are scarce, as it does when it opens
/// one. Closing one can end a request, whose `log_by_lua*` and clean-up may run
/// any code: not to be called while the worker's state is in use.
#[cold]
pub fn make_room() {
    if !is_scarce() {
        return;
    }
    // SAFETY: the cycle exists while nginx runs. A connection is opened and
    // closed, as nginx does it: nothing but a free one is left of it. There is
    // nobody to be told if there is none.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if socket == -1 {
            return;
        }
        let connection = ngx_get_connection(socket, silent_log());
        if connection.is_null() {
            libc::close(socket);
        } else {
            ngx_close_connection(connection);
        }
    }
}

/// The result of `f`, which opens connections. Meanwhile nginx closes no idle
/// ones for them: see [`make_room`], whose time was before.
pub fn without_draining<R>(f: impl FnOnce() -> R) -> R {
    /// Puts back what was taken away, whatever happens. What was counted
    /// meanwhile, up or down, counts.
    struct Held(ngx_uint_t);
    impl Drop for Held {
        fn drop(&mut self) {
            // SAFETY: the cycle exists while nginx runs.
            unsafe {
                let count = &raw mut (*ngx_cycle).reusable_connections_n;
                *count = (*count).wrapping_add(self.0);
            }
        }
    }
    // SAFETY: as above. nginx looks at this number for nothing else, and `f`
    // neither makes a connection reusable nor closes one that is.
    let _held = unsafe {
        let count = &raw mut (*ngx_cycle).reusable_connections_n;
        Held(std::mem::replace(&mut *count, 0))
    };
    f()
}
