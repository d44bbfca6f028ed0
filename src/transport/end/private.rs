//! The end of sessions and of their own connections.

use crate::fault;
use crate::transport::connection::{Owner, Tag};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, SessionKey};
use crate::transport::state::op::{Op, Outcome, Slot, Status};
use crate::transport::state::session::{Session, State};
use crate::transport::worker::Worker;

impl Worker {
    /// Gives up a session's connection and what is under way on it.
    pub fn abort(&mut self, key: SessionKey) {
        self.disconnect(key, State::Closed);
    }

    /// As [`Self::retire`], for what is to be closed first.
    pub fn close_and_retire(&mut self, key: SessionKey) -> Option<usize> {
        self.disconnect(key, State::Closed);
        self.retire(key)
    }

    /// Forgets a session whose Lua object is gone.
    pub fn drop_session(&mut self, key: SessionKey) {
        fault::point();
        self.disconnect(key, State::Closed);
        self.forget(key);
    }

    /// A coroutine was resumed that has no result, or must not go on.
    #[cold]
    pub fn end_coroutine(&mut self, key: SessionKey, slot: Slot) -> Outcome {
        let session = self.sessions.get_mut(key);
        let op = session.and_then(|session| match session.op(slot).map(|op| op.status()) {
            Some(Status::Done) => session.take_op(slot),
            _ => None,
        });
        let outcome = match op {
            Some(_) => Outcome::Ended,
            // nobody else may get the result later
            None => Outcome::Failed(Error::Closed),
        };
        if let Some(op) = op {
            self.semaphores.give(op.into_semaphore());
        }
        self.disconnect(key, State::Closed);
        outcome
    }

    /// The request that a session belongs to has ended.
    pub fn request_ended(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            // it is running, and goes with the request
            session.cleanup = None;
        }
        fault::point();
        self.disconnect(key, State::Closed);
    }

    /// A connection failed: it closes, and those who waited get the error. `state`
    /// is how its session goes on.
    pub fn fail(&mut self, key: ConnectionKey, error: Error, state: State) {
        fault::point();
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let writing = !connection.pipeline.unsent().is_empty();
        let reused = connection.reused;
        if let Owner::Session { session, .. } = connection.owner
            && let Some(session) = self.sessions.get_mut(session)
        {
            session.state = match state {
                State::Broken { .. } => State::Broken { reused },
                state => state,
            };
            for slot in [Slot::Reader, Slot::Writer] {
                if let Some(op) = session.op(slot) {
                    op.fail(error.clone(), writing);
                }
            }
        }
        self.close_connection(key);
    }

    /// Closes the connections of killed light threads.
    pub fn on_watch(&mut self) {
        self.watch = None;
        let (mut waiting, mut abandoned) = (false, Vec::new());
        for (key, session) in self.sessions.iter() {
            for op in session.ops() {
                waiting = true;
                if op.is_abandoned() {
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

    /// Closes the connection if the light thread that used it was killed, as
    /// a cosocket's is.
    #[inline(always)]
    pub fn reap(&mut self, key: SessionKey) {
        if self.sessions.get(key).is_some_and(Session::has_ops) {
            self.reap_abandoned(key);
        }
    }

    pub fn reap_abandoned(&mut self, key: SessionKey) {
        let session = self.sessions.get(key);
        if session.is_some_and(|session| session.ops().any(Op::is_abandoned)) {
            self.disconnect(key, State::Closed);
        }
    }

    /// Nobody tells when ngx_lua kills a light thread. Before something is
    /// sent, those are looked for whose commands it would be.
    pub fn end_killed(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let mut all = connection.pipeline.still_to_send();
        let waits = |tag: Tag| {
            let session = self.sessions.get(tag.session);
            session.is_some_and(|session| {
                let op = session.reader.as_ref();
                session.serial == tag.serial && op.is_some_and(|op| !op.is_abandoned())
            })
        };
        if all.all(|(_, tag)| waits(tag)) {
            return;
        }
        drop(all);
        for session in self.killed_on(key) {
            self.disconnect(session, State::Closed);
        }
    }

    #[cold]
    pub fn fail_unasked(
        &mut self,
        key: ConnectionKey,
        error: Error,
    ) -> Result<Option<Vec<u8>>, Error> {
        let mut said = None;
        if let Some(connection) = self.connections.get(key)
            && error == Error::Unsolicited
        {
            // what answers raw data is for whoever sent that
            let own = connection.pipeline.in_flight() == 0 && !connection.unanswered;
            let line = connection.pipeline.unasked_error().filter(|_| own);
            said = line.map(<[u8]>::to_vec);
            if said.is_none() {
                connection.log_unsolicited();
            }
        }
        self.fail(key, error.clone(), State::Broken { reused: 0 });
        match said {
            None => Err(error),
            said => Ok(said),
        }
    }
}
