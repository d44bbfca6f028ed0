//! Bytes in, and replies to those who wait for them.

use crate::protocol::Reply;
use crate::transport::connection::io::READ_AT_ONCE;
use crate::transport::connection::{Connection, Owner};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, OpKey, SessionKey};
use crate::transport::state::op::{Work, take_data};
use crate::transport::state::outcome::Outcome;
use crate::transport::worker::Worker;
use crate::upstream::{Awaited, Verdict};
use crate::{fault, nginx};

impl Worker {
    /// Takes what has been received already and receives more, if somebody waits for it.
    #[inline(always)]
    pub fn read_if_due(&mut self, key: ConnectionKey) {
        let connection = self.connections.get(key);
        let Some(connection) = connection.filter(|connection| connection.is_established()) else {
            return;
        };
        let received = connection.has_received();
        if self.is_read(key) && (!received || self.deliver(key)) {
            self.read_while(key, true);
        }
    }

    /// Receives as long as somebody waits for bytes. All that comes later, the end of the stream
    /// included, is left for the next operation.
    #[inline(always)]
    pub fn read(&mut self, key: ConnectionKey) {
        let is_read = self.is_read(key);
        self.read_while(key, is_read);
    }

    /// Reads what has come before there was an event for it, such as the end of the stream: no event
    /// would tell.
    pub fn read_early(&mut self, key: ConnectionKey) {
        let connection = self.connections.get(key);
        if connection.is_some_and(|connection| connection.nginx.is_readable()) {
            self.read(key);
        }
    }

