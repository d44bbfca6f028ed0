//! Commands and raw data, begun on behalf of a request, and their results.

use std::ptr::NonNull;

use nginx_sys::ngx_http_request_t;

use crate::fault;
use crate::ngx_lua::{Wait, Waiter};
use crate::protocol::{Command, RawRead, RawReader, SMALL_VALUE};
use crate::transport::connection::{Connection, Tag};
use crate::transport::error::{CallError, Error, Rejected};
use crate::transport::ids::{ConnectionKey, PipelineKey, SessionKey, SharedPoolKey};
use crate::transport::log::not_connected;
use crate::transport::peer::Caller;
use crate::transport::state::op::{Begun, Op, Outcome, Slot, What, Work};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

impl Worker {
    /// Sends commands on behalf of `request`.
    ///
    /// # Errors
    ///
    /// [`Error::BadRequest`]: the session belongs to another active request. All
    /// else: nothing was sent or the connection failed.
    pub fn submit(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        what: What<'_>,
    ) -> Result<Begun, Rejected> {
        fault::point();
        if what.can_share()
            && let Some(shared_pool) = self.shared_pool_of(key, request)?
        {
            return self.submit_shared(key, shared_pool, what);
        }
        match self.private_connection(key, request) {
            Ok(connection) => self.submit_to(key, connection, what),
            Err(error) => Err(not_connected(request, "send", error).into()),
        }
    }

    /// Sends the commands of an open pipeline, which stays open until its results
    /// are taken. Errors as with [`Self::submit`].
    pub fn commit(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        pipeline: PipelineKey,
    ) -> Result<Begun, Rejected> {
        let open = self.pipelines.get_mut(pipeline).ok_or(Error::Unknown)?;
        if open.batch.is_empty() {
            // all were refused
            self.check_ready(key, request)?;
            return Ok(Begun::Ready(Outcome::Replies(Vec::new(), None)));
        }
        let batch = std::mem::take(&mut open.batch);
        let begun = self.submit(key, request, What::Batch(&batch));
        if let Some(open) = self.pipelines.get_mut(pipeline) {
            open.batch = batch;
        }
        begun
    }

    pub fn submit_to(
        &mut self,
        session: SessionKey,
        key: ConnectionKey,
        what: What<'_>,
    ) -> Result<Begun, Rejected> {
        self.check_idle(session)?;
        if let Some(line) = self.check_in_step(key)? {
            return Ok(Begun::Ready(what.answered_by(line)?));
        }
        let semaphore = self.semaphores.take().ok_or(Error::NoMemory)?;
        let connection = self.connections.get_mut(key).ok_or(Error::Closed)?;
        let tag = Tag { session, serial: 0 };
        let mut value = &b""[..];
        let work = match what {
            What::Command(command) => {
                // TLS encrypts from its own buffer, and what connects sends later
                let submitted = if connection.tls.is_none() && !connection.is_connecting() {
                    connection.pipeline.submit_head(tag, command)
                } else {
                    connection.pipeline.submit(tag, command).map(|()| value)
                };
                match submitted {
                    Ok(large) => value = large,
                    Err(refused) => {
                        self.semaphores.give(semaphore);
                        return Err(Rejected::Refused(refused));
                    }
                }
                connection.quitting = matches!(command, Command::Quit);
                fault::point();
                Work::Command
            }
            What::Batch(batch) => {
                let submitted = Work::pipeline(batch).map_err(Rejected::Failed);
                match submitted.and_then(|work| {
                    let queued = connection.pipeline.submit_batch(tag, batch);
                    queued.map(|()| work).map_err(Rejected::Refused)
                }) {
                    Ok(work) => work,
                    Err(rejected) => {
                        self.semaphores.give(semaphore);
                        return Err(rejected);
                    }
                }
            }
        };
        let work = if connection.quitting {
            // nothing comes back; it is done when it is sent
            Work::Send { bytes: 0 }
        } else {
            work
        };
        let slot = match work {
            Work::Send { .. } => Slot::Writer,
            _ => Slot::Reader,
        };
        self.start(session, key, slot, Op::new(semaphore, work), value)
            .map_err(Rejected::Failed)
    }

    /// Gives an attached session's commands to a shared connection.
    pub fn submit_shared(
        &mut self,
        key: SessionKey,
        shared_pool: SharedPoolKey,
        what: What<'_>,
    ) -> Result<Begun, Rejected> {
        fault::point();
        self.check_idle(key)?;
        let mut connection = match self.has_turn(key, shared_pool) {
            true => self.connection_for_batch(shared_pool, Some(key), true)?,
            false => None,
        };
        if let (Some(chosen), What::Command(command)) = (connection, what)
            && command.value().len() > SMALL_VALUE
            && self
                .connections
                .get(chosen)
                .is_some_and(Connection::takes_all)
        {
            // it may be sent at once, with all that is there
            self.end_killed(chosen);
            if !self.connections.contains_key(chosen) {
                connection = self.connection_for_batch(shared_pool, Some(key), true)?;
            }
        }
        let Some(connection) = connection else {
            return self.queue_up(key, shared_pool, what);
        };
        let work = match what {
            What::Command(_) => Work::Command,
            What::Batch(batch) => Work::pipeline(batch)?,
        };
        let semaphore = self.semaphores.take().ok_or(Error::NoMemory)?;
        let put = match self.put_on_connection(key, connection, what) {
            Err(rejected) => self.put_on_knowing(key, connection, what, rejected),
            put => put,
        };
        let value = match put {
            Ok(value) => value,
            Err(rejected) => {
                self.semaphores.give(semaphore);
                return Err(rejected);
            }
        };
        if let Some(session) = self.sessions.get_mut(key) {
            session.reader = Some(Op::new(semaphore, work));
        }
        self.set_operation_deadline(key);
        if value.is_empty() {
            return Ok(Begun::Waiting);
        }
        // at once, while it is surely there
        self.flush_shared_with(connection, value);
        Ok(self.begun(key, Slot::Reader)?)
    }

