//! In the place of `tls`, for an nginx that was built without TLS.

use std::ffi::c_int;

use super::handle;
use super::results::{self, Returns};
use super::stack::Stack;
use super::suspend::{caller, go_on};
use crate::transport::{self, Handshake};

/// As in `tls`; never returned.
pub const SAME_SESSION: f64 = 1.0;

/// `sslhandshake(sock, …)`: always refused
pub fn sslhandshake<const BEGIN: bool>(stack: Stack) -> c_int {
    let request = stack.request();
    let Some(key) = handle::session(stack, 1) else {
        stack.raise(format_args!("socket is never created nor connected"))
    };
    match caller(stack, request) {
        Ok(caller) => go_on(
            stack,
            Returns::HANDSHAKE,
            transport::handshake(key, caller, Handshake),
        ),
        Err(why) => stack.cannot_wait(1, why),
    }
}

/// `wait_handshake(id)`: there is nothing to wait for
pub fn wait_handshake(stack: Stack) -> c_int {
    stack.failure(1, transport::Error::Closed)
}

/// `finish_handshake(sock, sock, sslhandshake(sock, …))`
pub fn finish_handshake(stack: Stack) -> c_int {
    results::finish::<{ Returns::HANDSHAKE }>(stack)
}

/// `free_session(address)`: there are none
pub fn free_session(_: Stack) -> c_int {
    0
}
