//! `sock:sslhandshake`. Sessions, certificates and keys of ngx_lua are FFI pointers; the glue
//! passes them as addresses.

use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use mlua::ffi::LUA_TBOOLEAN;
use nginx_sys::SSL_SESSION;

use super::explain;
use super::handle;
use super::results::{Returns, push};
use super::stack::Stack;
use super::suspend::{caller, go_on};
use crate::transport::{
    self, Begun, CallError, Caller, Certificate, Error, Handshake, Outcome, SessionKey, Slot,
};

/// Returned instead of an address for the session that was passed.
pub const SAME_SESSION: f64 = 1.0;

/// `sslhandshake(sock, session, server_name, verify, status, cert, key, host, port)`. `BEGIN`: true
/// if it is under way, and `wait_handshake` is to be called.
pub fn sslhandshake<const BEGIN: bool>(stack: Stack) -> c_int {
    let request = stack.request();
    let Some(key) = handle::session(stack, 1) else {
        stack.raise(format_args!("socket is never created nor connected"))
    };
    let flag = |index| stack.boolean(index);
    let session = pointer_argument::<SSL_SESSION>(stack, 2);
    let port = stack.number(9);
    let handshake = Handshake {
        session: transport::known_tls_session(session),
        server_name: stack
            .optional_text(3, "server name")
            .map(|name| stack.owned(name)),
        verify: flag(4),
        status_request: flag(5),
        host: stack.owned(stack.text(8).unwrap_or_default()),
        port: port as u16,
        certificate: certificate(stack),
    };
    let resumed = handshake.session.is_some();
    let caller = match caller(stack, request) {
        Ok(caller) => caller,
        Err(why) => return stack.cannot_wait(1, why),
    };
    match begin::<BEGIN>(key, caller, handshake) {
        Ok(Begun::Waiting) if BEGIN => {
            stack.push_boolean(true);
            1
        }
        // cosockets return this one here, and raise it elsewhere
        Err(CallError::Failed(Error::BadRequest)) => {
            explain::bad_request(stack);
            stack.failure(1, Error::BadRequest)
        }
        Ok(Begun::Ready(Outcome::Connected)) if resumed => {
            stack.push_number(SAME_SESSION);
            1
        }
        Ok(Begun::Ready(Outcome::Connected)) => push_session(stack, key),
        Ok(Begun::Ready(outcome)) => push_outcome(stack, key, outcome),
        next => go_on(stack, Returns::HANDSHAKE, next),
    }
}

fn begin<const BEGIN: bool>(
    key: SessionKey,
    caller: Caller,
    handshake: Handshake,
) -> Result<Begun, CallError<Error>> {
    if BEGIN && caller.waiter.is_some() {
        return transport::begin_handshake(key, caller.request, handshake);
    }
    transport::handshake(key, caller, handshake)
}

/// `wait_handshake(id)`, for [`finish_handshake`]
pub fn wait_handshake(stack: Stack) -> c_int {
    let request = stack.request();
    let Some(key) = handle::id_argument(stack, 1) else {
        return stack.failure(1, Error::Closed);
    };
    let caller = match caller(stack, request) {
        Ok(caller) => caller,
        Err(why) => return stack.cannot_wait(1, why),
    };
    match transport::wait(key, Slot::Reader, caller) {
        Ok(Begun::Ready(outcome)) => push_outcome(stack, key, outcome),
        next => go_on(stack, Returns::HANDSHAKE, next),
    }
}

/// `finish_handshake(sock, sock, sslhandshake(sock, …))`, see [`super::results::finish`]
pub fn finish_handshake(stack: Stack) -> c_int {
    if stack.kind(3) != LUA_TBOOLEAN {
        return stack.top() - 2;
    }
    let Some(key) = handle::session_argument(stack, 2) else {
        return stack.failure(1, Error::Closed);
    };
    let outcome = transport::take_outcome(key, Slot::Reader);
    stack.release_anchors();
    push_outcome(stack, key, outcome)
}

fn push_outcome(stack: Stack, key: SessionKey, outcome: Outcome) -> c_int {
    match outcome {
        Outcome::Handshaken => push_session(stack, key),
        outcome => push(stack, Returns::HANDSHAKE, outcome, None),
    }
}

/// Pushes the address of a connection's TLS session, for the glue to free.
fn push_session(stack: Stack, key: SessionKey) -> c_int {
    let session = transport::lend_tls_session(key);
    stack.push_number(session.addr() as f64);
    1
}

/// `free_session(address)`
pub fn free_session(stack: Stack) -> c_int {
    let session = pointer_argument::<SSL_SESSION>(stack, 1);
    transport::take_back_tls_session(session);
    0
}

/// The client certificate, if `setclientcert` was given one.
fn certificate(stack: Stack) -> Option<Rc<Certificate>> {
    let chain = NonNull::new(pointer_argument::<c_void>(stack, 6))?;
    let key = NonNull::new(pointer_argument::<c_void>(stack, 7))?;
    // SAFETY: the glue holds what ngx.ssl has parsed, which Lua has vouched for.
    unsafe { Certificate::hold(chain, key) }.map(Rc::new)
}

/// The FFI pointer that the glue passed as an address, or null.
fn pointer_argument<T>(stack: Stack, index: c_int) -> *mut T {
    let address = stack.number(index);
    ptr::with_exposed_provenance_mut(address as usize)
}
