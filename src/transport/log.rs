//! Lines in error.log that say what cosockets say, in their words.

use std::ptr::NonNull;

use nginx_sys::{NGX_LOG_ERR, ngx_connection_error, ngx_http_request_t};

use crate::nginx;
use crate::ngx_lua::Settings;
use crate::transport::error::Error;

/// Logs what cosockets log, unless `lua_socket_log_errors` is off.
pub fn log_socket_error(
    request: Option<NonNull<ngx_http_request_t>>,
    text: std::fmt::Arguments<'_>,
) {
    let Some(request) = request else { return };
    // SAFETY: a session's request is live.
    unsafe {
        if Settings::of(request).is_some_and(|settings| settings.log_errors()) {
            nginx::log(NGX_LOG_ERR, (*(*request.as_ptr()).connection).log, 0, text);
        }
    }
}

/// Logs the use of a closed connection, in the words of cosockets, which log
/// alerts look for.
pub fn not_connected(request: NonNull<ngx_http_request_t>, action: &str, error: Error) -> Error {
    if error == Error::Closed {
        log_socket_error(
            Some(request),
            format_args!(
                "attempt to {action} data on a closed socket: u:{0:016X}, c:{0:016X}, ft:0 eof:0",
                0
            ),
        );
    }
    error
}

/// Logs on behalf of a request that a connection could not be opened.
///
/// # Safety
///
/// `c` is open and `request` live.
pub unsafe fn log_refusal(
    c: *mut nginx_sys::ngx_connection_t,
    request: NonNull<ngx_http_request_t>,
    error: &Error,
    peer: &str,
) {
    match error {
        Error::Timeout => log_timeout(Some(request), peer),
        Error::Os(errno) => {
            // SAFETY: by this function's contract; the log is put back.
            unsafe {
                if !Settings::of(request).is_some_and(|s| s.log_errors()) {
                    return;
                }
                let log = (*c).log;
                (*c).log = (*(*request.as_ptr()).connection).log;
                ngx_connection_error(c, *errno, c"connect() failed".as_ptr().cast_mut().cast());
                (*c).log = log;
            }
        }
        _ => {}
    }
}

/// Logs on behalf of a request that it waited too long for a connection.
pub fn log_timeout(request: Option<NonNull<ngx_http_request_t>>, peer: &str) {
    log_socket_error(
        request,
        format_args!("lua tcp socket connect timed out, when connecting to {peer}"),
    );
}
