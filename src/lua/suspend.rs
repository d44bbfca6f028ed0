//! Operations that may have to wait: how a method begins one, suspends its coroutine for it, or
//! says that it cannot.

use std::ffi::c_int;
use std::fmt;

use super::explain;
use super::results::{AGAIN, Returns, is_told, push};
use super::stack::{CannotWait, Stack};
use crate::nginx::Request;
use crate::protocol::{Answer, Command, Refused};
use crate::transport::{self, Begun, CallError, Caller, Error, Rejected, SessionKey};

/// Who calls a method that may have to wait. Under a C function that cannot be suspended an
/// operation that needs no waiting works, as it does with cosockets; elsewhere one that could not
/// wait is not begun.
pub fn caller(stack: Stack, request: Request) -> Result<Caller, CannotWait> {
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
pub fn go_on<E: Raised>(stack: Stack, returns: u8, next: Result<Begun, CallError<E>>) -> c_int {
    match next {
        Ok(Begun::Waiting) => stack.suspend(),
        Ok(Begun::Ready(outcome)) => push(stack, returns, outcome, None),
        Err(error) => give_up(stack, returns, error),
    }
}

/// Ends a method that gives no result.
pub fn give_up<E: Raised>(stack: Stack, returns: u8, error: CallError<E>) -> c_int {
    match error {
        CallError::Failed(error) if !error.is_raised() => {
            error.explain(stack);
            stack.failure(Returns::nils(returns), error)
        }
        CallError::CannotWait => stack.cannot_wait(Returns::nils(returns), CannotWait::CCall),
        error => {
            if let CallError::Failed(_) = error {
                explain::bad_request(stack);
            }
            stack.raise(format_args!("{error}"))
        }
    }
}

/// An error of which some kinds are raised in Lua, and others returned.
pub trait Raised: fmt::Display {
    fn is_raised(&self) -> bool;
    /// Logs what the operator can do, if that is known.
    fn explain(&self, stack: Stack);
}

impl Raised for Error {
    fn is_raised(&self) -> bool {
        *self == Error::BadRequest
    }

    fn explain(&self, stack: Stack) {
        explain::overload(stack, self);
    }
}

impl Raised for Rejected {
    fn is_raised(&self) -> bool {
        matches!(self, Rejected::Failed(Error::BadRequest))
    }

    fn explain(&self, stack: Stack) {
        if let Rejected::Failed(error) = self {
            explain::overload(stack, error);
        }
    }
}

/// Ends a command whose coroutine cannot wait for the reply. Nothing is sent.
pub fn cannot_wait(
    stack: Stack,
    returns: u8,
    key: SessionKey,
    request: Request,
    why: CannotWait,
) -> c_int {
    match transport::check_ready(key, request) {
        Ok(()) => stack.cannot_wait(Returns::nils(returns), why),
        Err(error) => give_up(stack, returns, CallError::Failed(error)),
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
pub fn ask(stack: Stack, returns: u8, key: SessionKey, question: &Command<'_>) -> c_int {
    let request = stack.request();
    let caller = match stack.waiter(request) {
        Ok(waiter) => Caller {
            request,
            waiter: Some(waiter),
        },
        Err(why) => return cannot_wait(stack, returns, key, request, why),
    };
    match transport::submit_question(key, caller, question) {
        Ok(Begun::Ready(outcome)) if is_told(&outcome) => {
            stack.push_integer(AGAIN);
            1
        }
        asked => go_on(stack, returns, asked),
    }
}
