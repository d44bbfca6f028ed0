//! Lines in error.log that say what cosockets say, in their words.

use nginx_sys::NGX_LOG_ERR;

use crate::nginx::Request;
use crate::ngx_lua::Settings;
use crate::transport::connection::NgxConnection;
use crate::transport::error::Error;

/// Logs what cosockets log, unless `lua_socket_log_errors` is off.
pub fn log_socket_error(request: Option<Request>, text: std::fmt::Arguments<'_>) {
    let Some(request) = request else { return };
    if logs_errors(request) {
        request.log().write(NGX_LOG_ERR, 0, text);
    }
}

/// Logs the use of a closed connection, in the words of cosockets, which log
/// alerts look for.
pub fn not_connected(request: Request, action: &str, error: Error) -> Error {
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
pub fn logs_errors(request: Request) -> bool {
    Settings::of(request).is_some_and(|settings| settings.log_errors())
}

/// Logs on behalf of a request that a connection could not be opened.
pub fn log_refusal(connection: &mut NgxConnection, request: Request, error: &Error, peer: &str) {
    match error {
        Error::Timeout => log_timeout(Some(request), peer),
        Error::Os(errno) if logs_errors(request) => {
            connection.log_error_to(request.log(), *errno, c"connect() failed");
        }
        _ => {}
    }
}

/// Logs on behalf of a request that it waited too long for a connection.
pub fn log_timeout(request: Option<Request>, peer: &str) {
    log_socket_error(
        request,
        format_args!("lua tcp socket connect timed out, when connecting to {peer}"),
    );
}
