//! Panics, and worse, on demand, for `t/faults/contain.t`. Without the feature `fault-injection`
//! nothing of this is there.

/// A place where a test may have the code fail.
#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub fn point() {}

#[cfg(feature = "fault-injection")]
pub use on_demand::{point, when_asked};

#[cfg(feature = "fault-injection")]
mod on_demand {
    use std::ffi::c_int;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

    /// How many points there are to the one that panics or, as a negative number, that asks for the
    /// worker's state within itself; 0: none does.
    static AHEAD: AtomicI32 = AtomicI32::new(0);

    /// Asks for the worker's state.
    static ASK: OnceLock<fn()> = OnceLock::new();

    /// Tells how to ask for the worker's state.
    pub fn when_asked(ask: fn()) {
        let _ = ASK.set(ask);
    }

    /// A place where a test may have the code fail.
    #[track_caller]
    pub fn point() {
        let ahead = AHEAD.load(Relaxed);
        AHEAD.store(ahead - ahead.signum(), Relaxed);
        assert!(ahead != 1, "as asked for by a test");
        if ahead == -1 {
            if let Some(ask) = ASK.get() {
                ask();
            }
        }
    }

    /// Has the n-th point from now panic or, with -n, ask for the worker's state (0: none). What
    /// was left of the number set before: 0 if that has happened.
    #[unsafe(no_mangle)]
    pub extern "C" fn ngx_http_lua_memcached_fault(n: c_int) -> c_int {
        AHEAD.swap(n, Relaxed)
    }
}
