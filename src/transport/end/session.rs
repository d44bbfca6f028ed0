//! The end of a session's use of what it has.

use crate::fault;
use crate::transport::error::Error;
use crate::transport::ids::{OpKey, SessionKey, SharedPoolKey};
use crate::transport::state::op::{Assignment, Op, Stage, Target};
use crate::transport::state::outcome::{Outcome, Slot};
use crate::transport::state::session::{Session, State};
use crate::transport::worker::Worker;

/// What an ended call leaves behind.
pub enum Left {
    Nothing,
    /// An operation that others still wait for.
    Wanted,
    /// The stage that its operation had come to, which is over.
    Place(Stage),
}

impl Worker {
    /// Ends what a session has: its place in a queue, its connection, its pending operations. A
    /// coroutine that waits is told that it is closed, unless its request ends.
    pub fn disconnect(&mut self, key: SessionKey, state: State) {
        self.end_use(key, state, None, false);
    }

    /// As [`Self::disconnect`]. With an `error`, that is the result of the calls that wait, and of
    /// a call that has only begun. `writing` tells that commands were still being sent.
    pub fn end_use(&mut self, key: SessionKey, state: State, error: Option<&Error>, writing: bool) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let (State::Closed, State::Closed, None, None) =
            (&session.state, &state, &session.reader, &session.writer)
        {
            return;
        }
        let was = std::mem::replace(&mut session.state, state);
        fault::point();
        let reader = self.end_call(key, Slot::Reader, error, writing);
        let writer = self.end_call(key, Slot::Writer, error, writing);
        match was {
            State::Private(connection) => self.close_connection(connection),
            State::Shared { shared_pool, .. } => self.leave_shared_pool(shared_pool, key, reader),
            State::Connecting => {
                if let Left::Place(stage) = reader {
                    self.stop_connecting(key, stage);
                }
            }
            State::Deferred { pool, .. } => self.release(pool),
            State::Closed | State::Broken { .. } => {}
        }
        drop(writer);
    }

    /// Ends a call of a session.
    pub fn end_call(
        &mut self,
        key: SessionKey,
        slot: Slot,
        error: Option<&Error>,
        writing: bool,
    ) -> Left {
        let session = self.sessions.get_mut(key);
        let Some(session) = session.filter(|session| session.call(slot).is_some()) else {
            return Left::Nothing;
        };
        let ended = session.cleanup.is_none();
        let Some(call) = session.call_mut(slot) else {
            return Left::Nothing;
        };
        let deadline = call.deadline.take();
        let pending = call.pending();
        if let Some(ticket) = deadline {
            self.deadlines.cancel(ticket);
            self.let_worker_exit();
        }
        let op = pending.and_then(|op| self.leave_op(op));
        let why = || error.cloned().unwrap_or(Error::Closed);
        let left = match (pending, op) {
            (None, _) => (Left::Nothing, None),
            (Some(_), None) => (Left::Wanted, Some(Outcome::Failed(why()))),
            (Some(_), Some(mut op)) => {
                let outcome = op.work.fail(why(), writing);
                (Left::Place(op.stage), Some(outcome))
            }
        };
        let (left, outcome) = left;
        let session = self.sessions.get_mut(key);
        let Some(session) = session else { return left };
        match session.call_mut(slot) {
            Some(call) if !ended && (call.has_waiter() || error.is_some() && call.is_running()) => {
                if let Some(outcome) = outcome {
                    call.finish(outcome);
                }
            }
            _ => {
                if let Some(call) = session.take_call(slot) {
                    self.semaphores.give(call.into_semaphore());
                    self.give_trial_back(key);
                }
            }
        }
        left
    }

    /// A call stops waiting for an operation. If no other call waits for it, ends the operation and
    /// returns it.
    pub fn leave_op(&mut self, key: OpKey) -> Option<Op> {
        let op = self.ops.get_mut(key)?;
        let sessions = &self.sessions;
        let reads = |session: &SessionKey| sessions.get(*session).and_then(Session::reads);
        match op.waiters.leave(|session| reads(session) == Some(key)) {
            true => None,
            false => self.ops.remove(key),
        }
    }

    /// Cleans up after a connect operation that ended at `stage`.
    pub fn stop_connecting(&mut self, key: SessionKey, stage: Stage) {
        match stage {
            Stage::PoolQueue(queued) => self.leave_queue(queued.pool, queued.place),
            Stage::Resolving(resolving) => match resolving.target {
                Target::Private { pool, .. } => self.release_counted(pool),
                Target::Shared(shared_pool) => {
                    self.leave_shared_pool(shared_pool, key, Left::Nothing);
                }
            },
            Stage::Joining { shared_pool, .. } => {
                self.leave_shared_pool(shared_pool, key, Left::Place(stage));
            }
            Stage::New | Stage::RoomQueue { .. } | Stage::Assigned(_) => {}
        }
    }

    /// A session ends its use of a shared pool; its state was changed already.
    pub fn leave_shared_pool(&mut self, shared_key: SharedPoolKey, key: SessionKey, left: Left) {
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_key) {
            match &left {
                Left::Wanted | Left::Place(Stage::Assigned(_)) => shared_pool.usage.count_out(),
                Left::Place(Stage::Joining { place, .. }) => {
                    shared_pool.usage.joining.remove(*place);
                }
                Left::Place(Stage::RoomQueue { place, .. }) => {
                    shared_pool.usage.queue.remove(*place);
                }
                Left::Nothing | Left::Place(_) => {}
            }
        }
        self.leave(shared_key);
        if let Left::Place(Stage::Assigned(assignment)) = left {
            self.withdraw_unsent(&assignment);
            fault::point();
            self.on_orphaned_reply(&assignment, key);
        }
        self.drop_unused_shared_pool(shared_key);
    }

    /// An operation is over, whose commands were given to a shared connection. If one was sent in
    /// part, the connection cannot go on.
    pub fn withdraw_unsent(&mut self, assignment: &Assignment) {
        let key = assignment.connection;
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let connecting = connection.is_connecting();
        let pipeline = &mut connection.pipeline;
        let last = assignment.last;
        if pipeline.is_sent(last) {
            return;
        }
        let mut from = assignment.first;
        if pipeline.is_sent(from) || pipeline.has_begun(from) {
            from = from.max(pipeline.first_unsent());
            if pipeline.has_begun(from) {
                return self.fail_shared(key, Error::Closed);
            }
        }
        for number in from..=last {
            pipeline.withdraw(number);
        }
        let idle = pipeline.in_flight() == 0;
        let Some(sharing) = connection.sharing_mut() else {
            return;
        };
        let shared_pool = sharing.shared_pool;
        if idle {
            sharing.retry = None;
            // nobody waits for it, so a failure to open it is no error, either
            connection.nginx.hush();
        }
        self.count_unsent(key);
        if idle && !connecting {
            self.on_drained(key);
        }
        // there is room for others
        self.serve_queue(shared_pool);
    }

    /// The request that a session belongs to has ended.
    pub fn request_ended(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            // the cleanup handler is running; nginx frees it with the request
            session.cleanup = None;
        }
        fault::point();
        self.disconnect(key, State::Closed);
    }

    /// Forgets a session whose Lua object is gone.
    pub fn drop_session(&mut self, key: SessionKey) {
        fault::point();
        self.disconnect(key, State::Closed);
        self.forget(key);
    }

    /// As [`Self::retire`], for what is to be closed first.
    pub fn close_and_retire(&mut self, key: SessionKey) -> Option<usize> {
        self.disconnect(key, State::Closed);
        self.retire(key)
    }

    /// A coroutine was resumed that has no result, or must not go on.
    #[cold]
    pub fn end_coroutine(&mut self, key: SessionKey, slot: Slot) -> Outcome {
        let session = self.sessions.get_mut(key);
        let call = session.and_then(|session| match session.call(slot) {
            Some(call) if call.pending().is_none() => session.take_call(slot),
            _ => None,
        });
        let outcome = match call {
            Some(_) => Outcome::Ended,
            // nobody else may get the result later
            None => Outcome::Failed(Error::Closed),
        };
        if let Some(call) = call {
            self.semaphores.give(call.into_semaphore());
            self.give_trial_back(key);
        }
        self.disconnect(key, State::Closed);
        outcome
    }
}
