//! Bytes out.

use crate::fault;
use crate::transport::connection::Owner;
use crate::transport::connection::io::{READ_AT_ONCE, Written};
use crate::transport::end::killed::all_wait;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, QueueKey};
use crate::transport::state::op::Work;
use crate::transport::state::outcome::Outcome;
use crate::transport::worker::Worker;

impl Worker {
    /// Sends what is to be sent, as far as the socket takes it.
    pub fn flush(&mut self, key: ConnectionKey) {
        self.flush_with(key, b"");
    }

    /// As [`Self::flush`]; `value`, unless empty, is what `Pipeline::submit_head` left to be sent.
    #[inline(always)]
    pub fn flush_with(&mut self, key: ConnectionKey, value: &[u8]) {
        match self
            .connections
            .get(key)
            .map(|connection| &connection.owner)
        {
            Some(Owner::Session(_)) => {
                if self.write_out(key, value) {
                    self.finish_sending(key);
                }
            }
            Some(Owner::Shared(_)) => {
                self.prepare_batch(key, value);
                self.write_out(key, value);
                if let Some(shared_pool) = self.count_unsent(key) {
                    self.serve_queue(shared_pool);
                }
            }
            Some(Owner::Queue(queue)) => {
                self.prepare_queue(*queue, key);
                self.write_out(key, value);
            }
            Some(Owner::Probe(_)) => {
                self.write_out(key, value);
            }
            Some(Owner::Pool(_)) | None => {}
        }
    }

    /// Sends what is unsent, with `value` behind it. True: all was sent. Before the connection is
    /// established, nothing is sent.
    #[inline(always)]
    pub fn write_out(&mut self, key: ConnectionKey, value: &[u8]) -> bool {
        let connection = self.connections.get_mut(key);
        let Some(connection) = connection.filter(|connection| connection.is_established()) else {
            return false;
        };
        if !value.is_empty()
            && let Err(error) = connection.send_with(value)
        {
            self.drop_part(key, value, &error);
            self.fail_sending(key, error);
            return false;
        }
        let armed = match connection.write() {
            Ok(Written::All) => connection.nginx.arm_write(0).map(|()| true),
            Ok(Written::Blocked) => {
                let session = connection.session().and_then(|key| self.sessions.get(key));
                let lowat = session.map_or(0, |session| session.send_lowat());
                connection.nginx.arm_write(lowat).map(|()| false)
            }
            Err(error) => Err(error),
        };
        match armed {
            Ok(all) => all,
            Err(error) => {
                self.fail_sending(key, error);
                false
            }
        }
    }

    /// A raw send, or `quit`, is over when all is sent.
    #[inline(always)]
    pub fn finish_sending(&mut self, key: ConnectionKey) {
        let session = self.connections.get(key).and_then(|c| c.session());
        let session = session.and_then(|session| self.sessions.get(session));
        let writer = session.and_then(|session| session.writer.as_ref());
        if let Some(key) = writer.and_then(|call| call.pending()) {
            let bytes = match self.ops.get(key).map(|op| &op.work) {
                Some(Work::Send { bytes }) => *bytes,
                _ => 0,
            };
            self.complete(key, Outcome::Sent(bytes));
        }
    }

    /// The commands that were collected for a shared connection are about to be sent, with `value`
    /// behind them.
    pub fn prepare_batch(&mut self, key: ConnectionKey, value: &[u8]) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let connecting = connection.is_connecting();
        let Some(sharing) = connection.sharing_mut() else {
            return;
        };
        if let Some(shared_pool) = self.shared_pools.get_mut(sharing.shared_pool)
            && shared_pool.current == Some(key)
        {
            shared_pool.current = None;
        }
        if connecting {
            return;
        }
        sharing.close_batch();
        let killed = match value {
            [] => !all_wait(connection, &self.ops, &self.sessions),
            // the operation of `value` has no waiting coroutine yet
            _ => false,
        };
        let connection = match killed {
            false => Some(connection),
            true => {
                self.disconnect_killed(key);
                self.connections.get_mut(key)
            }
        };
        let Some(connection) = connection else {
            return;
        };
        connection.pipeline.close_gaps();
        if value.is_empty() && connection.has_begun_none() {
            // nothing was asked: if something has come, the peer has closed the connection, or sent
            // what nobody asked for
            self.read_early(key);
        }
    }

    /// The writes that were collected for a queue's connection are about to be sent.
    pub fn prepare_queue(&mut self, key: QueueKey, connection_key: ConnectionKey) {
        if let Some(queue) = self.queues.get_mut(key.0) {
            queue.to_flush = false;
        }
        let Some(connection) = self.connections.get(connection_key) else {
            return;
        };
        if connection.is_established() && connection.has_begun_none() {
            // as above
            self.read_early(connection_key);
        }
    }

    /// A part of a value was sent, and there was no memory for the rest. Only whole commands can go
    /// to another connection, so the command fails.
    #[cold]
    pub fn drop_part(&mut self, key: ConnectionKey, value: &[u8], error: &Error) {
        let connection = self.connections.get_mut(key);
        let Some(connection) = connection.filter(|connection| connection.sharing().is_some())
        else {
            return;
        };
        let whole = connection.pipeline.sent_with(0, value);
        let newest = connection.pipeline.exchanges().last();
        if let Some(newest) = newest.filter(|_| !whole) {
            connection.pipeline.withdraw(newest.number);
            self.fail_op(newest.tag, error, true);
        }
    }

    /// Sending has failed. Replies that the server sent before that go to those who wait for them;
    /// then the connection fails.
    #[cold]
    pub fn fail_sending(&mut self, key: ConnectionKey, error: Error) {
        let mut read = 0;
        while read < READ_AT_ONCE
            && self.is_read(key)
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
        self.fail(key, error);
    }

    /// A write event of a connection in use.
    pub fn on_writable(&mut self, key: ConnectionKey) {
        fault::point();
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let session = connection.session();
        if session.is_some() && connection.pipeline.unsent().is_empty() {
            return;
        }
        if let Some(session) = session {
            // nothing more is sent for a light thread that was killed
            self.reap(session);
        }
        self.flush(key);
        if session.is_some() {
            self.read_if_due(key);
        }
    }

    /// Sends what was collected in this iteration of the event loop.
    pub fn on_turn_end(&mut self) {
        let mut to_flush = std::mem::take(&mut self.to_flush);
        for key in to_flush.drain(..) {
            let connection = self.connections.get_mut(key);
            if let Some(sharing) = connection.and_then(|connection| connection.sharing_mut()) {
                sharing.to_flush = false;
                fault::point();
            }
            self.flush(key);
        }
        if self.to_flush.is_empty() {
            self.to_flush = to_flush;
        }
    }
}