    /// As [`Self::read`]; `is_read` says whether somebody waits.
    #[inline(always)]
    pub fn read_while(&mut self, key: ConnectionKey, mut is_read: bool) {
        let mut read = 0;
        while read < READ_AT_ONCE && is_read {
            let Some(connection) = self.connections.get_mut(key) else {
                return;
            };
            if !connection.nginx.is_readable() {
                break;
            }
            match connection.receive() {
                None => break,
                Some(Ok(n @ 1..)) => {
                    read += n;
                    connection.progress.receive(nginx::now());
                    is_read = self.deliver(key);
                }
                Some(Ok(0)) => match self.finish_read_all(key) {
                    true => break,
                    false => return self.fail(key, Error::Closed),
                },
                Some(Err(error)) => return self.fail(key, error),
            }
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if read >= READ_AT_ONCE && connection.nginx.is_readable() {
            // there is more, for which no event would come
            connection.nginx.post_read();
        }
        if connection.nginx.arm_read().is_err() {
            self.fail(key, Error::Unknown);
        }
    }

    /// The end of the stream completes a raw read of all there is, and leaves the connection to be
    /// closed by its owner.
    pub fn finish_read_all(&mut self, key: ConnectionKey) -> bool {
        let session = self.connections.get(key).and_then(Connection::session);
        let session = session.and_then(|session| self.sessions.get(session));
        let Some(key) = session.and_then(|session| session.reads()) else {
            return false;
        };
        match self.ops.get_mut(key) {
            Some(op) if op.work.reads_all() => {
                let outcome = op.work.fail(Error::Closed, false);
                self.complete(key, outcome);
                true
            }
            _ => false,
        }
    }

    /// A read event of a connection in use, or the time of its timer.
    pub fn on_readable(&mut self, key: ConnectionKey) {
        fault::point();
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let timed_out = connection.nginx.take_read_timeout();
        let idle = connection.pipeline.in_flight() == 0;
        match &connection.owner {
            Owner::Pool(_) => {}
            Owner::Probe(_) => match connection.nginx.is_closing() {
                // worker_shutdown_timeout
                true => self.fail(key, Error::Closed),
                false => self.read(key),
            },
            Owner::Session(private) => {
                let session = private.session;
                if connection.nginx.is_aborting() {
                    // worker_shutdown_timeout
                    self.fail(key, Error::Closed);
                } else if timed_out {
                    // the timer was armed while the connection was idle in a pool
                } else {
                    // if nobody reads now, the event stays noted as ready
                    self.read_while(key, self.sessions.reads(session));
                }
            }
            owner @ (Owner::Shared(_) | Owner::Queue(_)) => {
                if connection.nginx.is_closing() {
                    // nginx closes idle connections of a worker that exits, and after
                    // worker_shutdown_timeout all
                    if connection.nginx.is_aborting() || idle {
                        self.fail(key, Error::Closed);
                    }
                } else if timed_out {
                    match *owner {
                        Owner::Queue(queue) => self.check_idle_queue(queue, key),
                        _ => self.check_health(key),
                    }
                } else if idle && connection.nginx.peek() != Err(libc::EAGAIN) {
                    // of no use any more, and no error of anybody
                    self.fail(key, Error::Closed);
                } else {
                    self.read(key);
                }
            }
        }
    }

    /// A shared connection's timer has expired: it was idle for long enough, or its oldest reply
    /// may be overdue.
    pub fn check_health(&mut self, key: ConnectionKey) {
        let awaited = self.awaited(key);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let progress = connection.progress;
        let Some(sharing) = connection.sharing_mut() else {
            return;
        };
        let shared_pool = self.shared_pools.get(sharing.shared_pool);
        let limit = shared_pool.map_or(0, |shared_pool| shared_pool.usage.idle_limit());
        match sharing
            .health
            .check(awaited, limit, &progress, nginx::now())
        {
            Verdict::Rest => {}
            Verdict::CheckAgain(after) => self.arm_stall_check(key, after),
            Verdict::Close => {
                debug_assert!(awaited == Awaited::Nothing || awaited == Awaited::None);
                self.fail(key, Error::Closed);
            }
        }
    }

    // ---- replies to those who wait for them

    /// Hands received bytes to whom they belong. Whether somebody waits for more.
    #[inline(always)]
    pub fn deliver(&mut self, key: ConnectionKey) -> bool {
        let mut before = None;
        while let Some(connection) = self.connections.get_mut(key) {
            if connection.has_unasked() {
                // the next command was not sent, and can be on another connection
                let error = connection.unasked();
                self.fail(key, error);
                return false;
            }
            let shares = connection.sharing().is_some();
            let is_private = connection.private().is_some();
            if shares && before.is_none() {
                before = Some(connection.pipeline.in_flight());
            }
            let first = shares && connection.pipeline.oldest() == 0;
            if let Some((op, reply)) = connection.pipeline.next_reply() {
                fault::point();
                connection.note_words(first, &reply);
                let broken = connection.pipeline.is_broken();
                let last = connection.pipeline.is_answered();
                self.answer(op, reply, broken);
                match last {
                    false => continue,
                    // its session has no other call that reads
                    true if is_private => return false,
                    true => {}
                }
            }
            return self.after_delivery(key, before);
        }
        false
    }

    /// All complete replies were delivered. `before`: how many exchanges were in flight before
    /// that, on a shared connection. True: somebody waits for more.
    #[inline(always)]
    pub fn after_delivery(&mut self, key: ConnectionKey, before: Option<usize>) -> bool {
        match self
            .connections
            .get(key)
            .map(|connection| &connection.owner)
        {
            Some(Owner::Session(private)) => {
                let session = private.session;
                return self.deliver_raw(key, session);
            }
            Some(Owner::Shared(_)) => self.after_replies(key, before.unwrap_or(0)),
            Some(Owner::Queue(_)) => self.after_queue_replies(key),
            Some(Owner::Probe(_)) => self.after_probe_bytes(key),
            Some(Owner::Pool(_)) | None => {}
        }
        self.is_read(key)
    }

    /// An operation gets a reply. `broken`: the connection is out of step now.
    #[inline(always)]
    pub fn answer(&mut self, key: OpKey, reply: Reply, broken: bool) {
        // if it is over, nobody waits for the reply
        let Some(op) = self.ops.get_mut(key) else {
            return;
        };
        let Some(outcome) = op.work.accept(reply) else {
            return;
        };
        match broken {
            false => self.complete(key, outcome),
            true => self.complete_broken(key, outcome),
        }
    }

    /// As [`Self::complete`]; to Lua, the connection fails as a private one would.
    #[cold]
    pub fn complete_broken(&mut self, key: OpKey, outcome: Outcome) {
        let sessions = self.waiting_for(key);
        self.complete(key, outcome);
        for session in sessions {
            self.mark_broken(session);
        }
    }

    /// Hands received bytes to a raw receive on a session's connection, if one waits for them.
    /// Whether a call of it waits for more.
    #[inline(always)]
    pub fn deliver_raw(&mut self, key: ConnectionKey, session: SessionKey) -> bool {
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        if connection.pipeline.is_broken() {
            self.fail(key, Error::Closed);
            return false;
        }
        let session = self.sessions.get(session);
        let Some(op_key) = session.and_then(|session| session.reads()) else {
            return false;
        };
        if let Some(op) = self.ops.get_mut(op_key)
            && let Work::Receive(reader) = &mut op.work
            && connection.pipeline.in_flight() == 0
        {
            if !reader.make_room(connection.pipeline.buffered().len()) {
                self.fail(key, Error::NoMemory);
                return false;
            }
            let (taken, complete) = reader.feed(connection.pipeline.buffered());
            connection.pipeline.consume(taken);
            if complete {
                if let Some(private) = connection.private_mut() {
                    private.unanswered = false;
                }
                let data = take_data(reader);
                self.complete(op_key, Outcome::Received(data));
                return self.is_read(key);
            }
        }
        true
    }

    /// Replies have come on a shared connection, which had so many exchanges in flight `before`.
    pub fn after_replies(&mut self, key: ConnectionKey, before: usize) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let in_flight = connection.pipeline.in_flight();
        let broken = connection.pipeline.is_broken();
        let unread = !connection.pipeline.buffered().is_empty();
        let more = connection.has_more_to_retry();
        let Some(sharing) = connection.sharing() else {
            return;
        };
        let (shared_pool, suspect) = (sharing.shared_pool, sharing.health.is_suspect());
        if in_flight < before
            && !broken
            && let Some(shared_pool) = self.shared_pools.get_mut(shared_pool)
        {
            shared_pool.usage.note_plaintext();
        }
        if broken || in_flight == 0 && unread {
            return self.fail(key, Error::Closed);
        }
        if in_flight < before {
            if suspect {
                self.update_health(key);
            }
            if in_flight == 0 {
                self.on_drained(key);
            } else if more {
                self.flush_later(key);
            }
            self.serve_queue(shared_pool);
        }
    }
}
