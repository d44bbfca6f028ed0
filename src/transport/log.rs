//! Lines in error.log that say what cosockets say, in their words. Each ends with the server's
//! address, behind what nginx adds about the request. Of many that are alike a few are written,
//! and the others counted.

use std::ffi::CStr;
use std::fmt;
use std::ptr::NonNull;

use nginx_sys::{NGX_LOG_ERR, ngx_err_t, ngx_http_request_t};

use crate::nginx;
use crate::ngx_lua::Settings;
use crate::transport::connection::NgxConnection;
use crate::transport::error::Error;
use crate::upstream::Kind;

const CONNECT_FAILED: &CStr = c"connect() failed";

/// The kind of line that a connection could not be opened.
pub fn connect_failed(peer: &str) -> Kind<'_> {
    Kind {
        words: "connect() failed",
        about: peer,
        level: NGX_LOG_ERR,
    }
}

/// Logs what cosockets log, unless `lua_socket_log_errors` is off: `words`,
/// which are the same each time, then `details`.
pub fn log_socket_error(
    request: Option<NonNull<ngx_http_request_t>>,
    peer: &str,
    words: &'static str,
    details: fmt::Arguments<'_>,
) {
    let Some(request) = request else { return };
    let kind = Kind {
        words,
        about: peer,
        level: NGX_LOG_ERR,
    };
    if !logs_errors(request) || !nginx::admit(kind) {
        return;
    }
    // SAFETY: a session's request is live, and with it its log.
    let log = unsafe { (*(*request.as_ptr()).connection).log };
    nginx::with_peer(log, peer, |log| {
        // SAFETY: a log made of the request's.
        unsafe { nginx::log(NGX_LOG_ERR, log, 0, format_args!("{words}{details}")) };
    });
}

/// Logs the use of a closed connection, in the words of cosockets, which log
/// alerts look for.
pub fn not_connected(request: NonNull<ngx_http_request_t>, action: &str, error: Error) -> Error {
    if error == Error::Closed && logs_errors(request) {
        // SAFETY: the request that calls is live, and with it its log.
        unsafe {
            nginx::log(
                NGX_LOG_ERR,
                (*(*request.as_ptr()).connection).log,
                0,
                format_args!(
                    "attempt to {action} data on a closed socket: u:{0:016X}, c:{0:016X}, ft:0 eof:0 \
                     (not connected: connect was not called, or set_keepalive, close or an error \
                     has ended the connection)",
                    0
                ),
            );
        }
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
        Error::Timeout => log_timeout(Some(request), connection.peer(), peer),
        Error::Os(errno)
            if logs_errors(request) && nginx::admit(connect_failed(connection.peer())) =>
        {
            // SAFETY: a session's request is live, and with it its log.
            unsafe {
                let log = (*(*request.as_ptr()).connection).log;
                connection.log_error_to(log, *errno, CONNECT_FAILED);
            }
        }
        _ => {}
    }
}

/// Logs to a connection's own log that it could not be opened.
pub fn log_connect_error(connection: &NgxConnection, errno: ngx_err_t) {
    if nginx::admit(connect_failed(connection.peer())) {
        connection.log_error(errno, CONNECT_FAILED);
    }
}

/// Logs on behalf of a request that it waited too long for a connection to `to`.
pub fn log_timeout(request: Option<NonNull<ngx_http_request_t>>, peer: &str, to: &str) {
    log_socket_error(
        request,
        peer,
        "lua tcp socket connect timed out",
        format_args!(", when connecting to {to}"),
    );
}
