//! The worker's state after a panic, and what is returned then.

use super::error::Error;
use super::keepalive::KeepaliveError;
use super::op::{Op, Outcome, Slot};
use super::session::{Session, State};
use super::submit::Rejected;
use super::worker::{SessionKey, Worker};
use crate::contain::{INTERNAL, contain};
use crate::protocol::Buffers;

/// What a function returns in the place of a result that a panic has kept it from.
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

impl Fallback for KeepaliveError {
    fn fallback() -> KeepaliveError {
        Error::Internal.into()
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

impl<E: Fallback> Fallback for Result<(), E> {
    fn fallback() -> Self {
        Err(E::fallback())
    }
}

impl<E: Fallback> Fallback for Result<u64, E> {
    fn fallback() -> Self {
        Err(E::fallback())
    }
}

impl<T, E: Fallback, D> Fallback for Result<Result<T, E>, D> {
    fn fallback() -> Self {
        Ok(Err(E::fallback()))
    }
}

impl Worker {
    /// The result of `f` or, if it panics, something in its place. Then all
    /// that was under way fails, since nobody knows how far `f` has got.
    #[inline(always)]
    pub(super) fn contained<R: Fallback>(&mut self, f: impl FnOnce(&mut Worker) -> R) -> R {
        match contain(|| f(self)) {
            Some(result) => result,
            None => self.start_over(),
        }
    }

    #[cold]
    #[inline(never)]
    fn start_over<R: Fallback>(&mut self) -> R {
        if contain(|| self.drop_all()).is_none() {
            // it is of no use any more; nginx starts another
            std::process::abort();
        }
        R::fallback()
    }

    /// Closes every connection and fails every operation. Ids stay what they
    /// are: those of sessions find closed ones, all others nothing.
    fn drop_all(&mut self) {
        self.links.clear();
        self.pools.clear();
        self.pool_names.clear();
        self.last_pool = None;
        self.trunks.clear();
        self.trunk_names.clear();
        self.last_trunk = Default::default();
        self.deadlines = Default::default();
        self.deadline = None;
        self.deadline_armed = None;
        self.dirty.clear();
        self.turn_end = None;
        self.errands = Default::default();
        self.buffers = Buffers::default();
        for session in self.sessions.iter_mut() {
            session.state = State::Closed;
            session.deadline = None;
            session.waits = None;
            session.serial += 1;
            let ended = session.request().is_none();
            for slot in [Slot::Reader, Slot::Writer] {
                match session.op(slot) {
                    Some(op) if !ended && op.has_waiter() => op.fail(Error::Internal, false),
                    _ => {
                        let op = Session::take_op(session, slot);
                        if let Some(semaphore) = op.map(Op::into_semaphore) {
                            self.semaphores.give(semaphore);
                        }
                    }
                }
            }
        }
    }
}
