//! Lines in error.log that say what cosockets say, in their words. Each ends with the server's
//! address, behind what nginx adds about the request. Of many that are alike a few are written, and
//! the others counted.

use std::ffi::CStr;
use std::fmt;

use nginx_sys::{NGX_LOG_ERR, ngx_err_t};

use crate::nginx::{self, Request};
use crate::ngx_lua::Settings;
use crate::transport::connection::NgxConnection;
use crate::transport::error::Error;
use crate::upstream::LineKind;

const CONNECT_FAILED: &CStr = c"connect() failed";

/// The kind of line that a connection could not be opened.
pub fn connect_failed(peer: &str) -> LineKind<'_> {
    LineKind {
        words: "connect() failed",
        about: peer,
        level: NGX_LOG_ERR,
    }
}

/// Logs what cosockets log, unless `lua_socket_log_errors` is off: `words`, which are the same each
/// time, then `details`.
pub fn log_socket_error(
    request: Option<Request>,
    peer: &str,
    words: &'static str,
    details: fmt::Arguments<'_>,
) {
    let Some(request) = request else { return };
    let kind = LineKind {
        words,
        about: peer,
        level: NGX_LOG_ERR,
    };
    if !logs_errors(request) || !nginx::admit(kind) {
        return;
    }
    nginx::with_peer(request.log(), peer, |log| {
        log.write(NGX_LOG_ERR, 0, format_args!("{words}{details}"));
    });
}

/// Logs the use of a closed connection, in the words of cosockets, which log alerts look for.
pub fn not_connected(request: Request, action: &str, error: Error) -> Error {
    if error == Error::Closed && logs_errors(request) {
        request.log().write(
            NGX_LOG_ERR,
            0,
            format_args!(
                "attempt to {action} data on a closed socket: u:{0:016X}, c:{0:016X}, ft:0 eof:0 \
                 (not connected: connect was not called, or set_keepalive, close or an error \
                 has ended the connection)",
                0
            ),
        );
    }
    error
}

/// Whether the running request's location logs errors of sockets.
pub fn logs_errors(request: Request) -> bool {
    Settings::of(request).is_some_and(|settings| settings.log_errors())
}

/// Logs on behalf of a request that a connection could not be opened.
pub fn log_refusal(connection: &mut NgxConnection, request: Request, error: &Error, to: &str) {
    match error {
        Error::Timeout => log_timeout(Some(request), connection.peer(), to),
        Error::Os(errno)
            if logs_errors(request) && nginx::admit(connect_failed(connection.peer())) =>
        {
            connection.log_error_to(request.log(), *errno, CONNECT_FAILED);
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
pub fn log_timeout(request: Option<Request>, peer: &str, to: &str) {
    log_socket_error(
        request,
        peer,
        "lua tcp socket connect timed out",
        format_args!(", when connecting to {to}"),
    );
}
