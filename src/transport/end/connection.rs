//! The end of connections.

use crate::fault;
use crate::transport::connection::Owner;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, SessionKey};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

impl Worker {
    /// A connection failed: it closes, and those who wait get the error.
    pub fn fail(&mut self, key: ConnectionKey, error: Error) {
        match self
            .connections
            .get(key)
            .map(|connection| &connection.owner)
        {
            Some(Owner::Session(_)) => self.fail_private(key, &error, false),
            Some(Owner::Shared(_)) => self.fail_shared(key, error),
            Some(Owner::Queue(_)) => self.fail_queue(key, &error),
            Some(Owner::Probe(_)) => self.fail_probe_with(key, &error),
            Some(Owner::Pool(_)) => self.evict(key),
            None => {}
        }
    }

    /// A private connection failed. `closed`: Lua finds its object closed; otherwise `close()`
    /// still succeeds once.
    #[cold]
    pub fn fail_private(&mut self, key: ConnectionKey, error: &Error, closed: bool) {
        fault::point();
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let writing = !connection.pipeline.unsent().is_empty();
        let state = match closed {
            true => State::Closed,
            false => State::Broken {
                reused: connection.reused,
            },
        };
        if let Some(session) = connection.session() {
            self.end_use(session, state, Some(error), writing);
        }
        // `end_use` has closed the connection of a session already
        self.close_connection(key);
    }

    /// A call has waited for too long: its session is closed, as a private connection would be.
    /// `writing`: its commands were still being sent.
    pub fn time_out(&mut self, key: SessionKey, writing: bool) {
        let session = self.sessions.get(key).map(|session| &session.state);
        let state = match session {
            Some(State::Shared { reused, .. }) if writing => State::Broken { reused: *reused },
            Some(State::Private(connection)) if writing => State::Broken {
                reused: self.connections.get(*connection).map_or(0, |c| c.reused),
            },
            _ => State::Closed,
        };
        self.end_use(key, state, Some(&Error::Timeout), writing);
    }

    /// Bytes came, or the end of the stream, before a command was sent: the connection fails.
    /// Returns the error line that the server has sent, if it is one.
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
            // a reply to raw data is for the user who sent the data
            let unanswered = connection
                .private()
                .is_some_and(|private| private.unanswered);
            let own = connection.pipeline.in_flight() == 0 && !unanswered;
            let line = connection.pipeline.unasked_error().filter(|_| own);
            said = line.map(<[u8]>::to_vec);
            if said.is_none() {
                connection.log_unsolicited();
            }
        }
        self.fail(key, error.clone());
        match said {
            None => Err(error),
            said => Ok(said),
        }
    }

    /// Gives up a session's connection and what is under way on it.
    pub fn abort(&mut self, key: SessionKey) {
        self.disconnect(key, State::Closed);
    }
}
