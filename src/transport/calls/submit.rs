//! Commands and raw data, begun on behalf of a request, and their results.

use crate::fault;
use crate::nginx::{self, Request};
use crate::protocol::{RawRead, RawReader, SMALL_VALUE};
use crate::transport::connection::Connection;
use crate::transport::error::{Error, Rejected};
use crate::transport::ids::{ConnectionKey, OpKey, PipelineKey, SessionKey, SharedPoolKey};
use crate::transport::log::not_connected;
use crate::transport::state::op::{Assignment, Stage, Work};
use crate::transport::state::outcome::{Begun, Commands, Outcome, Slot};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

impl Worker {
    /// Sends commands on behalf of `request`.
    ///
    /// # Errors
    ///
    /// [`Error::BadRequest`]: the session belongs to another active request. All else: nothing was
    /// sent or the connection failed.
    #[inline(always)]
    pub fn submit(
        &mut self,
        key: SessionKey,
        request: Request,
        commands: Commands<'_>,
    ) -> Result<Begun, Rejected> {
        fault::point();
        match self.at_rest(key, request) {
            Some(&State::Private(connection)) => self.submit_private(key, connection, commands),
            Some(&State::Shared { shared_pool, .. }) if commands.can_share() => {
                self.submit_shared(key, shared_pool, commands)
            }
            _ => self.submit_slow(key, request, commands),
        }
    }

    /// As [`Self::submit`], for a session that is not at rest, or that has to get a private
    /// connection.
    #[inline(never)]
    pub fn submit_slow(
        &mut self,
        key: SessionKey,
        request: Request,
        commands: Commands<'_>,
    ) -> Result<Begun, Rejected> {
        if commands.can_share()
            && let Some(shared_pool) = self.shared_pool_of(key, request)?
        {
            self.check_idle(key)?;
            return self.submit_shared(key, shared_pool, commands);
        }
        match self.private_connection(key, request) {
            Ok(connection) => {
                self.check_idle(key)?;
                self.submit_private(key, connection, commands)
            }
            Err(error) => Err(not_connected(request, "send", error).into()),
        }
    }

    /// Sends the commands of an open pipeline, which stays open until its results are taken. Errors
    /// as with [`Self::submit`].
    pub fn commit(
        &mut self,
        key: SessionKey,
        request: Request,
        pipeline: PipelineKey,
    ) -> Result<Begun, Rejected> {
        let open = self.pipelines.get_mut(pipeline).ok_or(Error::Unknown)?;
        if open.batch.is_empty() {
            // all were refused
            self.check_ready(key, request)?;
            return Ok(Begun::Ready(Outcome::Replies(Vec::new(), None)));
        }
        let batch = std::mem::take(&mut open.batch);
        let begun = self.submit(key, request, Commands::Batch(&batch));
        if let Some(open) = self.pipelines.get_mut(pipeline) {
            open.batch = batch;
        }
        begun
    }

    /// Sends commands of a session without calls over its own connection.
    #[inline(always)]
    pub fn submit_private(
        &mut self,
        key: SessionKey,
        connection_key: ConnectionKey,
        commands: Commands<'_>,
    ) -> Result<Begun, Rejected> {
        if let Some(line) = self.check_in_step(connection_key)? {
            return Ok(Begun::Ready(commands.answered_by(line)?));
        }
        let work = Work::of(commands)?;
        let slot = work.slot();
        let stage = Stage::Assigned(Assignment::new(connection_key, nginx::now()));
        let op_key = self.begin(key, slot, work, stage)?;
        let submitted = match self.connections.get_mut(connection_key) {
            Some(connection) => connection.submit(op_key, commands),
            None => Err(Error::Closed.into()),
        };
        let (numbers, value) = match submitted {
            Ok(submitted) => submitted,
            Err(rejected) => {
                self.take_back(key, slot);
                return Err(rejected);
            }
        };
        fault::point();
        let op = self.ops.get_mut(op_key);
        if let Some(Stage::Assigned(assignment)) = op.map(|op| &mut op.stage) {
            (assignment.first, assignment.last) = numbers;
        }
        Ok(match slot {
            Slot::Reader => self.start_commands(key, connection_key, value)?,
            Slot::Writer => self.start(key, connection_key, slot, value)?,
        })
    }

