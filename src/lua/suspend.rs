//! Operations that may have to wait: how a method begins one, suspends its coroutine for it, or
//! says that it cannot.

use std::ffi::c_int;
use std::fmt;
use std::ptr::NonNull;

use mlua::ffi::lua_yield;
use nginx_sys::{NGX_LOG_INFO, ngx_http_request_t};

use super::results::{Shape, push};
use super::stack::{CannotWait, Stack};
use crate::nginx;
use crate::ngx_lua::Waiter;
use crate::protocol::Refused;
use crate::transport::{self, Begun, Denied, SessionKey, Worker};

/// What [`begin`] returns, and [`go_on`] takes.
pub type Next<E> = Result<Result<Begun, E>, Unable>;

/// Why a method cannot be begun.
pub enum Unable {
    Denied(Denied),
    CannotWait(CannotWait),
    /// ngx_lua refuses, with this text.
    Refused(String),
}

/// Begins an operation of a session, and registers the coroutine to be woken if
/// it has to wait. `waiter` says whether it can. Within a C function that
/// cannot be suspended, operations that need not wait work, as with cosockets.
pub fn begin<E: transport::Fallback>(
    shape: u8,
    key: SessionKey,
    request: NonNull<ngx_http_request_t>,
    waiter: Result<Waiter, CannotWait>,
    begin: impl FnOnce(&mut Worker) -> Result<Result<Begun, E>, Denied>,
) -> Next<E> {
    if let Err(why @ (CannotWait::Unknown | CannotWait::NoMemory)) = waiter {
        return Err(Unable::CannotWait(why));
    }
    transport::with(|worker| {
        let begun = begin(worker);
        wait_for(worker, shape, key, request, waiter, begun)
    })
}

#[inline(always)]
fn wait_for<E>(
    worker: &mut Worker,
    shape: u8,
    key: SessionKey,
    request: NonNull<ngx_http_request_t>,
    waiter: Result<Waiter, CannotWait>,
    begun: Result<Result<Begun, E>, Denied>,
) -> Next<E> {
    if let Ok(Ok(Begun::Waiting)) = &begun {
        wait(worker, shape, key, request, waiter)?;
    }
    begun.map_err(Unable::Denied)
}

/// Registers the coroutine to be woken by the session's operation. The caller
/// has to yield afterwards.
#[inline(always)]
pub fn wait(
    worker: &mut Worker,
    shape: u8,
    key: SessionKey,
    request: NonNull<ngx_http_request_t>,
    waiter: Result<Waiter, CannotWait>,
) -> Result<(), Unable> {
    let waiter = waiter.map_err(|why| {
        worker.abort(key);
        Unable::CannotWait(why)
    })?;
    // SAFETY: the request is the one whose Lua code runs.
    let waiting = unsafe { worker.wait(key, Shape::slot(shape), request, waiter) };
    waiting.map_err(Unable::Refused)
}

/// Ends a `start`: with its results, or by suspending the coroutine.
pub fn go_on<E: fmt::Display>(stack: Stack, shape: u8, next: Next<E>) -> c_int {
    match next {
        // SAFETY: the coroutine may yield; `begin` made sure.
        Ok(Ok(Begun::Waiting)) => unsafe { lua_yield(stack.state(), 0) },
        Ok(Ok(Begun::Ready(outcome))) => push(stack, shape, outcome, None),
        Ok(Err(error)) => stack.failure(Shape::nils(shape), error),
        Err(unable) => give_up(stack, shape, unable),
    }
}

/// Ends a method that cannot be begun.
pub fn give_up(stack: Stack, shape: u8, unable: Unable) -> c_int {
    match unable {
        Unable::Denied(denied) => stack.raise(format_args!("{denied}")),
        Unable::CannotWait(why) => stack.cannot_wait(Shape::nils(shape), why),
        Unable::Refused(text) => stack.raise(format_args!("{text}")),
    }
}

/// Ends a command whose coroutine cannot wait for the reply. Nothing is sent.
pub fn cannot_wait(
    stack: Stack,
    shape: u8,
    key: SessionKey,
    request: NonNull<ngx_http_request_t>,
    why: CannotWait,
) -> c_int {
    match transport::with(|worker| worker.check_ready(key, request)) {
        Ok(Err(error)) => stack.failure(Shape::nils(shape), error),
        Err(denied) => stack.raise(format_args!("{denied}")),
        Ok(Ok(())) => stack.cannot_wait(Shape::nils(shape), why),
    }
}

/// Logs which command was not sent, and why.
pub fn log_refused(stack: Stack, refused: &Refused) {
    let request = stack.request();
    // SAFETY: the running request has a connection with a log.
    unsafe {
        nginx::log(
            NGX_LOG_INFO,
            (*(*request.as_ptr()).connection).log,
            0,
            format_args!("lua memcached command refused: {}", refused.why),
        );
    }
}
