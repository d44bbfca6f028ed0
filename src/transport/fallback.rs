//! The values that functions return after a caught panic.

use crate::contain::INTERNAL;
use crate::transport::error::{CallError, Error, KeepaliveError, Rejected};
use crate::transport::ids::{PipelineKey, SessionKey};
use crate::transport::state::outcome::Outcome;
use crate::transport::state::write_queue::NotQueued;

/// The value that a function returns after a caught panic, in place of its result.
pub trait Fallback {
    /// An error, or nothing.
    fn fallback() -> Self;
}

impl Fallback for () {
    fn fallback() {}
}

impl Fallback for bool {
    fn fallback() -> bool {
        false
    }
}

impl Fallback for SessionKey {
    fn fallback() -> SessionKey {
        SessionKey::default()
    }
}

impl Fallback for PipelineKey {
    fn fallback() -> PipelineKey {
        PipelineKey::default()
    }
}

impl Fallback for Outcome {
    fn fallback() -> Outcome {
        Outcome::Failed(Error::Internal)
    }
}

impl Fallback for Error {
    fn fallback() -> Error {
        Error::Internal
    }
}

impl Fallback for Rejected {
    fn fallback() -> Rejected {
        Rejected::Failed(Error::Internal)
    }
}

impl Fallback for NotQueued {
    fn fallback() -> NotQueued {
        Error::Internal.into()
    }
}

impl Fallback for KeepaliveError {
    fn fallback() -> KeepaliveError {
        Error::Internal.into()
    }
}

impl<E: Fallback> Fallback for CallError<E> {
    fn fallback() -> CallError<E> {
        CallError::Failed(E::fallback())
    }
}

impl Fallback for String {
    fn fallback() -> String {
        INTERNAL.into()
    }
}

impl<T> Fallback for *mut T {
    fn fallback() -> *mut T {
        std::ptr::null_mut()
    }
}

impl<T> Fallback for Option<T> {
    fn fallback() -> Option<T> {
        None
    }
}

impl<A: Fallback, B: Fallback> Fallback for (A, B) {
    fn fallback() -> (A, B) {
        (A::fallback(), B::fallback())
    }
}

impl<T, E: Fallback> Fallback for Result<T, E> {
    fn fallback() -> Self {
        Err(E::fallback())
    }
}