    /// As [`Self::start`], for commands with replies that were begun on a private connection when
    /// its session had no calls.
    #[inline(always)]
    pub fn start_commands(
        &mut self,
        key: SessionKey,
        connection_key: ConnectionKey,
        value: &[u8],
    ) -> Result<Begun, Error> {
        fault::point();
        let sent = self.write_out(connection_key, value);
        fault::point();
        // mostly all is sent, and nothing has come yet
        if sent
            && let Some(connection) = self.connections.get_mut(connection_key)
            && !connection.nginx.is_readable()
            && connection.nginx.arm_read().is_ok()
        {
            return Ok(Begun::Waiting);
        }
        self.read_if_due(connection_key);
        self.begun(key, Slot::Reader)
    }

    /// Gives commands of an attached session without calls to a shared connection.
    #[inline(always)]
    pub fn submit_shared(
        &mut self,
        key: SessionKey,
        shared_pool: SharedPoolKey,
        commands: Commands<'_>,
    ) -> Result<Begun, Rejected> {
        fault::point();
        let mut connection = match self.has_turn(key, shared_pool) {
            true => self.connection_for_batch(shared_pool, Some(key), true)?,
            false => None,
        };
        if let (Some(chosen), Commands::One(command)) = (connection, commands)
            && command.value().len() > SMALL_VALUE
            && self
                .connections
                .get(chosen)
                .is_some_and(Connection::takes_all)
        {
            // The value may be sent at once, with all commands before it. Those of killed light
            // threads must not be sent.
            self.end_killed(chosen);
            if !self.connections.contains_key(chosen) {
                connection = self.connection_for_batch(shared_pool, Some(key), true)?;
            }
        }
        let Some(connection) = connection else {
            return self.queue_up(key, shared_pool, commands);
        };
        let work = Work::of(commands)?;
        let op = self.begin(key, Slot::Reader, work, Stage::New)?;
        let put = match self.put_on_connection(op, key, connection, commands) {
            Err(rejected) => self.put_on_knowing(op, key, connection, commands, rejected),
            put => put,
        };
        let value = match put {
            Ok(value) => value,
            Err(rejected) => {
                self.take_back(key, Slot::Reader);
                return Err(rejected);
            }
        };
        if value.is_empty() {
            return Ok(Begun::Waiting);
        }
        // the value is borrowed from Lua, so it is sent or copied before this returns
        self.flush_with(connection, value);
        Ok(self.begun(key, Slot::Reader)?)
    }

    /// Whether `request` could send a command now. Errors as with [`Self::submit`].
    pub fn check_ready(&mut self, key: SessionKey, request: Request) -> Result<(), Error> {
        if self.is_deferred(key, request) || self.shared_pool_of(key, request)?.is_some() {
            return self.check_idle(key);
        }
        match self.private_connection(key, request) {
            Ok(_) => self.check_idle(key),
            Err(error) => Err(not_connected(request, "send", error)),
        }
    }

    /// Checks before a command is sent that the connection is open, and that nothing was received
    /// that could be taken for the reply. If the server has sent an error line, closes the
    /// connection and returns the line.
    pub fn check_in_step(&mut self, key: ConnectionKey) -> Result<Option<Vec<u8>>, Error> {
        let Some(connection) = self.connections.get_mut(key) else {
            return Err(Error::Closed);
        };
        if connection.private().is_some_and(|private| private.quitting) {
            return Err(Error::Closed);
        }
        let error = if !connection.pipeline.is_answered() {
            Some(Error::Unsolicited)
        } else if connection.nginx.is_readable() {
            connection.receive_unasked()
        } else {
            None
        };
        match error {
            None => Ok(None),
            Some(error) => self.fail_unasked(key, error),
        }
    }

    /// Sends raw bytes on behalf of `request`. Errors as with [`Self::submit`].
    pub fn send(
        &mut self,
        key: SessionKey,
        request: Request,
        bytes: &[u8],
    ) -> Result<Begun, Error> {
        match self.private_connection(key, request) {
            Ok(connection) => self.send_on(key, connection, bytes),
            Err(error) => Err(not_connected(request, "send", error)),
        }
    }

