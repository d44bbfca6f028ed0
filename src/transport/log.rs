//! Lines in error.log that say what cosockets say, in their words.

use std::ptr::NonNull;

use nginx_sys::{NGX_LOG_ERR, ngx_http_request_t};

use crate::nginx;
use crate::ngx_lua::Settings;
use crate::transport::connection::NgxConnection;
use crate::transport::error::Error;

/// Logs what cosockets log, unless `lua_socket_log_errors` is off.
pub fn log_socket_error(
    request: Option<NonNull<ngx_http_request_t>>,
    text: std::fmt::Arguments<'_>,
) {
    let Some(request) = request else { return };
    if logs_errors(request) {
        // SAFETY: a session's request is live, and with it its log.
        unsafe { nginx::log(NGX_LOG_ERR, (*(*request.as_ptr()).connection).log, 0, text) };
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

/// Whether the running request's location logs errors of sockets.
pub fn logs_errors(request: NonNull<ngx_http_request_t>) -> bool {
    // SAFETY: a session's request is live.
    unsafe { Settings::of(request) }.is_some_and(|settings| settings.log_errors())
}

/// Logs on behalf of a request that a connection could not be opened.
pub fn log_refusal(
    connection: &mut NgxConnection,
    request: NonNull<ngx_http_request_t>,
    error: &Error,
    peer: &str,
) {
    match error {
        Error::Timeout => log_timeout(Some(request), peer),
        Error::Os(errno) if logs_errors(request) => {
            // SAFETY: a session's request is live, and with it its log.
            unsafe {
                let log = (*(*request.as_ptr()).connection).log;
                connection.log_error_to(log, *errno, c"connect() failed");
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
