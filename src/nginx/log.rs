//! Log lines and error texts.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;

use nginx_sys::{
    NGX_MAX_ERROR_STR, ngx_err_t, ngx_log_error_core, ngx_log_t, ngx_strerror, ngx_uint_t,
};

/// Writes one line to `log` if its level lets it through. Control characters,
/// which could make it look like several, become `?`.
///
/// # Safety
///
/// `log` is a valid log, e.g. that of a live connection or of the cycle.
pub unsafe fn log(level: u32, log: *mut ngx_log_t, err: ngx_err_t, args: fmt::Arguments<'_>) {
    // SAFETY: valid by this function's contract.
    if unsafe { (*log).log_level } < level as ngx_uint_t {
        return;
    }
    let mut buf = [MaybeUninit::uninit(); NGX_MAX_ERROR_STR as usize];
    let text = ngx::log::write_fmt(&mut buf, args);
    let printable: Vec<u8>;
    let text = if text.iter().any(u8::is_ascii_control) {
        let replace = |byte: &u8| if byte.is_ascii_control() { b'?' } else { *byte };
        printable = text.iter().map(replace).collect();
        &printable
    } else {
        text
    };
    // SAFETY: the log is valid; `%*s` reads exactly `len` bytes.
    unsafe {
        ngx_log_error_core(
            level as ngx_uint_t,
            log,
            err,
            c"%*s".as_ptr(),
            text.len(),
            text.as_ptr(),
        );
    }
}

/// A log into which nginx may write; nothing of it is seen.
pub fn silent_log() -> *mut ngx_log_t {
    struct Silent(UnsafeCell<ngx_log_t>);
    // SAFETY: nginx has one thread, and writes no line at level 0.
    unsafe impl Sync for Silent {}
    // SAFETY: a C struct; all zeros is a log at level 0 without a file.
    static SILENT: Silent = Silent(UnsafeCell::new(unsafe { std::mem::zeroed() }));
    SILENT.0.get()
}

/// The text of an errno as cosockets give it: nginx's, in lower case.
pub fn error_text(errno: ngx_err_t) -> String {
    let mut buf = [0u8; NGX_MAX_ERROR_STR as usize];
    // SAFETY: the buffer is as long as we say; the result points into it.
    let len = unsafe {
        let start = buf.as_mut_ptr();
        ngx_strerror(errno, start, buf.len()).offset_from(start)
    };
    let text = buf.get(..len.unsigned_abs()).unwrap_or_default();
    String::from_utf8_lossy(text).to_lowercase()
}

/// The errno of the last failed call.
pub fn last_errno() -> ngx_err_t {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}