    /// Whether `request` could send a command now. Errors as with
    /// [`Self::submit`].
    pub fn check_ready(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
    ) -> Result<(), Error> {
        if self.is_deferred(key, request) || self.shared_pool_of(key, request)?.is_some() {
            return self.check_idle(key);
        }
        match self.private_connection(key, request) {
            Ok(_) => self.check_idle(key),
            Err(error) => Err(not_connected(request, "send", error)),
        }
    }

    /// Before a command is sent there must be nothing that could be taken for
    /// its reply, and the connection must be open. What is returned is an error
    /// line that the server has sent; then the connection is closed.
    pub fn check_in_step(&mut self, key: ConnectionKey) -> Result<Option<Vec<u8>>, Error> {
        let connection = self.connections.get_mut(key).ok_or(Error::Closed)?;
        if connection.quitting {
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
        request: NonNull<ngx_http_request_t>,
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
        let semaphore = self.semaphores.take().ok_or(Error::NoMemory)?;
        let state = self.connections.get_mut(connection).ok_or(Error::Closed)?;
        if !state.pipeline.send_raw(bytes) {
            self.semaphores.give(semaphore);
            return Err(Error::NoMemory);
        }
        state.unanswered = true;
        fault::point();
        let work = Work::Send { bytes: bytes.len() };
        self.start(key, connection, Slot::Writer, Op::new(semaphore, work), b"")
    }

    /// Receives raw bytes on behalf of `request`. Errors as with [`Self::submit`].
    pub fn receive(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
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
        let semaphore = self.semaphores.take().ok_or(Error::NoMemory)?;
        let work = Work::Receive(RawReader::new(want));
        self.start(key, connection, Slot::Reader, Op::new(semaphore, work), b"")
    }

    /// Puts an operation under way; `value` goes behind what there is to send. If it is complete at once, its result is
    /// returned and nobody has to wait.
    pub fn start(
        &mut self,
        key: SessionKey,
        connection: ConnectionKey,
        slot: Slot,
        op: Op,
        value: &[u8],
    ) -> Result<Begun, Error> {
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        session.put_op(slot, op);
        fault::point();
        self.flush_with(connection, value);
        fault::point();
        self.read_if_due(connection);
        self.begun(key, slot)
    }

    /// Makes the caller wait for the operation in `slot`. It has to yield then.
    #[inline(always)]
    pub fn suspend<E>(
        &mut self,
        key: SessionKey,
        slot: Slot,
        caller: Caller,
    ) -> Result<(), CallError<E>> {
        let Some(waiter) = caller.waiter else {
            self.abort(key);
            return Err(CallError::CannotWait);
        };
        // SAFETY: the caller is the one whose Lua code runs.
        unsafe { self.wait(key, slot, caller.request, waiter) }.map_err(CallError::Refused)
    }

    /// Makes the running coroutine, which is `waiter`, wait for the operation in
    /// `slot`.
    ///
    /// # Errors
    ///
    /// ngx_lua's text if waiting is not possible here; the connection is
    /// closed then, since nobody will take its reply.
    ///
    /// # Safety
    ///
    /// `request` is the one whose Lua code runs right now.
    pub unsafe fn wait(
        &mut self,
        key: SessionKey,
        slot: Slot,
        request: NonNull<ngx_http_request_t>,
        waiter: Waiter,
    ) -> Result<(), String> {
        // once the coroutine is queued, nothing may keep it from yielding
        self.watch_waiters();
        let session = self.sessions.get_mut(key);
        let Some(op) = session.and_then(|session| session.op(slot)) else {
            return Err(Error::Closed.to_string());
        };
        // SAFETY: by this function's contract. An operation that waits is one of
        // a session that is registered with the request.
        match unsafe { op.wait(request, waiter) } {
            Wait::Queued => Ok(()),
            Wait::Refused(text) => {
                self.disconnect(key, State::Closed);
                Err(text)
            }
            Wait::Done | Wait::Declined => {
                self.disconnect(key, State::Closed);
                Err(Error::Unknown.to_string())
            }
        }
    }

    /// Takes the result of the operation that the resumed coroutine waited for.
    #[inline(always)]
    pub fn take_outcome(&mut self, key: SessionKey, slot: Slot) -> Outcome {
        fault::point();
        let session = self.sessions.get_mut(key);
        let op = session.and_then(|session| match session.op(slot) {
            Some(op) if op.has_result() => session.take_op(slot),
            _ => None,
        });
        let Some(op) = op else {
            return self.end_coroutine(key, slot);
        };
        let (outcome, semaphore) = op.into_outcome();
        self.semaphores.give(semaphore);
        if outcome.is_large() && !self.to_flush.is_empty() {
            // what others have asked for is not to wait for the making of it
            self.on_turn_end();
        }
        outcome
    }
}
