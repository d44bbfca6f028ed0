//! Bytes out and in on shared connections.

use std::rc::Rc;

use crate::protocol::{Malformed, Reply};
use crate::transport::connection::io::READ_AT_ONCE;
use crate::transport::connection::{Connection, Owner, Tag};
use crate::transport::error::Error;
use crate::transport::ids::ConnectionKey;
use crate::transport::state::op::{Outcome, Status, Work, accept};
use crate::transport::state::session::{Session, State};
use crate::transport::state::sessions::waiting;
use crate::transport::state::shared_pool::SharedPool;
use crate::transport::wait::members::MIN_GRACE;
use crate::transport::worker::Worker;
use crate::{fault, nginx};

/// A reply, to one or to several.
pub enum Delivery {
    Own(Reply),
    Common(Rc<Reply>),
}

/// Gives a session a reply. Whether its operation is done, and whether it was
/// one that the shared pool counts.
pub fn deliver_to(session: &mut Session, reply: Delivery) -> (bool, bool) {
    let Some(op) = &mut session.reader else {
        return (false, false);
    };
    match reply {
        Delivery::Own(reply) => accept(op, reply),
        Delivery::Common(reply) => {
            if let Some(Work::Command) = op.work_mut() {
                op.finish(Outcome::Common(reply));
            }
        }
    }
    let done = op.status() == Status::Done;
    let counted = match &mut session.state {
        State::Shared { flight, .. } if done => flight.take().is_some(),
        _ => false,
    };
    (done, counted)
}

impl Worker {
    /// Sends what is to be sent, as far as the socket takes it.
    pub fn flush_shared(&mut self, key: ConnectionKey) {
        self.flush_shared_with(key, b"");
    }

    /// As [`Self::flush_shared`]; `value`, unless empty, is what
    /// `Pipeline::submit_head` left to be sent.
    pub fn flush_shared_with(&mut self, key: ConnectionKey, value: &[u8]) {
        self.send_shared(key, value);
        if let Some(shared_pool) = self.count_unsent(key) {
            self.serve_queue(shared_pool);
        }
    }

