//! Panics on demand, for `t/contain.t`. Without the feature `fault-injection` nothing of this is
//! there.

/// A place where a test may have the code panic.
#[cfg(not(feature = "fault-injection"))]
#[inline(always)]
pub fn point() {}

#[cfg(feature = "fault-injection")]
pub use on_demand::point;

#[cfg(feature = "fault-injection")]
mod on_demand {
    use std::ffi::c_int;
    use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

    /// How many points there are to the one that panics; 0: none does.
    static AHEAD: AtomicI32 = AtomicI32::new(0);

    /// A place where a test may have the code panic.
    #[track_caller]
    pub fn point() {
        let ahead = AHEAD.load(Relaxed);
        if ahead > 0 {
            AHEAD.store(ahead - 1, Relaxed);
            assert!(ahead > 1, "as asked for by a test");
        }
    }

    /// Has the n-th point from now panic (0: none). What was left of the number set before: 0
    /// if it has panicked.
    #[unsafe(no_mangle)]
    pub extern "C" fn ngx_http_lua_memcached_fault(n: c_int) -> c_int {
        AHEAD.swap(n, Relaxed)
    }
}
