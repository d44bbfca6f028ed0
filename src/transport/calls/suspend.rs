//! A coroutine waits, and fetches what it has waited for.

use crate::fault;
use crate::nginx::Request;
use crate::ngx_lua::{Wait, Waiter};
use crate::transport::error::{CallError, Error};
use crate::transport::ids::SessionKey;
use crate::transport::peer::Caller;
use crate::transport::state::outcome::{Outcome, Slot};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

impl Worker {
    /// Makes the caller wait for its call in `slot`. It has to yield then.
    #[inline(always)]
    pub fn suspend<E>(
        &mut self,
        key: SessionKey,
        slot: Slot,
        caller: Caller,
    ) -> Result<(), CallError<E>> {
        self.queue_caller(key, slot, caller)?;
        self.limit_call(key, slot);
        Ok(())
    }

    /// As [`Self::suspend`], for a call whose time is limited already.
    #[inline(always)]
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
        // SAFETY: the caller is the one whose Lua code runs.
        unsafe { self.wait(key, slot, caller.request, waiter) }.map_err(CallError::Refused)
    }

    /// Makes the running coroutine, which is `waiter`, wait for its call in `slot`.
    ///
    /// # Errors
    ///
    /// ngx_lua's text if waiting is not possible here; the connection is closed then, since nobody
    /// will take its reply.
    ///
    /// # Safety
    ///
    /// `request` is the one whose Lua code runs right now.
    #[inline(always)]
    pub unsafe fn wait(
        &mut self,
        key: SessionKey,
        slot: Slot,
        request: Request,
        waiter: Waiter,
    ) -> Result<(), String> {
        // once the coroutine is queued, nothing may keep it from yielding
        self.watch_waiters();
        let session = self.sessions.get_mut(key);
        let Some(call) = session.and_then(|session| session.call_mut(slot)) else {
            return Err(Error::Closed.to_string());
        };
        // SAFETY: by this function's contract. A call that waits is one of a session that is
        // registered with the request.
        match unsafe { call.wait(request, waiter) } {
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
        let outcome = outcome.unwrap_or_else(|| Outcome::Failed(Error::Closed));
        if outcome.is_large() && !self.to_flush.is_empty() {
            // what others have asked for is not to wait for the making of it
            self.on_turn_end();
        }
        outcome
    }
}
