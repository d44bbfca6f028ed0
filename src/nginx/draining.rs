//! nginx closes idle connections when free ones run short (`ngx_drain_connections`). This decides
//! when it may.

use nginx_sys::{ngx_close_connection, ngx_get_connection, ngx_uint_t};

use super::cycle::Cycle;
use super::log::silent_log;

/// Whether nginx closes idle connections before it gives the next one away
/// (`ngx_drain_connections`).
#[inline(always)]
pub fn is_scarce() -> bool {
    Cycle::current().is_some_and(Cycle::is_scarce)
}

/// Has nginx close idle connections if they are scarce, as it does when it opens one. Closing one
/// can end a request, whose `log_by_lua*` and clean-up may run any code: not to be called while the
/// worker's state is in use.
#[cold]
pub fn make_room() {
    if !is_scarce() {
        return;
    }
    // SAFETY: a connection is opened and closed, as nginx does it: nothing but a free one is left
    // of it. There is nobody to be told if there is none.
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

/// The result of `f`, which opens connections. Meanwhile nginx closes no idle ones for them: see
/// [`make_room`], whose time was before.
pub fn without_draining<R>(f: impl FnOnce() -> R) -> R {
    /// Puts back what was taken away, whatever happens. What was counted meanwhile, up or down,
    /// counts.
    struct Held(Cycle, ngx_uint_t);
    impl Drop for Held {
        fn drop(&mut self) {
            let count = self.0.reusable();
            count.set(count.get().wrapping_add(self.1));
        }
    }
    // nginx looks at this number for nothing else, and `f` neither makes a connection reusable nor
    // closes one that is
    let _held = Cycle::current().map(|cycle| Held(cycle, cycle.reusable().take()));
    f()
}
