//! TLS handshakes of connections.

use crate::transport::connection::tls::Pending;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, PoolKey, SessionKey};
use crate::transport::state::op::{Assignment, Stage, Work};
use crate::transport::state::outcome::{Opened, Slot};
use crate::transport::worker::Worker;
use crate::{fault, nginx};

impl Worker {
    /// Opens a connection for a handshake, which an operation waits for. Whether it can be done
    /// now. On failure there is no operation.
    pub fn open_for_handshake(
        &mut self,
        key: SessionKey,
        pending: Box<Pending>,
        pool: Option<PoolKey>,
    ) -> Result<Opened, Error> {
        let (host, port) = pending.0.peer();
        let host = host.to_vec();
        let op = self.begin(key, Slot::Reader, Work::Connect, Stage::New)?;
        let opened = self.open(op, key, (&host, port), pool, Some(pending));
        opened.inspect_err(|_| self.take_back(key, Slot::Reader))
    }

    /// Does a handshake on an established connection, which an operation waits for. Whether it is
    /// done already. On failure the connection is of no use any more.
    pub fn handshake_on(
        &mut self,
        key: SessionKey,
        connection: ConnectionKey,
        pending: Box<Pending>,
    ) -> Result<bool, Error> {
        let stage = Stage::Assigned(Assignment::new(connection, nginx::now()));
        self.begin(key, Slot::Reader, Work::Connect, stage)?;
        self.run_handshake(connection, pending)
    }

    /// Starts a handshake. As for [`Self::handshake_on`].
    pub fn run_handshake(
        &mut self,
        key: ConnectionKey,
        pending: Box<Pending>,
    ) -> Result<bool, Error> {
        fault::point();
        let connection = self.connections.get_mut(key).ok_or(Error::Closed)?;
        let session = connection.session().and_then(|key| self.sessions.get(key));
        connection.begin_handshake(pending, session.and_then(|session| session.request()))
    }

    /// Judges a handshake that has come to an end.
    pub fn end_handshake(&mut self, key: ConnectionKey) -> Result<(), Error> {
        let connection = self.connections.get_mut(key).ok_or(Error::Closed)?;
        let session = connection.session().and_then(|key| self.sessions.get(key));
        connection.end_handshake(session.and_then(|session| session.request()))
    }
}
