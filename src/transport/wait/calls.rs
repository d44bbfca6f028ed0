//! Operations begin and are over; calls wait for them, for a limited time.

use std::rc::Rc;

use slotmap::SlotMap;

use crate::fault;
use crate::nginx::{self, Msec, Timer};
use crate::transport::connection::Connection;
use crate::transport::connection::handlers::handlers;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, OpKey, SessionKey};
use crate::transport::state::call::Call;
use crate::transport::state::op::{Op, Stage, Waiters, Work};
use crate::transport::state::outcome::{Begun, Outcome, Slot};
use crate::transport::state::session::{Session, State};
use crate::transport::worker::Worker;

/// Least time that nginx's timers are armed for, in milliseconds.
const TICK: Msec = 1;

impl Worker {
    /// Begins an operation for a session, whose call will wait for it.
    #[inline(always)]
    pub fn begin(
        &mut self,
        key: SessionKey,
        slot: Slot,
        work: Work,
        stage: Stage,
    ) -> Result<OpKey, Error> {
        if self.ops.try_reserve(1).is_err() {
            return Err(Error::NoMemory);
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return Err(Error::Closed);
        };
        let Some(semaphore) = self.semaphores.take() else {
            return Err(Error::NoMemory);
        };
        let op = self.ops.insert(Op {
            waiters: Waiters::One(key, slot),
            work,
            stage,
        });
        session.put_call(slot, Call::new(semaphore, op));
        Ok(op)
    }

    /// Takes an operation back that waits in no queue and has nothing in flight.
    #[cold]
    pub fn take_back(&mut self, key: SessionKey, slot: Slot) {
        let session = self.sessions.get_mut(key);
        if let Some(call) = session.and_then(|session| session.take_call(slot)) {
            if let Some(op) = call.pending() {
                self.ops.remove(op);
            }
            self.semaphores.give(call.into_semaphore());
        }
    }

    /// An operation has its result.
    #[inline(always)]
    pub fn complete(&mut self, key: OpKey, outcome: Outcome) {
        let Some(op) = self.ops.remove(key) else {
            return;
        };
        match (&op.waiters, &op.work, &op.stage) {
            (&Waiters::One(session, slot), Work::Command, Stage::Assigned(_)) => {
                // the most common operation, which has nothing to drop
                std::mem::forget(op);
                self.finish_call(session, slot, outcome, true);
            }
            _ => self.finish_calls(key, &op, outcome),
        }
    }

    /// As [`Self::complete`], for any operation.
    #[inline(never)]
    pub fn finish_calls(&mut self, key: OpKey, op: &Op, outcome: Outcome) {
        let assigned = matches!(op.stage, Stage::Assigned(_));
        match op.waiters {
            Waiters::One(session, slot) => self.finish_call(session, slot, outcome, assigned),
            Waiters::Several(_) => self.finish_common(key, op, outcome, assigned),
            Waiters::Nobody => {}
        }
    }

    /// As [`Self::complete`], if several sessions wait for the operation.
    #[cold]
    pub fn finish_common(&mut self, key: OpKey, op: &Op, outcome: Outcome, assigned: bool) {
        let outcome = match outcome {
            Outcome::Reply(reply) => Ok(Rc::new(reply)),
            Outcome::Failed(error) => Err(error),
            _ => Err(Error::Unknown),
        };
        for session in op.waiters.sessions() {
            let waiting = self.sessions.get(*session);
            if waiting.and_then(|session| session.reads()) == Some(key) {
                let outcome = match &outcome {
                    Ok(reply) => Outcome::Common(reply.clone()),
                    Err(error) => Outcome::Failed(error.clone()),
                };
                self.finish_call(*session, Slot::Reader, outcome, assigned);
            }
        }
    }

