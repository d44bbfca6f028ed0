//! Light threads that were killed while they waited. ngx_lua does not tell when it kills one. It
//! shows when the call of the thread is looked at.

use slotmap::SlotMap;

use crate::transport::connection::Connection;
use crate::transport::ids::{ConnectionKey, OpKey, SessionKey};
use crate::transport::state::call::Call;
use crate::transport::state::op::Op;
use crate::transport::state::session::{Session, State};
use crate::transport::state::sessions::Sessions;
use crate::transport::worker::Worker;

impl Worker {
    /// Closes the connections of killed light threads.
    pub fn on_watch(&mut self) {
        self.watch = None;
        let (mut waiting, mut abandoned) = (false, Vec::new());
        for (key, session) in self.sessions.iter() {
            for call in session.calls() {
                waiting = true;
                if call.is_abandoned() {
                    abandoned.push(key);
                }
            }
        }
        for key in abandoned {
            self.disconnect(key, State::Closed);
        }
        if waiting {
            self.watch_waiters();
        }
    }

    /// Closes the connection if the light thread that used it was killed, as a cosocket's is.
    #[inline(always)]
    pub fn reap(&mut self, key: SessionKey) {
        if self.sessions.get(key).is_some_and(Session::has_calls) {
            self.reap_abandoned(key);
        }
    }

    pub fn reap_abandoned(&mut self, key: SessionKey) {
        let session = self.sessions.get(key);
        if session.is_some_and(|session| session.calls().any(Call::is_abandoned)) {
            self.disconnect(key, State::Closed);
        }
    }

    /// Called before a connection sends. Ends the sessions of killed light threads, so that their
    /// commands are not sent.
    pub fn end_killed(&mut self, key: ConnectionKey) {
        let connection = self.connections.get(key);
        if connection.is_some_and(|connection| !all_wait(connection, &self.ops, &self.sessions)) {
            self.disconnect_killed(key);
        }
    }

    /// Ends the sessions of killed light threads whose commands are on a connection.
    #[cold]
    pub fn disconnect_killed(&mut self, key: ConnectionKey) {
        for session in self.killed_on(key) {
            self.disconnect(session, State::Closed);
        }
    }
}

/// Whether somebody waits for each operation of which something is still to be sent.
#[inline(always)]
pub fn all_wait(connection: &Connection, ops: &SlotMap<OpKey, Op>, sessions: &Sessions) -> bool {
    let first_waits = |op: OpKey| {
        let waiting = ops.get(op).map(|op| op.waiters.sessions());
        let first = waiting.and_then(|waiting| sessions.get(*waiting.first()?));
        first.is_some_and(|session| session.waits_for(op))
    };
    let mut all = connection.pipeline.still_to_send();
    all.all(|(_, op)| first_waits(op))
}
