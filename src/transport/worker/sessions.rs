//! Sessions: made, looked at, forgotten.

use crate::nginx::Request;
use crate::protocol::Reply;
use crate::transport::connection::Owner;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, SessionKey};
use crate::transport::state::op::{Assignment, Stage, Work};
use crate::transport::state::session::{Session, State, Timeouts};
use crate::transport::worker::Worker;

impl Worker {
    /// A new session, not connected. `handle` is the address of the Lua object whose collection
    /// ends it. If there is no memory the key is null, which no Lua object can hold.
    pub fn new_session(&mut self, timeouts: Timeouts, handle: usize) -> SessionKey {
        self.sessions.make(timeouts, handle).unwrap_or_default()
    }

    /// Whether it is there, open or not.
    pub fn is_session(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some()
    }

    /// The state of a session of `request` that nobody waits for: mostly this is all that there is
    /// to look at.
    #[inline(always)]
    pub fn at_rest(&self, key: SessionKey, request: Request) -> Option<&State> {
        let session = self.sessions.get(key)?;
        (session.request() == Some(request) && !session.has_calls()).then_some(&session.state)
    }

    /// Whether `request` uses a session whose connection is deferred.
    pub fn is_deferred(&mut self, key: SessionKey, request: Request) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| {
            matches!(session.state, State::Deferred { .. }) && session.request() == Some(request)
        })
    }

    /// Checks that no other coroutine uses the session. The error says what that one does.
    #[inline(always)]
    pub fn check_idle(&self, key: SessionKey) -> Result<(), Error> {
        match self.sessions.get(key) {
            // a session that connects has a call, too
            Some(session) if session.has_calls() => self.check_calls(key),
            _ => Ok(()),
        }
    }

    pub fn check_calls(&self, key: SessionKey) -> Result<(), Error> {
        self.check_reader(key)?;
        match self.sessions.get(key) {
            Some(session) if session.writer.is_some() => Err(Error::BusyWriting),
            _ => Ok(()),
        }
    }

    /// As [`Self::check_idle`], for what only needs to read.
    pub fn check_reader(&self, key: SessionKey) -> Result<(), Error> {
        let reader = self.sessions.get(key).and_then(|s| s.reader.as_ref());
        let Some(call) = reader else {
            return Ok(());
        };
        let op = call.pending().and_then(|op| self.ops.get(op));
        let connects = op.is_some_and(|op| matches!(op.work, Work::Connect));
        if connects || call.has_connected() {
            return Err(Error::BusyConnecting);
        }
        let unsent = match op.map(|op| &op.stage) {
            Some(Stage::Assigned(assignment)) => self.is_held_up(assignment),
            _ => false,
        };
        Err(if unsent {
            Error::BusyWriting
        } else {
            Error::BusyReading
        })
    }

    /// Whether commands wait for the socket to take them.
    pub fn is_held_up(&self, assignment: &Assignment) -> bool {
        let Some(connection) = self.connections.get(assignment.connection) else {
            return false;
        };
        match connection.sharing() {
            Some(sharing) => !sharing.to_flush && !connection.pipeline.is_sent(assignment.last),
            None => !connection.pipeline.unsent().is_empty(),
        }
    }

    /// Whether somebody waits for data on a connection: on a shared one always, for its end at
    /// least.
    #[inline(always)]
    pub fn is_read(&self, key: ConnectionKey) -> bool {
        match self
            .connections
            .get(key)
            .map(|connection| &connection.owner)
        {
            Some(Owner::Session(private)) => self.sessions.reads(private.session),
            Some(Owner::Pool(_)) | None => false,
            // shared ones, and those that no session has
            Some(_) => true,
        }
    }

    /// Changes the timeouts of later operations.
    pub fn set_timeouts(&mut self, key: SessionKey, timeouts: Timeouts) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.timeouts = timeouts;
        }
    }

    /// How often the session's connection was taken out of a pool.
    pub fn reused_times(&self, key: SessionKey) -> Result<u64, Error> {
        match self.sessions.get(key).map(|session| &session.state) {
            Some(State::Private(connection)) => {
                let connection = self.connections.get(*connection).ok_or(Error::Closed)?;
                // users skip the handshake of a reused connection: in a pool with TLS connections,
                // a plain one must not look reused
                let mixed = |pool| self.pools.get(pool).is_some_and(|named| named.tls);
                Ok(match connection.tls {
                    None if connection.pool.is_some_and(mixed) => 0,
                    _ => connection.reused,
                })
            }
            Some(State::Deferred { .. }) => Ok(0),
            Some(State::Connecting) if self.is_joining(key) => Ok(0),
            Some(State::Broken { reused } | State::Shared { reused, .. }) => Ok(*reused),
            _ => Err(Error::Closed),
        }
    }

    /// Whether a session waits for a shared connection.
    pub fn is_joining(&self, key: SessionKey) -> bool {
        let op = self.sessions.get(key).and_then(Session::reads);
        op.and_then(|op| self.ops.get(op))
            .is_some_and(|op| matches!(op.stage, Stage::Joining { .. }))
    }

    /// Gives the buffers of a reply back, for the next one.
    pub fn recycle(&mut self, reply: Reply) {
        self.buffers.recycle(reply);
    }

    /// Forgets a session that is closed, and returns its handle; `None` if an operation of it is
    /// not over.
    pub fn retire(&mut self, key: SessionKey) -> Option<usize> {
        let session = self.sessions.get(key)?;
        if !matches!(session.state, State::Closed) || session.has_calls() {
            return None;
        }
        self.forget(key)
    }

    /// Forgets a session that has nothing any more, and returns its handle.
    #[inline(always)]
    pub fn forget(&mut self, key: SessionKey) -> Option<usize> {
        self.give_trial_back(key);
        let (cleanup, handle) = self.sessions.remove(key)?;
        if let Some(cleanup) = cleanup {
            // SAFETY: a handler that ran has left no cleanup here.
            unsafe { cleanup.cancel() };
        }
        Some(handle)
    }
}