    /// A session's call has its result; `assigned`: its operation was given to a connection.
    #[inline(always)]
    pub fn finish_call(&mut self, key: SessionKey, slot: Slot, outcome: Outcome, assigned: bool) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let shared_pool = match session.state {
            State::Shared { shared_pool, .. } => Some(shared_pool),
            _ => None,
        };
        let Some(call) = session.call_mut(slot) else {
            return;
        };
        fault::point();
        let deadline = call.deadline.take();
        call.finish(outcome);
        if let Some(ticket) = deadline {
            self.deadlines.cancel(ticket);
            self.let_worker_exit();
        }
        if assigned
            && let Some(shared_pool) = shared_pool
            && let Some(shared_pool) = self.shared_pools.get_mut(shared_pool)
        {
            shared_pool.usage.count_out();
        }
    }

    /// Whether the operation of a call is over already; then its result.
    #[inline(always)]
    pub fn begun(&mut self, key: SessionKey, slot: Slot) -> Result<Begun, Error> {
        let Some(session) = self.sessions.get_mut(key) else {
            return Err(Error::Closed);
        };
        if session.call(slot).and_then(Call::pending).is_some() {
            return Ok(Begun::Waiting);
        }
        let Some(call) = session.take_call(slot) else {
            return Err(Error::Closed);
        };
        let (outcome, semaphore) = call.into_outcome();
        self.semaphores.give(semaphore);
        match outcome {
            Some(Outcome::Failed(error)) => Err(error),
            Some(outcome) => Ok(Begun::Ready(outcome)),
            None => Err(Error::Closed),
        }
    }

    /// The time of a session's call runs from now on: its connection is established.
    pub fn begin_to_wait(&mut self, key: SessionKey, slot: Slot) {
        let call = self
            .sessions
            .get(key)
            .and_then(|session| session.call(slot));
        let Some(op) = call.and_then(|call| call.pending()) else {
            return;
        };
        if let Some(Stage::Assigned(assignment)) = self.ops.get_mut(op).map(|op| &mut op.stage) {
            assignment.since = nginx::now();
        }
        self.limit_call(key, slot);
    }

    /// Has a call time out after the object's timeout for what it waits for, from now on.
    pub fn limit_call(&mut self, key: SessionKey, slot: Slot) {
        let session = self.sessions.get(key);
        let timeout =
            session.and_then(|session| time_limit(session, slot, &self.ops, &self.connections));
        if let Some(timeout) = timeout {
            self.set_deadline(key, slot, timeout);
        }
    }

    /// Has a call time out after `timeout` milliseconds from now on.
    pub fn set_deadline(&mut self, key: SessionKey, slot: Slot, timeout: Msec) {
        let session = self.sessions.get_mut(key);
        if let Some(call) = session.and_then(|session| session.call_mut(slot)) {
            let due = call.limit(&mut self.deadlines, (key, slot), timeout);
            self.watch_deadline(due);
        }
    }

    /// Has the timer expire at a deadline, or earlier.
    #[inline(always)]
    pub fn watch_deadline(&mut self, due: Msec) {
        if self.deadline_armed.is_none_or(|armed| armed > due) {
            self.arm_deadline(due);
        } else if let Some(timer) = &mut self.deadline {
            // a worker that exits waits for those who wait
            timer.set_cancelable(false);
        }
    }

    pub fn arm_deadline(&mut self, due: Msec) {
        let timer = self
            .deadline
            .get_or_insert_with(|| Timer::new(handlers().deadline, 0));
        timer.set_cancelable(false);
        // nginx does not move an armed timer by less than 300 ms
        timer.stop();
        timer.start(due.saturating_sub(nginx::now()).max(TICK));
        self.deadline_armed = Some(due);
    }

    /// The timer stays armed when nobody waits any more, but then an exiting worker does not wait
    /// for it.
    #[inline(always)]
    pub fn let_worker_exit(&mut self) {
        if self.deadlines.is_empty()
            && let Some(timer) = &mut self.deadline
        {
            timer.set_cancelable(true);
        }
    }
}

/// The time that a session's call may wait from now on, in milliseconds. `None`: the resolver has a
/// time limit of its own.
#[inline(always)]
pub fn time_limit(
    session: &Session,
    slot: Slot,
    ops: &SlotMap<OpKey, Op>,
    connections: &SlotMap<ConnectionKey, Connection>,
) -> Option<Msec> {
    let op = ops.get(session.call(slot)?.pending()?)?;
    let assignment = match &op.stage {
        Stage::New | Stage::Resolving(_) => return None,
        Stage::PoolQueue(_) | Stage::Joining { .. } => return Some(session.connect_timeout()),
        Stage::RoomQueue { .. } => {
            return Some(session.send_timeout().min(session.read_timeout()));
        }
        Stage::Assigned(assignment) => assignment,
    };
    let connecting = match op.work {
        Work::Connect => true,
        // commands that wait until a private connection is established have the time to connect
        _ => {
            let connection = connections.get(assignment.connection)?;
            connection.is_connecting() && connection.sharing().is_none()
        }
    };
    Some(match (connecting, slot) {
        (true, _) => session.connect_timeout(),
        // the shorter one; when it is over, `on_assigned_due` finds out which of both applies
        (false, Slot::Reader) => session.send_timeout().min(session.read_timeout()),
        (false, Slot::Writer) => session.send_timeout(),
    })
}
