//! `sock:sslhandshake`. Sessions, certificates and keys of ngx_lua are FFI
//! pointers; the glue passes them as addresses.

use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use mlua::ffi::{lua_State, lua_toboolean, lua_tonumber};
use nginx_sys::SSL_SESSION;

use super::handle;
use super::results::{Shape, Unable, begin, go_on};
use super::stack::Stack;
use crate::transport::{self, Begun, Certificate, Denied, Error, Handshake, Outcome, SessionKey};

/// Instead of the address of a session: the one that was passed.
const SAME_SESSION: f64 = 1.0;

/// `sslhandshake(sock, session, server_name, verify, status, cert, key, host, port)`
pub unsafe extern "C-unwind" fn sslhandshake(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this.
    let stack = unsafe { Stack::new(state) };
    let request = stack.request();
    let Some(key) = handle::session(stack, 1) else {
        stack.raise(format_args!("socket is never created nor connected"))
    };
    // SAFETY: a running C function's state.
    let flag = |index| unsafe { lua_toboolean(state, index) } != 0;
    let session = address::<SSL_SESSION>(stack, 2);
    // SAFETY: a running C function's state.
    let port = unsafe { lua_tonumber(state, 9) };
    let handshake = Handshake {
        session: transport::with(|worker| worker.known_tls_session(session)),
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
    transport::room::before(|worker| worker.opens_for_handshake(key));
    let next = begin(
        Shape::HANDSHAKE,
        key,
        request,
        stack.waiter(request),
        |worker| worker.handshake(key, request, handshake),
    );
    match next {
        // cosockets return this one here, and raise it elsewhere
        Err(Unable::Denied(Denied::BadRequest)) => stack.failure(1, Denied::BadRequest),
        Ok(Ok(Begun::Ready(Outcome::Connected))) if resumed => {
            stack.push_number(SAME_SESSION);
            1
        }
        Ok(Ok(Begun::Ready(Outcome::Connected))) => {
            let next = Ok(Ok::<_, Error>(Begun::Ready(Outcome::Handshaken)));
            go_on(stack, Shape::HANDSHAKE, key, next)
        }
        next => go_on(stack, Shape::HANDSHAKE, key, next),
    }
}

/// The address of a connection's TLS session, for the glue to free.
pub fn lend_session(key: SessionKey) -> f64 {
    transport::with(|worker| worker.lend_tls_session(key)).addr() as f64
}

/// `free_session(address)`
pub unsafe extern "C-unwind" fn free_session(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this.
    let stack = unsafe { Stack::new(state) };
    let session = address::<SSL_SESSION>(stack, 1);
    transport::with_existing(|worker| worker.take_back_tls_session(session));
    0
}

/// The client certificate, if `setclientcert` was given one.
fn certificate(stack: Stack) -> Option<Rc<Certificate>> {
    let chain = NonNull::new(address::<c_void>(stack, 6))?;
    let key = NonNull::new(address::<c_void>(stack, 7))?;
    // SAFETY: the glue holds what ngx.ssl has parsed, which Lua has vouched for.
    unsafe { Certificate::hold(chain, key) }.map(Rc::new)
}

/// An address that the glue has taken from an FFI pointer, or null.
fn address<T>(stack: Stack, index: c_int) -> *mut T {
    // SAFETY: a running C function's state.
    let address = unsafe { lua_tonumber(stack.state(), index) };
    ptr::with_exposed_provenance_mut(address as usize)
}
