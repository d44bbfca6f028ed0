//! Log lines and error texts.

use std::cell::UnsafeCell;
use std::fmt;
use std::mem::MaybeUninit;

use nginx_sys::{
    NGX_MAX_ERROR_STR, ngx_conf_t, ngx_connection_t, ngx_err_t, ngx_log_error_core, ngx_log_t,
    ngx_strerror, ngx_uint_t,
};

use super::live::Zeroed;

/// A log of nginx. It is not kept longer than what it belongs to: a cycle, a connection, or a
/// configuration being read.
#[derive(Clone, Copy)]
pub struct Log(*mut ngx_log_t);

impl Log {
    /// # Safety
    ///
    /// The log is valid, and the value is dropped before the log goes away.
    #[inline(always)]
    pub unsafe fn from_raw(log: *mut ngx_log_t) -> Log {
        Log(log)
    }

    #[inline(always)]
    pub(super) fn of(owner: &impl Owner) -> Log {
        Log(owner.log())
    }

    /// One that nobody sees.
    pub fn silent() -> Log {
        Log(silent_log())
    }

    /// Whether nobody sees it.
    pub fn is_silent(self) -> bool {
        self.0 == silent_log()
    }

    /// For functions of nginx.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut ngx_log_t {
        self.0
    }

    /// Writes one line if the log's level lets it through.
    pub fn write(self, level: u32, err: ngx_err_t, args: fmt::Arguments<'_>) {
        // SAFETY: the log is valid.
        if unsafe { (*self.0).log_level } >= level as ngx_uint_t {
            write_line(level, self, err, args);
        }
    }
}

/// What nginx gives a log, for as long as it is there.
pub(super) trait Owner {
    fn log(&self) -> *mut ngx_log_t;
}

impl Owner for ngx_connection_t {
    #[inline(always)]
    fn log(&self) -> *mut ngx_log_t {
        self.log
    }
}

impl Owner for ngx_conf_t {
    fn log(&self) -> *mut ngx_log_t {
        self.log
    }
}

/// Writes a line. Control characters, which could make it look like several, become `?`.
fn write_line(level: u32, log: Log, err: ngx_err_t, args: fmt::Arguments<'_>) {
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
            log.0,
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
    // a log at level 0 without a file
    static SILENT: Silent = Silent(UnsafeCell::new(ngx_log_t::ZEROED));
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
