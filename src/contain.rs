//! Panics: what nginx or Lua calls lets none out, since one that meets a C frame ends the worker
//! process with all its requests.
//!
//! Nothing here is known to panic. If something does after all, it is a bug: it gets a line at
//! level `alert`, the operation an error, and the worker goes on.

use std::panic::{self, AssertUnwindSafe, PanicHookInfo};

use nginx_sys::NGX_LOG_ALERT;

use crate::nginx::Log;

/// What Lua is told.
pub const INTERNAL: &str = "internal error";

/// The result of `f`, or `None` if it panicked.
///
/// `f` must raise no Lua error: that is an exception of another language, which ends the process
/// here.
///
/// What `f` has changed may be half done: the caller sees to it that it is put right.
#[inline(always)]
pub fn contain<R>(f: impl FnOnce() -> R) -> Option<R> {
    panic::catch_unwind(AssertUnwindSafe(f)).ok()
}

/// Has panics told to the operator from now on.
pub fn report() {
    panic::set_hook(Box::new(log));
}

fn log(info: &PanicHookInfo<'_>) {
    let payload = info.payload();
    let text = match payload.downcast_ref::<&str>() {
        Some(text) => text,
        None => payload.downcast_ref::<String>().map_or("?", String::as_str),
    };
    let (file, line) = info
        .location()
        .map_or(("?", 0), |at| (at.file(), at.line()));
    alert(format_args!(
        "lua memcached internal error in {file}:{line}: {text}"
    ));
}

/// Tells the operator of a bug.
pub fn alert(text: std::fmt::Arguments<'_>) {
    Log::of_cycle().write(NGX_LOG_ALERT, 0, text);
}
