//! Operations that may have to wait: how a method begins one, suspends its coroutine for it, or
//! says that it cannot.

use std::ffi::c_int;
use std::fmt;
use std::ptr::NonNull;

use mlua::ffi::lua_yield;
use nginx_sys::{NGX_LOG_INFO, ngx_http_request_t};

use super::results::{AGAIN, Shape, is_told, push};
use super::stack::{CannotWait, Stack};
use crate::nginx;
use crate::protocol::{Answer, Command, Refused};
use crate::transport::{self, Begun, CallError, Caller, Error, Rejected, SessionKey};

/// Who calls a method that may have to wait. Under a C function that cannot be
/// suspended an operation that needs no waiting works, as it does with
/// cosockets; elsewhere one that could not wait is not begun.
pub fn caller(stack: Stack, request: NonNull<ngx_http_request_t>) -> Result<Caller, CannotWait> {
    match stack.waiter(request) {
        Ok(waiter) => Ok(Caller {
            request,
            waiter: Some(waiter),
        }),
        Err(CannotWait::CCall) => Ok(Caller {
            request,
            waiter: None,
        }),
        Err(why) => Err(why),
    }
}

/// Ends a `start`: with its results, or by suspending the coroutine.
pub fn go_on<E: Raised>(stack: Stack, shape: u8, next: Result<Begun, CallError<E>>) -> c_int {
    match next {
        // SAFETY: the coroutine may yield; the call made sure.
        Ok(Begun::Waiting) => unsafe { lua_yield(stack.state(), 0) },
        Ok(Begun::Ready(outcome)) => push(stack, shape, outcome, None),
        Err(error) => give_up(stack, shape, error),
    }
}

/// Ends a method that gives no result.
pub fn give_up<E: Raised>(stack: Stack, shape: u8, error: CallError<E>) -> c_int {
    match error {
        CallError::Failed(error) if !error.is_raised() => stack.failure(Shape::nils(shape), error),
        CallError::CannotWait => stack.cannot_wait(Shape::nils(shape), CannotWait::CCall),
        error => stack.raise(format_args!("{error}")),
    }
}

/// An error of which some kinds are raised in Lua, and others returned.
pub trait Raised: fmt::Display {
    fn is_raised(&self) -> bool;
}

impl Raised for Error {
    fn is_raised(&self) -> bool {
        *self == Error::BadRequest
    }
}

impl Raised for Rejected {
    fn is_raised(&self) -> bool {
        matches!(self, Rejected::Failed(Error::BadRequest))
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
    match transport::check_ready(key, request) {
        Ok(()) => stack.cannot_wait(Shape::nils(shape), why),
        Err(error) => give_up(stack, shape, CallError::Failed(error)),
    }
}

/// What the server is to be asked before a command can be sent.
pub fn question(refused: &Refused) -> Option<Command<'static>> {
    match refused.answer {
        Answer::VersionUnknown => Some(Command::Version),
        Answer::MetaUnknown => Some(Command::MetaNoop),
        _ => None,
    }
}

/// Asks the server what it can do, and has the command started [`AGAIN`].
#[cold]
pub fn ask(stack: Stack, shape: u8, key: SessionKey, question: &Command<'_>) -> c_int {
    let request = stack.request();
    let caller = match stack.waiter(request) {
        Ok(waiter) => Caller {
            request,
            waiter: Some(waiter),
        },
        Err(why) => return cannot_wait(stack, shape, key, request, why),
    };
    match transport::submit_question(key, caller, question) {
        Ok(Begun::Ready(outcome)) if is_told(&outcome) => {
            stack.push_integer(AGAIN);
            1
        }
        asked => go_on(stack, shape, asked),
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
