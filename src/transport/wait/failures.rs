//! Operations that failed together with a shared connection, or for want of one.

use crate::fault;
use crate::transport::error::Error;
use crate::transport::ids::{OpKey, SessionKey};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

impl Worker {
    /// An operation fails; so does the connection of those who wait for it, as far as Lua is told.
    pub fn fail_op(&mut self, key: OpKey, error: &Error, writing: bool) {
        fault::point();
        let Some(op) = self.ops.get_mut(key) else {
            return;
        };
        let outcome = op.work.fail_with(error, writing);
        let sessions = self.waiting_for(key);
        self.complete(key, outcome);
        for session in sessions {
            self.mark_broken(session);
        }
    }

    /// Sessions that wait for an operation.
    pub fn waiting_for(&self, key: OpKey) -> Vec<SessionKey> {
        let op = self.ops.get(key);
        let sessions = op.map_or(&[][..], |op| op.waiters.sessions());
        let waits = |session: &SessionKey| {
            let session = self.sessions.get(*session);
            session.is_some_and(|session| session.calls().any(|call| call.pending() == Some(key)))
        };
        sessions
            .iter()
            .copied()
            .filter(|session| waits(session))
            .collect()
    }

    /// A session's shared connection has failed, as far as Lua is told.
    pub fn mark_broken(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let State::Shared {
            shared_pool,
            reused,
        } = session.state
        {
            session.state = State::Broken { reused };
            self.leave(shared_pool);
        }
    }
}
