//! A call of Lua that waits: for which operation, or with which result.

use crate::nginx::{self, Msec, Request};
use crate::ngx_lua::{Semaphore, Wait, Waiter};
use crate::transport::ids::{OpKey, SessionKey};
use crate::transport::state::outcome::{Outcome, Slot};
use crate::upstream::{Deadlines, Ticket};

/// A method that a coroutine has called, and whose result it waits for or is about to fetch.
pub struct Call {
    semaphore: Semaphore,
    caller: Caller,
    progress: Progress,
    /// When it times out.
    pub deadline: Option<Ticket>,
}

/// The coroutine that has called.
enum Caller {
    /// It does not wait yet.
    Running,
    /// It was queued at the semaphore.
    Waiting(Waiter),
    /// It must not go on, and is not queued any more.
    Ended,
}

enum Progress {
    Pending(OpKey),
    Done(Outcome),
}

impl Call {
    pub fn new(semaphore: Semaphore, op: OpKey) -> Call {
        Call {
            semaphore,
            caller: Caller::Running,
            progress: Progress::Pending(op),
            deadline: None,
        }
    }

    /// The operation that it waits for, if that is not over.
    #[inline(always)]
    pub fn pending(&self) -> Option<OpKey> {
        match self.progress {
            Progress::Pending(op) => Some(op),
            Progress::Done(_) => None,
        }
    }

    /// Waits for another operation instead.
    pub fn wait_for(&mut self, op: OpKey) {
        self.progress = Progress::Pending(op);
    }

    /// Whether a connection was made of which its coroutine does not know yet.
    pub fn has_connected(&self) -> bool {
        matches!(
            self.progress,
            Progress::Done(Outcome::Connected | Outcome::Handshaken)
        )
    }

    /// Whether nobody waits any more: the light thread was killed, or the one that the coroutine
    /// runs in, or all threads of the request.
    pub fn is_abandoned(&self) -> bool {
        let Caller::Waiting(waiter) = &self.caller else {
            return matches!(self.caller, Caller::Ended);
        };
        if self.semaphore.is_queued() {
            return !waiter.may_go_on();
        }
        match self.progress {
            Progress::Pending(_) => true,
            Progress::Done(_) => self.semaphore.count() > 0,
        }
    }

    /// It has only begun: its coroutine runs, and will look for the result.
    pub fn is_running(&self) -> bool {
        matches!(self.caller, Caller::Running)
    }

    /// A coroutine waits for the result, or is about to fetch it.
    pub fn has_waiter(&self) -> bool {
        matches!(self.caller, Caller::Waiting(_)) && !self.is_abandoned()
    }

    /// Makes the running coroutine wait.
    ///
    /// # Safety
    ///
    /// As for [`Semaphore::wait`]; the call ends with `request`.
    #[inline(always)]
    pub unsafe fn wait(&mut self, request: Request, waiter: Waiter) -> Wait {
        // SAFETY: by this function's contract.
        let wait = unsafe { self.semaphore.wait(request) };
        if let Wait::Queued = wait {
            self.caller = Caller::Waiting(waiter);
        }
        wait
    }

    /// Limits the time that it waits to so many milliseconds from now on; `waiting` is whose
    /// deadline it is. Returns when it is due.
    #[inline(always)]
    pub fn limit(
        &mut self,
        deadlines: &mut Deadlines<(SessionKey, Slot)>,
        waiting: (SessionKey, Slot),
        timeout: Msec,
    ) -> Msec {
        let now = nginx::now();
        let ticket = deadlines.set(now, timeout, waiting);
        if let Some(old) = self.deadline.replace(ticket) {
            deadlines.cancel(old);
        }
        now.saturating_add(timeout)
    }

    /// Sets the result and wakes the coroutine, if it waits already.
    #[inline(always)]
    pub fn finish(&mut self, outcome: Outcome) {
        if let Progress::Pending(_) = self.progress {
            self.progress = Progress::Done(outcome);
            if let Caller::Waiting(waiter) = &self.caller {
                match waiter.may_go_on() {
                    true => self.semaphore.post(),
                    false => self.leave(),
                }
            }
        }
    }

    /// Nothing of the coroutine stays in a queue or in nginx's timers.
    fn leave(&mut self) {
        if let Caller::Waiting(waiter) = std::mem::replace(&mut self.caller, Caller::Ended)
            && self.semaphore.is_queued()
        {
            waiter.stop_waiting();
        }
    }

    /// Ends it: nobody waits any more.
    pub fn into_semaphore(mut self) -> Semaphore {
        self.leave();
        self.semaphore
    }

    /// Ends it for whoever was woken to fetch the result, or has not waited. `None`: there is no
    /// result.
    #[inline(always)]
    pub fn into_outcome(self) -> (Option<Outcome>, Semaphore) {
        let outcome = match self.progress {
            Progress::Done(outcome) => Some(outcome),
            Progress::Pending(_) => None,
        };
        (outcome, self.semaphore)
    }

    /// Whether it has its result, and the coroutine that was woken may go on.
    #[inline(always)]
    pub fn has_result(&self) -> bool {
        matches!(self.progress, Progress::Done(_))
            && match &self.caller {
                Caller::Waiting(waiter) => waiter.may_go_on(),
                Caller::Running => true,
                Caller::Ended => false,
            }
    }
}
