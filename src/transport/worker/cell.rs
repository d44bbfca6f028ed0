//! The one state of a worker process, and who may use it when.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::contain::{alert, contain};
use crate::transport::fallback::Fallback;
use crate::transport::worker::Worker;

struct Cell(RefCell<Option<Worker>>);

// SAFETY: nginx handles events and Lua in one thread per process, and no other thread (of a thread
// pool) comes here.
unsafe impl Sync for Cell {}

static WORKER: Cell = Cell(RefCell::new(None));

/// What the process has is gone.
static ENDED: AtomicBool = AtomicBool::new(false);

/// The process begins.
pub fn begin() {
    ENDED.store(false, Ordering::Relaxed);
}

/// Whether [`end`] was called since.
pub fn has_ended() -> bool {
    ENDED.load(Ordering::Relaxed)
}

/// Runs `f` with the worker's state.
///
/// `f` must call nothing that may run Lua: Lua may call methods and collect garbage, which comes
/// back here, and then `f` is not run. What opens a connection sees to it that nginx closes no idle
/// ones for it, see `calls/room.rs`.
///
/// A panic of `f` comes no further; the result is a [`Fallback`] then.
pub fn with<R: Fallback>(f: impl FnOnce(&mut Worker) -> R) -> R {
    let Ok(mut cell) = WORKER.0.try_borrow_mut() else {
        return in_use();
    };
    let worker = match &mut *cell {
        Some(worker) => worker,
        none => none.insert(new_worker()),
    };
    worker.contained(f)
}

/// What a nested [`with`] returns. Nesting is a bug.
#[cold]
fn in_use<R: Fallback>() -> R {
    alert(format_args!(
        "lua memcached internal error: the worker's state is in use"
    ));
    R::fallback()
}

#[cold]
fn new_worker() -> Worker {
    Worker::default()
}

/// As [`with`], but does nothing if there is no state (any more): at exit the Lua VM, and with it
/// the last handles, is collected later.
pub fn with_existing(f: impl FnOnce(&mut Worker)) {
    let Ok(mut cell) = WORKER.0.try_borrow_mut() else {
        return in_use();
    };
    if let Some(worker) = cell.as_mut() {
        worker.contained(f);
    }
}

/// Takes the worker's state away, after `f` has seen it. What comes later finds nothing.
pub fn end(f: impl FnOnce(&mut Worker)) {
    ENDED.store(true, Ordering::Relaxed);
    let Ok(mut cell) = WORKER.0.try_borrow_mut() else {
        return in_use();
    };
    let worker = cell.take();
    drop(cell);
    if let Some(mut worker) = worker {
        worker.contained(f);
    }
}

impl Worker {
    /// The result of `f` or, if it panics, something in its place. Then all that was under way
    /// fails, since nobody knows how far `f` has got.
    #[inline(always)]
    pub fn contained<R: Fallback>(&mut self, f: impl FnOnce(&mut Worker) -> R) -> R {
        match contain(|| f(self)) {
            Some(result) => result,
            None => self.start_over(),
        }
    }

    #[cold]
    #[inline(never)]
    pub fn start_over<R: Fallback>(&mut self) -> R {
        if contain(|| self.drop_all()).is_none() {
            // it is of no use any more; nginx starts another
            std::process::abort();
        }
        R::fallback()
    }
}
