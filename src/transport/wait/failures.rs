//! Operations on a shared connection that failed.

use crate::fault;
use crate::protocol::Reply;
use crate::transport::connection::Tag;
use crate::transport::error::Error;
use crate::transport::ids::SessionKey;
use crate::transport::state::op::{Work, accept};
use crate::transport::state::session::State;
use crate::transport::state::sessions::waiting;
use crate::transport::worker::Worker;

impl Worker {
    /// An operation fails with the connection it was on.
    pub fn fail_operation(&mut self, tag: Tag, error: &Error, writing: bool) {
        fault::point();
        let Some(session) = waiting(&mut self.sessions, tag) else {
            return;
        };
        if let Some(op) = &mut session.reader {
            let begun = matches!(op.work_mut(), Some(Work::Pipeline { replies, .. }) if !replies.is_empty());
            match error {
                Error::Said(_) if begun => op.fail(Error::Closed, writing),
                Error::Said(line) => {
                    // in place of its reply, or of the first of them
                    accept(op, Reply::Line(line.to_vec()));
                    op.fail(Error::Closed, false);
                }
                error => op.fail(error.clone(), writing),
            }
        }
        self.mark_broken(tag.session);
    }

    /// The operation of a session fails; so is its connection, to Lua.
    pub fn finish_failed(&mut self, key: SessionKey, error: &Error) {
        if let Some(op) = self.sessions.get_mut(key).and_then(|s| s.reader.as_mut()) {
            op.fail(error.clone(), false);
        }
        self.mark_broken(key);
    }

    pub fn mark_broken(&mut self, key: SessionKey) {
        self.clear_deadline(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let State::Shared {
            shared_pool,
            reused,
            flight,
        } = session.state
        {
            session.state = State::Broken { reused };
            session.serial += 1;
            self.stop_waiting(key, shared_pool);
            if let Some(shared_pool) = self.shared_pools.get_mut(shared_pool) {
                shared_pool.count_out(usize::from(flight.is_some()));
            }
            self.leave(shared_pool);
        }
    }
}
