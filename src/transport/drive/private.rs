//! Bytes out and in on private connections.

use crate::fault;
use crate::protocol::{Malformed, Reply};
use crate::transport::connection::io::READ_AT_ONCE;
use crate::transport::connection::{Connection, Owner, ReadTimer};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, SessionKey};
use crate::transport::log::log_socket_error;
use crate::transport::state::op::{Begun, Op, Outcome, Slot, Status, Work, accept, take_data};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

/// How a round of receiving ended.
pub enum Received {
    /// Nothing more for now.
    Blocked,
    /// The connection is gone.
    Gone,
}

impl Worker {
    /// Sends what is to be sent, as far as the socket takes it.
    pub fn flush(&mut self, key: ConnectionKey) {
        self.flush_with(key, b"");
    }

    /// As [`Self::flush`]; `value`, unless empty, is what `Pipeline::submit_head`
    /// left to be sent.
    pub fn flush_with(&mut self, key: ConnectionKey, mut value: &[u8]) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        // while it is connecting, what there is to send waits
        let Owner::Session {
            session: owner,
            connecting: false,
        } = connection.owner
        else {
            return;
        };
        let Some(session) = self.sessions.get_mut(owner) else {
            return;
        };
        let result = loop {
            if !value.is_empty()
                && let Err(error) = connection.send_with(std::mem::take(&mut value))
            {
                break Err(error);
            }
            let unsent = match connection.tls {
                None => connection.pipeline.unsent(),
                Some(_) => match connection.record.next(&connection.pipeline) {
                    Some(record) => record,
                    None => break Err(Error::NoMemory),
                },
            };
            if unsent.is_empty() {
                connection.nginx.stop_write_timer();
                break connection.nginx.arm_write(0).map(|()| true);
            }
            match connection.nginx.send(unsent) {
                Ok(0) => {
                    connection.nginx.start_write_timer(session.send_timeout());
                    break connection
                        .nginx
                        .arm_write(session.send_lowat())
                        .map(|()| false);
                }
                Ok(sent) => {
                    if connection.tls.is_some() {
                        connection.record.taken(sent);
                    }
                    connection.pipeline.sent(sent);
                    fault::point();
                }
                Err(error) => break Err(error),
            }
        };
        match result {
            Ok(true) => {
                if let Some(op) = &mut session.writer {
                    let bytes = match op.work_mut() {
                        Some(Work::Send { bytes }) => *bytes,
                        _ => 0,
                    };
                    op.finish(Outcome::Sent(bytes));
                }
            }
            Ok(false) => {}
            Err(error) => self.fail_writing(key, error),
        }
    }

    /// Nothing can be sent any more, as one learns before the read event comes.
    /// What the server has said before goes to whoever waits for it first.
    #[cold]
    pub fn fail_writing(&mut self, key: ConnectionKey, error: Error) {
        let mut read = 0;
        while read < READ_AT_ONCE
            && self.pending_reader(key).is_some()
            && let Some(connection) = self.connections.get_mut(key)
            && connection.nginx.peek().is_ok_and(|n| n > 0)
        {
            connection.nginx.assume_readable();
            match connection.receive() {
                Some(Ok(n @ 1..)) => read += n,
                _ => break,
            }
            self.deliver(key);
        }
        self.fail(key, error, State::Broken { reused: 0 });
    }

    /// Takes what has been received already and arms the read event and the
    /// read timeout, if an operation waits for data.
    pub fn read_if_due(&mut self, key: ConnectionKey) {
        let connecting = self
            .connections
            .get(key)
            .is_some_and(Connection::is_connecting);
        if connecting || self.pending_reader(key).is_none() {
            return;
        }
        if self
            .connections
            .get(key)
            .is_some_and(Connection::has_received)
        {
            self.deliver(key);
        }
        if self.pending_reader(key).is_some() {
            self.read(key);
        }
    }

    /// Receives until the socket has nothing more or the operation is done.
    pub fn read(&mut self, key: ConnectionKey) {
        match self.receive_all(key) {
            Received::Gone => {}
            Received::Blocked => {
                let Some(connection) = self.connections.get_mut(key) else {
                    return;
                };
                let Owner::Session { session, .. } = connection.owner else {
                    return;
                };
                let Some(session) = self.sessions.get(session) else {
                    return;
                };
                let pending = session
                    .reader
                    .as_ref()
                    .is_some_and(|op| op.status() == Status::Pending);
                connection.read_due = None;
                if pending && connection.pipeline.unsent().is_empty() {
                    connection.limit_read(session.read_timeout());
                }
                if connection.read_due.is_none() && pending {
                    // the peer answers before it has read all: no stall
                    connection.nginx.start_write_timer(session.send_timeout());
                }
                if connection.nginx.arm_read().is_err() {
                    self.fail(key, Error::Unknown, State::Broken { reused: 0 });
                }
            }
        }
    }

    /// Receives until the socket has nothing more now, or the connection is gone.
    pub fn receive_all(&mut self, key: ConnectionKey) -> Received {
        loop {
            let Some(connection) = self.connections.get_mut(key) else {
                return Received::Gone;
            };
            if !connection.nginx.is_readable() {
                return Received::Blocked;
            }
            let error = match connection.receive() {
                None => return Received::Blocked,
                Some(Ok(0)) if self.finish_read_all(key) => return Received::Blocked,
                Some(Ok(0)) => Error::Closed,
                Some(Ok(_)) => {
                    self.deliver(key);
                    if self.pending_reader(key).is_some() {
                        continue;
                    }
                    // what else there is, an end of the stream included, is
                    // the next operation's
                    return Received::Blocked;
                }
                Some(Err(error)) => error,
            };
            self.fail(key, error, State::Broken { reused: 0 });
            return Received::Gone;
        }
    }

    /// Hands received bytes to whom they belong.
    pub fn deliver(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        while let Some((tag, reply)) = connection.pipeline.next_reply() {
            fault::point();
            if connection.pipeline.is_broken()
                && let Reply::Malformed(Malformed::Unsolicited) = reply
            {
                connection.log_unsolicited();
            }
            if let Some(op) = self
                .sessions
                .get_mut(tag.session)
                .and_then(|s| s.reader.as_mut())
            {
                accept(op, reply);
            }
        }
        if connection.pipeline.is_broken() {
            self.fail(key, Error::Closed, State::Broken { reused: 0 });
            return;
        }
        let Owner::Session { session, .. } = connection.owner else {
            return;
        };
        let op = self
            .sessions
            .get_mut(session)
            .and_then(|s| s.reader.as_mut());
        if let Some(op) = op
            && connection.pipeline.in_flight() == 0
            && let Some(Work::Receive(reader)) = op.work_mut()
        {
            if !reader.make_room(connection.pipeline.buffered().len()) {
                return self.fail(key, Error::NoMemory, State::Broken { reused: 0 });
            }
            let (taken, complete) = reader.feed(connection.pipeline.buffered());
            connection.pipeline.consume(taken);
            if complete {
                connection.unanswered = false;
                let data = take_data(reader);
                op.finish(Outcome::Received(data));
            }
        }
    }

    /// A read event of a connection in use.
    pub fn on_readable(&mut self, key: ConnectionKey) {
        fault::point();
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Owner::Session { session, .. } = connection.owner else {
            return;
        };
        let timer = connection.read_timer();
        let Some(session) = self.sessions.get_mut(session) else {
            return;
        };
        if timer == ReadTimer::Early {
            return;
        }
        if timer == ReadTimer::Expired {
            connection.read_due = None;
            log_socket_error(
                session.request(),
                connection.nginx.peer(),
                "lua tcp socket read timed out",
                format_args!(""),
            );
            // as with cosockets, a raw receive can be tried again
            match &mut session.reader {
                Some(op) if op.is_raw_receive() => op.fail(Error::Timeout, false),
                _ => self.fail(key, Error::Timeout, State::Closed),
            }
            return;
        }
        if connection.nginx.is_aborting() {
            // worker_shutdown_timeout
            self.fail(key, Error::Closed, State::Broken { reused: 0 });
            return;
        }
        if self.pending_reader(key).is_some() {
            self.read(key);
        } else if let Some(connection) = self.connections.get_mut(key) {
            // nobody reads now; the event stays noted as ready
            let _ = connection.nginx.arm_read();
        }
    }

    /// A write event of a connection in use.
    pub fn on_writable(&mut self, key: ConnectionKey) {
        fault::point();
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.nginx.has_write_timed_out() {
            if let Owner::Session { session, .. } = connection.owner {
                let request = self.sessions.get(session).and_then(|s| s.request());
                log_socket_error(
                    request,
                    connection.nginx.peer(),
                    "lua tcp socket write timed out",
                    format_args!(""),
                );
            }
            self.fail(key, Error::Timeout, State::Broken { reused: 0 });
            return;
        }
        if connection.pipeline.unsent().is_empty() {
            return;
        }
        if let Owner::Session { session, .. } = connection.owner {
            // of a light thread that was killed nothing more is sent
            self.reap(session);
        }
        self.flush(key);
        let sent = self
            .connections
            .get(key)
            .is_some_and(|connection| connection.pipeline.unsent().is_empty());
        if sent {
            self.read_if_due(key);
        }
    }

    /// Whether the operation in a slot is over already; then its result.
    pub fn begun(&mut self, key: SessionKey, slot: Slot) -> Result<Begun, Error> {
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        match session.op(slot).map(|op| op.status()) {
            Some(Status::Pending) => Ok(Begun::Waiting),
            _ => match session.take_op(slot).map(Op::into_outcome) {
                Some((outcome, semaphore)) => {
                    self.semaphores.give(semaphore);
                    match outcome {
                        Outcome::Failed(error) => Err(error),
                        outcome => Ok(Begun::Ready(outcome)),
                    }
                }
                None => Err(Error::Closed),
            },
        }
    }

    /// Tells the coroutine that waits for a connection to be connected; or sends
    /// what has waited for that, if the connection had been deferred.
    pub fn finish_connect(&mut self, key: ConnectionKey, outcome: Outcome) {
        fault::point();
        let Some(Owner::Session { session, .. }) =
            self.connections.get(key).map(|connection| connection.owner)
        else {
            return;
        };
        match self
            .sessions
            .get_mut(session)
            .and_then(|s| s.reader.as_mut())
        {
            Some(op) if op.is_connect() => op.finish(outcome),
            _ => {
                // what a killed light thread asked for is not sent
                self.reap(session);
                self.flush(key);
                self.read_if_due(key);
            }
        }
    }
}
