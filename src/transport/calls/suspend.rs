//! A coroutine waits, and fetches what it has waited for.

use crate::fault;
use crate::ngx_lua::Wait;
use crate::transport::error::{CallError, Error};
use crate::transport::ids::SessionKey;
use crate::transport::peer::Caller;
use crate::transport::state::outcome::{Outcome, Slot};
use crate::transport::state::session::State;
use crate::transport::wait::calls::time_limit;
use crate::transport::worker::Worker;

impl Worker {
    /// Makes the caller wait for its call in `slot`, for a limited time. It has to yield then.
    ///
    /// # Errors
    ///
    /// ngx_lua's text if waiting is not possible here; the connection is closed then, since nobody
    /// will take its reply.
    #[inline(always)]
    pub fn suspend<E>(
        &mut self,
        key: SessionKey,
        slot: Slot,
        caller: Caller,
    ) -> Result<(), CallError<E>> {
        let Some(waiter) = caller.waiter else {
            self.abort(key);
            return Err(CallError::CannotWait);
        };
        // once the coroutine is queued, nothing may keep it from yielding
        self.watch_waiters();
        let Some(session) = self.sessions.get_mut(key) else {
            return Err(CallError::Refused(Error::Closed.to_string()));
        };
        let timeout = time_limit(session, slot, &self.ops, &self.connections);
        let Some(call) = session.call_mut(slot) else {
            return Err(CallError::Refused(Error::Closed.to_string()));
        };
        // SAFETY: the caller is the one whose Lua code runs. A call that waits is one of a session
        // that is registered with the request.
        let wait = unsafe { call.wait(caller.request, waiter) };
        if let (Wait::Queued, Some(timeout)) = (&wait, timeout) {
            let due = call.limit(&mut self.deadlines, (key, slot), timeout);
            self.watch_deadline(due);
        }
        self.check_queued(key, wait).map_err(CallError::Refused)
    }

    /// As [`Self::suspend`], for a call whose time is limited already.
    pub fn queue_caller<E>(
        &mut self,
        key: SessionKey,
        slot: Slot,
        caller: Caller,
    ) -> Result<(), CallError<E>> {
        let Some(waiter) = caller.waiter else {
            self.abort(key);
            return Err(CallError::CannotWait);
        };
        self.watch_waiters();
        let session = self.sessions.get_mut(key);
        let Some(call) = session.and_then(|session| session.call_mut(slot)) else {
            return Err(CallError::Refused(Error::Closed.to_string()));
        };
        // SAFETY: as in `suspend`.
        let wait = unsafe { call.wait(caller.request, waiter) };
        self.check_queued(key, wait).map_err(CallError::Refused)
    }

    /// Checks that a coroutine was queued. If it was not, closes the session's connection, and
    /// returns ngx_lua's reason.
    #[inline(always)]
    pub fn check_queued(&mut self, key: SessionKey, wait: Wait) -> Result<(), String> {
        match wait {
            Wait::Queued => Ok(()),
            Wait::Refused(text) => {
                self.disconnect(key, State::Closed);
                Err(text)
            }
            Wait::Done | Wait::Declined => {
                self.disconnect(key, State::Closed);
                Err(Error::Unknown.to_string())
            }
        }
    }

    /// Takes the result of the call that the resumed coroutine has waited for.
    #[inline(always)]
    pub fn take_outcome(&mut self, key: SessionKey, slot: Slot) -> Outcome {
        fault::point();
        let session = self.sessions.get_mut(key);
        let call = session.and_then(|session| match session.call(slot) {
            Some(call) if call.has_result() => session.take_call(slot),
            _ => None,
        });
        let Some(call) = call else {
            return self.end_coroutine(key, slot);
        };
        let (outcome, semaphore) = call.into_outcome();
        self.semaphores.give(semaphore);
        let outcome = match outcome {
            Some(outcome) => outcome,
            None => Outcome::Failed(Error::Closed),
        };
        if outcome.is_large() && !self.to_flush.is_empty() {
            // to make Lua values of a large result takes long, so the commands of others are sent
            // first
            self.on_turn_end();
        }
        outcome
    }
}