    pub fn send_on(
        &mut self,
        key: SessionKey,
        connection: ConnectionKey,
        bytes: &[u8],
    ) -> Result<Begun, Error> {
        // a coroutine that reads does not keep another one from sending
        match self.check_idle(key) {
            Ok(()) | Err(Error::BusyReading) => {}
            Err(error) => return Err(error),
        }
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        if session.writer.is_some() {
            return Err(Error::BusyWriting);
        }
        if bytes.is_empty() {
            return Ok(Begun::Ready(Outcome::Sent(0)));
        }
        let stage = Stage::Assigned(Assignment::new(connection, nginx::now()));
        let work = Work::Send { bytes: bytes.len() };
        self.begin(key, Slot::Writer, work, stage)?;
        let queued = match self.connections.get_mut(connection) {
            None => Err(Error::Closed),
            Some(connection) => connection.queue_raw(bytes),
        };
        queued.inspect_err(|_| self.take_back(key, Slot::Writer))?;
        fault::point();
        self.start(key, connection, Slot::Writer, b"")
    }

    /// Receives raw bytes on behalf of `request`. Errors as with [`Self::submit`].
    pub fn receive(
        &mut self,
        key: SessionKey,
        request: Request,
        want: RawRead,
    ) -> Result<Begun, Error> {
        match self.private_connection(key, request) {
            Ok(connection) => self.receive_on(key, connection, want),
            Err(error) => Err(not_connected(request, "receive", error)),
        }
    }

    pub fn receive_on(
        &mut self,
        key: SessionKey,
        connection: ConnectionKey,
        want: RawRead,
    ) -> Result<Begun, Error> {
        // a coroutine that sends raw data does not keep another one from reading
        self.check_reader(key)?;
        let stage = Stage::Assigned(Assignment::new(connection, nginx::now()));
        let work = Work::Receive(RawReader::new(want));
        self.begin(key, Slot::Reader, work, stage)?;
        self.start(key, connection, Slot::Reader, b"")
    }

    /// Sends an operation that was begun, with `value` behind what is unsent, and reads. Returns
    /// the result if it is there at once.
    #[inline(always)]
    pub fn start(
        &mut self,
        key: SessionKey,
        connection: ConnectionKey,
        slot: Slot,
        value: &[u8],
    ) -> Result<Begun, Error> {
        fault::point();
        self.flush_with(connection, value);
        fault::point();
        self.read_if_due(connection);
        self.begun(key, slot)
    }
}

impl Connection {
    /// Appends raw bytes to what is to be sent.
    fn queue_raw(&mut self, bytes: &[u8]) -> Result<(), Error> {
        if !self.pipeline.send_raw(bytes) {
            return Err(Error::NoMemory);
        }
        if let Some(private) = self.private_mut() {
            private.unanswered = true;
        }
        Ok(())
    }

    /// Appends a private operation's commands to what is to be sent. Returns the numbers of its
    /// first and its last exchange, and a large value that was not copied and has to be sent behind
    /// them.
    #[inline(always)]
    fn submit<'a>(
        &mut self,
        op: OpKey,
        commands: Commands<'a>,
    ) -> Result<((u64, u64), &'a [u8]), Rejected> {
        let first = self.pipeline.next_number();
        let value = match commands {
            Commands::One(command) => {
                // with TLS, and before the connection is established, the value has to be copied
                let at_once = self.tls.is_none() && self.is_established();
                let submitted = match at_once {
                    true => self.pipeline.submit_head(op, command),
                    false => self.pipeline.submit(op, command).map(|()| &b""[..]),
                };
                submitted.map_err(Rejected::Refused)?
            }
            Commands::Batch(batch) => {
                let submitted = self.pipeline.submit_batch(op, batch);
                submitted.map_err(Rejected::Refused)?;
                b""
            }
        };
        if let Some(private) = self.private_mut() {
            private.quitting = commands.is_quit();
        }
        // `quit` has no reply, and gets no number
        let last = self.pipeline.next_number().saturating_sub(1);
        Ok(((first.min(last), last), value))
    }
}