    pub fn send_shared(&mut self, key: ConnectionKey, value: &[u8]) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Owner::Shared {
            shared_pool,
            connecting,
        } = connection.owner
        else {
            return;
        };
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_pool)
            && shared_pool.current == Some(key)
        {
            shared_pool.current = None;
        }
        if connecting {
            return;
        }
        if let Some(sharing) = &mut connection.sharing {
            sharing.close_batch();
        }
        if value.is_empty() {
            self.end_killed(key);
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        connection.pipeline.close_gaps();
        let pipeline = &connection.pipeline;
        let fresh = pipeline.in_flight() > 0 && !pipeline.has_begun_oldest();
        if fresh && value.is_empty() && connection.nginx.is_readable() {
            // nothing was asked: it is closed, or out of step
            self.read_shared(key);
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if !value.is_empty()
            && let Err(error) = connection.send_with(value)
        {
            // what goes to another connection must be whole
            let whole = connection.pipeline.sent_with(0, value);
            let newest = connection.pipeline.exchanges().last();
            if let Some(newest) = newest.filter(|_| !whole) {
                connection.pipeline.withdraw(newest.number);
                self.fail_operation(newest.tag, &error, true);
            }
            return self.fail_sending(key, error);
        }
        let until = connection.sends_until();
        let mut wrote = !value.is_empty();
        let result = loop {
            let unsent = match until {
                None => connection.pipeline.unsent(),
                Some(number) => connection.pipeline.unsent_before(number),
            };
            if unsent.is_empty() {
                break connection.nginx.arm_write(0);
            }
            match connection.nginx.send(unsent) {
                Ok(0) => break connection.nginx.arm_write(0),
                Ok(sent) => {
                    connection.pipeline.sent(sent);
                    wrote = true;
                }
                Err(error) => break Err(error),
            }
        };
        if wrote {
            connection.note_written();
        }
        if let Err(error) = result {
            self.fail_sending(key, error);
        }
    }

    /// Nothing can be sent any more, as one learns before the read event comes. The replies that
    /// are there go to those who wait for them first.
    pub fn fail_sending(&mut self, key: ConnectionKey, error: Error) {
        let mut read = 0;
        while read < READ_AT_ONCE
            && let Some(connection) = self.connections.get_mut(key)
        {
            connection.nginx.assume_readable();
            match connection.receive() {
                Some(Ok(n @ 1..)) => read += n,
                _ => break,
            }
            self.deliver_shared(key);
        }
        self.fail_shared(key, error);
    }

    /// Receives what there is.
    pub fn read_shared(&mut self, key: ConnectionKey) {
        let mut read = 0;
        while read < READ_AT_ONCE {
            let Some(connection) = self.connections.get_mut(key) else {
                return;
            };
            if !connection.nginx.is_readable() {
                break;
            }
            let error = match connection.receive() {
                None => break,
                Some(Ok(0)) => Error::Closed,
                Some(Ok(n)) => {
                    read += n;
                    if let Some(sharing) = &mut connection.sharing {
                        sharing.progress_at = nginx::now();
                    }
                    self.deliver_shared(key);
                    continue;
                }
                Some(Err(error)) => error,
            };
            return self.fail_shared(key, error);
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.nginx.is_readable() {
            // there is more
            connection.nginx.post_read();
        }
        if connection.nginx.arm_read().is_err() {
            self.fail_shared(key, Error::Unknown);
        }
    }

    /// Hands replies to those who wait for them.
    pub fn deliver_shared(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Owner::Shared { shared_pool, .. } = connection.owner else {
            return;
        };
        let before = connection.pipeline.in_flight();
        let mut answered = false;
        let mut over = 0;
        let unasked = loop {
            let number = connection.pipeline.oldest();
            let pipeline = &connection.pipeline;
            let unsent = pipeline.in_flight() > 0 && !pipeline.has_begun_oldest();
            if unsent && !pipeline.is_broken() && !pipeline.buffered().is_empty() {
                break true;
            }
            let Some((tag, reply)) = connection.pipeline.next_reply() else {
                break false;
            };
            let broken = connection.pipeline.is_broken();
            fault::point();
            answered |= !broken;
            if let Reply::Line(_) | Reply::Malformed(Malformed::Unsolicited) = reply {
                connection.note_words(number, &reply);
            }
            let coalesced = match &mut connection.sharing {
                Some(sharing) if !sharing.coalesced.is_empty() => sharing.take_coalesced(number),
                _ => None,
            };
            let mut deliver = |tag: Tag, reply: Delivery| {
                let Some(session) = waiting(&mut self.sessions, tag) else {
                    return;
                };
                let (done, counted) = deliver_to(session, reply);
                over += usize::from(counted);
                if done && let Some(ticket) = session.deadline.take() {
                    self.deadlines.cancel(ticket);
                }
                if broken && let State::Shared { reused, flight, .. } = session.state {
                    // as a connection of one's own would be
                    over += usize::from(flight.is_some());
                    session.state = State::Broken { reused };
                    if let Some(shared_pool) = self.shared_pools.get_mut(shared_pool) {
                        shared_pool.users = shared_pool.users.saturating_sub(1);
                    }
                }
            };
            match coalesced {
                None => deliver(tag, Delivery::Own(reply)),
                Some(coalesced) => {
                    let reply = Rc::new(reply);
                    for tag in std::iter::once(tag).chain(coalesced) {
                        deliver(tag, Delivery::Common(reply.clone()));
                    }
                }
            }
        };
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_pool) {
            shared_pool.count_out(over);
            shared_pool.known_plaintext |= answered;
        }
        self.let_worker_exit();
        if unasked {
            // the next command was not sent, and can be on another connection
            let error = self
                .connections
                .get(key)
                .map_or(Error::Closed, Connection::unasked);
            return self.fail_shared(key, error);
        }
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let idle = connection.pipeline.in_flight() == 0;
        if connection.pipeline.is_broken() || idle && !connection.pipeline.buffered().is_empty() {
            return self.fail_shared(key, Error::Closed);
        }
        if connection.pipeline.in_flight() < before {
            let more = connection.has_more_to_ask();
            if connection
                .sharing
                .as_ref()
                .is_some_and(|s| s.stalled || s.timed_out_until > 0)
            {
                self.update_stalled(key);
            }
            if idle {
                self.on_drained(key);
            } else if more {
                self.flush_later(key);
            }
            self.serve_queue(shared_pool);
        }
    }

    /// A read event, or the time of a connection's timer.
    pub fn on_shared_readable(&mut self, key: ConnectionKey) {
        fault::point();
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let timed_out = connection.nginx.take_read_timeout();
        if connection.nginx.is_closing() {
            // nginx closes idle connections of a worker that exits, and
            // after worker_shutdown_timeout all
            if connection.nginx.is_aborting() || connection.pipeline.in_flight() == 0 {
                self.fail_shared(key, Error::Closed);
            }
            return;
        }
        if timed_out {
            return self.check_stalled(key);
        }
        if connection.pipeline.in_flight() == 0 && connection.nginx.peek() != Err(libc::EAGAIN) {
            // of no use any more, and no error of anybody
            return self.fail_shared(key, Error::Closed);
        }
        self.read_shared(key);
    }

    /// Sends what was collected in this turn of the event loop.
    pub fn on_turn_end(&mut self) {
        let mut to_flush = std::mem::take(&mut self.to_flush);
        for key in to_flush.drain(..) {
            if let Some(sharing) = self
                .connections
                .get_mut(key)
                .and_then(|l| l.sharing.as_mut())
            {
                sharing.to_flush = false;
                fault::point();
            }
            self.flush_shared(key);
        }
        if self.to_flush.is_empty() {
            self.to_flush = to_flush;
        }
    }

    /// A connection's timer has expired: it was idle for long enough, or its oldest
    /// reply may be overdue.
    pub fn check_stalled(&mut self, key: ConnectionKey) {
        let orphan = self.is_nobodys(key);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Owner::Shared { shared_pool, .. } = connection.owner else {
            return;
        };
        let (Some(sharing), now) = (&mut connection.sharing, nginx::now()) else {
            return;
        };
        if connection.pipeline.in_flight() == 0 {
            let keepalive = self
                .shared_pools
                .get(shared_pool)
                .map_or(0, SharedPool::idle_limit);
            let due = sharing.idle_since.saturating_add(keepalive);
            return match keepalive {
                0 => {}
                _ if due <= now => self.fail_shared(key, Error::Closed),
                _ => self.arm_stall_check(key, due - now),
            };
        }
        if !orphan {
            // it has a deadline of its own
            return self.arm_stall_check(key, 10 * MIN_GRACE);
        }
        let due = sharing.progress_at.saturating_add(MIN_GRACE);
        if due > now {
            return self.arm_stall_check(key, due - now);
        }
        sharing.stalled = true;
        let mut tags = connection.pipeline.tags().chain(
            sharing
                .coalesced
                .values()
                .flat_map(|all| all.tags.iter().copied()),
        );
        let live = tags.any(|tag| waiting(&mut self.sessions, tag).is_some());
        drop(tags);
        if live {
            self.arm_stall_check(key, MIN_GRACE);
        } else {
            self.fail_shared(key, Error::Closed);
        }
    }
}
