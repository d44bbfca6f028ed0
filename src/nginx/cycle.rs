//! nginx's global variables: the cycle, the clock, and whether the worker ends.

use std::cell::Cell;
use std::ffi::CStr;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicUsize, Ordering::Relaxed};

use nginx_sys::{
    NGX_PROCESS_MASTER, ngx_conf_t, ngx_cycle_t, ngx_http_conf_ctx_t, ngx_log_t, ngx_time_t,
    ngx_uint_t,
};

use nginx_sys::{NGX_PROCESS_SINGLE, NGX_PROCESS_WORKER, ngx_module_t};

use super::Msec;
use super::live::Live;
use super::log::{Log, Owner};
use super::module::ngx_http_module;

// SAFETY: nginx declares variables of these sizes. This thread and its signal handlers write them,
// nobody else.
unsafe extern "C" {
    safe static ngx_cycle: AtomicPtr<ngx_cycle_t>;
    safe static ngx_cached_time: AtomicPtr<ngx_time_t>;
    safe static ngx_current_msec: AtomicUsize;
    safe static ngx_exiting: AtomicUsize;
    safe static ngx_terminate: AtomicI32;
    safe static ngx_test_config: AtomicUsize;
    safe static ngx_process: AtomicUsize;
    safe static ngx_worker: AtomicUsize;
}

/// They are what the headers say.
const _: fn() = || {
    let _: *mut *mut ngx_cycle_t = &raw mut nginx_sys::ngx_cycle;
    let _: *mut *mut ngx_time_t = &raw mut nginx_sys::ngx_cached_time;
    let _: *mut usize = &raw mut nginx_sys::ngx_current_msec;
    let _: *mut usize = &raw mut nginx_sys::ngx_exiting;
    let _: *mut i32 = &raw mut nginx_sys::ngx_terminate;
    let _: *mut usize = &raw mut nginx_sys::ngx_test_config;
    let _: *mut usize = &raw mut nginx_sys::ngx_process;
    let _: *mut usize = &raw mut nginx_sys::ngx_worker;
};

/// A cycle. It is not kept, because it may go when there is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cycle(Live<ngx_cycle_t>);

impl Cycle {
    /// The current one; `None` before there is any.
    #[inline(always)]
    pub fn current() -> Option<Cycle> {
        Cycle::from_raw(current_cycle())
    }

    /// The one whose configuration is being read.
    pub fn of(conf: &ngx_conf_t) -> Option<Cycle> {
        Cycle::from_raw(conf.cycle)
    }

    #[inline(always)]
    fn from_raw(cycle: *mut ngx_cycle_t) -> Option<Cycle> {
        // SAFETY: both callers have one that exists, or none.
        NonNull::new(cycle).map(|cycle| Cycle(unsafe { Live::new(cycle) }))
    }

    /// Its log.
    pub fn log(self) -> Log {
        Log::of(&*self.0)
    }

    /// Whether nginx closes idle connections before it gives the next one away
    /// (`ngx_drain_connections`).
    #[inline(always)]
    pub fn is_scarce(self) -> bool {
        self.0.free_connection_n <= self.0.connection_n / 16 && self.0.reusable_connections_n > 0
    }

    /// Number of idle connections that nginx may close.
    pub fn reusable(&self) -> &Cell<ngx_uint_t> {
        // SAFETY: a field of the cycle, which this thread only writes; no other reference to it is
        // held.
        unsafe { &*(&raw mut (*self.0.as_ptr()).reusable_connections_n).cast() }
    }

    /// A module of it, by its name.
    pub(super) fn module(self, name: &CStr) -> Option<*const ngx_module_t> {
        let mut at = self.0.modules;
        // SAFETY: a cycle has an array of all modules, which ends with null; dynamic ones have
        // names, too.
        unsafe {
            while let Some(module) = (*at).as_ref() {
                if !module.name.is_null() && CStr::from_ptr(module.name) == name {
                    return Some(module);
                }
                at = at.add(1);
            }
        }
        None
    }

    /// The context of its http block, if one has been read.
    pub fn http(self) -> Option<Live<ngx_http_conf_ctx_t>> {
        let index = ngx_http_module.core_index();
        // SAFETY: a cycle has a place for each module; http's has the context as soon as nginx
        // reads the block.
        unsafe { NonNull::new((*self.0.conf_ctx.add(index)).cast()).map(|at| Live::new(at)) }
    }
}

impl Owner for ngx_cycle_t {
    fn log(&self) -> *mut ngx_log_t {
        self.log
    }
}

impl Log {
    /// The log of the current cycle; before there is one, one that nobody sees.
    pub fn of_cycle() -> Log {
        Cycle::current().map_or_else(Log::silent, Cycle::log)
    }
}

/// The address of the current cycle.
#[inline(always)]
pub fn current_cycle() -> *mut ngx_cycle_t {
    ngx_cycle.load(Relaxed)
}

/// The time of the current iteration of the event loop.
#[inline(always)]
pub fn now() -> Msec {
    ngx_current_msec.load(Relaxed)
}

/// nginx's clock.
fn clock() -> Live<ngx_time_t> {
    // SAFETY: set at its start, and by this thread only.
    unsafe { Live::new(NonNull::new_unchecked(ngx_cached_time.load(Relaxed))) }
}

/// Seconds of the epoch.
pub fn seconds() -> libc::time_t {
    clock().sec
}

/// How long it is, in this iteration of the event loop, until the clock says a later second than
/// this one of the epoch.
pub fn until_after(second: libc::time_t) -> Msec {
    let (now, part) = (clock().sec, clock().msec);
    let seconds = Msec::try_from(second.saturating_add(1).saturating_sub(now)).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_sub(part)
}

/// Whether this process handles events, or will: nginx has made its connections.
pub fn has_events() -> bool {
    Cycle::current().is_some_and(|cycle| !cycle.0.connections.is_null())
}

/// Whether nginx starts or reads its configuration again, and does not only test it. For
/// `init_module`.
pub fn is_starting() -> bool {
    ngx_test_config.load(Relaxed) == 0 && ngx_process.load(Relaxed) <= NGX_PROCESS_MASTER as usize
}

/// The number of this worker: 0 for the first one, and for its successor if it dies. `None`: the
/// process is no worker.
pub fn worker_number() -> Option<usize> {
    match ngx_process.load(Relaxed) as u32 {
        NGX_PROCESS_SINGLE | NGX_PROCESS_WORKER => Some(ngx_worker.load(Relaxed)),
        _ => None,
    }
}

/// Whether the worker is about to end: what becomes idle is to be closed.
pub fn is_exiting() -> bool {
    ngx_exiting.load(Relaxed) != 0 || ngx_terminate.load(Relaxed) != 0
}
