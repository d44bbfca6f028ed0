//! The end of a session's use of shared connections, and theirs.

use crate::transport::connection::sharing::Sharing;
use crate::transport::connection::{Connection, Owner};
use crate::transport::error::{Error, Rejected};
use crate::transport::ids::{ConnectionKey, SessionKey, SharedPoolKey};
use crate::transport::log::log_refusal;
use crate::transport::open::shared::RETRY_DELAY;
use crate::transport::state::errands::Errand;
use crate::transport::state::op::{Op, Outcome, Slot, What};
use crate::transport::state::session::{Flight, State};
use crate::transport::worker::Worker;
use crate::transport::worker::exchanges::{Fate, MOST_FRUITLESS};
use crate::{fault, nginx};

impl Worker {
    /// Ends what a session has: its place in a queue, its connection, its pending
    /// operations. A coroutine that waits is told, unless its request ends.
    pub fn disconnect(&mut self, key: SessionKey, state: State) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let (State::Closed, State::Closed, None, None) =
            (&session.state, &state, &session.reader, &session.writer)
        {
            return;
        }
        let was = std::mem::replace(&mut session.state, state);
        let deadline = session.deadline.take();
        let ended = session.cleanup.is_none();
        fault::point();
        for slot in [Slot::Reader, Slot::Writer] {
            match session.op(slot) {
                None => {}
                Some(op) if !ended && op.has_waiter() => op.fail(Error::Closed, false),
                Some(_) => {
                    if let Some(op) = session.take_op(slot) {
                        self.semaphores.give(op.into_semaphore());
                    }
                }
            }
        }
        if let Some(ticket) = deadline {
            self.deadlines.cancel(ticket);
            self.let_worker_exit();
        }
        match was {
            State::Queued { pool, place, .. } => self.leave_queue(pool, place),
            State::Resolving {
                pool, shared_pool, ..
            } => {
                if let Some(pool) = pool {
                    self.release(pool);
                }
                if let Some(shared_pool) = shared_pool {
                    self.leave_shared_pool(shared_pool, key, None);
                }
            }
            State::Joining(shared_pool) => self.leave_shared_pool(shared_pool, key, None),
            State::Shared {
                shared_pool,
                flight,
                ..
            } => self.leave_shared_pool(shared_pool, key, flight),
            State::Private(connection) => self.close_connection(connection),
            State::Deferred { pool, .. } => self.release(pool),
            State::Closed | State::Broken { .. } => {}
        }
    }

    /// A session ends its use of a shared pool; its state was changed already.
    pub fn leave_shared_pool(
        &mut self,
        shared_key: SharedPoolKey,
        key: SessionKey,
        flight: Option<Flight>,
    ) {
        if let Some(session) = self.sessions.get_mut(key) {
            // what is under way is nobody's any more
            session.serial += 1;
        }
        self.stop_waiting(key, shared_key);
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_key) {
            shared_pool.count_out(usize::from(flight.is_some()));
        }
        self.leave(shared_key);
        if let Some(flight) = flight {
            self.withdraw_unsent(flight);
            fault::point();
            self.on_orphaned_reply(flight, key);
        }
        self.drop_unused_shared_pool(shared_key);
    }

    /// An operation is over, whose commands were given to a connection. A get that
    /// somebody else waits for stays. If a command was sent in part, the
    /// connection cannot go on.
    pub fn withdraw_unsent(&mut self, flight: Flight) {
        if self.is_coalesced(flight) {
            return;
        }
        let Some(connection) = self.connections.get_mut(flight.connection) else {
            return;
        };
        let Owner::Shared {
            shared_pool,
            connecting,
        } = connection.owner
        else {
            return;
        };
        let pipeline = &mut connection.pipeline;
        if pipeline.is_sent(flight.last) {
            return;
        }
        let mut from = flight.first;
        if pipeline.is_sent(from) || pipeline.has_begun(from) {
            from = from.max(pipeline.first_unsent());
            if pipeline.has_begun(from) {
                return self.fail_shared(flight.connection, Error::Closed);
            }
        }
        for number in from..=flight.last {
            pipeline.withdraw(number);
        }
        let idle = pipeline.in_flight() == 0;
        if let Some(sharing) = connection.sharing.as_mut() {
            sharing.coalesced.remove(&flight.first);
            if idle {
                sharing.retry = None;
            }
        }
        self.count_unsent(flight.connection);
        if idle && !connecting {
            self.on_drained(flight.connection);
        }
        // there is room for others
        self.serve_queue(shared_pool);
    }

    /// A connection has worked off what was in flight.
    pub fn on_drained(&mut self, key: ConnectionKey) {
        if self
            .connections
            .get(key)
            .is_some_and(Connection::is_leaving)
        {
            return self.fail_shared(key, Error::Closed);
        }
        if let Some(sharing) = self
            .connections
            .get_mut(key)
            .and_then(|l| l.sharing.as_mut())
        {
            sharing.retry = None;
            sharing.stalled = false;
        }
        if self.is_surplus(key) || nginx::is_exiting() {
            self.fail_shared(key, Error::Closed);
        } else {
            self.mark_idle(key);
        }
    }

    /// A shared connection failed. Commands that were not sent, of operations
    /// that have sent nothing, go to another connection. Reads of which nothing
    /// came are asked again, once. All others get the error.
    pub fn fail_shared(&mut self, key: ConnectionKey, error: Error) {
        if nginx::is_scarce() && self.needs_rescue(key) && self.lacks_room() {
            return self.wait_for_room(Errand::Lost(key, error));
        }
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        let Owner::Shared {
            shared_pool,
            connecting,
        } = connection.owner
        else {
            return;
        };
        let forced = connection.is_shut_down();
        let refusal = match error {
            Error::Os(_) | Error::Closed if !connecting => connection.refusal(),
            _ => None,
        };
        let refused = refusal.is_some();
        let error = refusal.map_or(error, Error::Said);
        let Connection {
            nginx,
            pipeline,
            sharing,
            ..
        } = connection;
        // another one may need its place
        drop(nginx);
        let mut sharing = sharing.map_or_else(Sharing::default, |sharing| *sharing);
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_pool) {
            if connecting {
                shared_pool.retry_at = nginx::now().saturating_add(RETRY_DELAY);
            }
            shared_pool.count_unsent(sharing.unsent, 0);
            shared_pool.connections.retain(|other| *other != key);
            if shared_pool.current == Some(key) {
                shared_pool.current = None;
            }
            if shared_pool.connections.is_empty() {
                shared_pool.sessions_served = 0;
                shared_pool.known_plaintext = false;
            }
        }
        let again = sharing.retry.take();
        let sent_before = again.is_some();
        let fruitless = match (&again, pipeline.oldest()) {
            (Some(again), 0) => again.fruitless + 1,
            _ => 0,
        };
        let error = match (connecting, again, error) {
            (true, Some(again), _) => again.error,
            // to those who have given it commands, it was connected
            (true, None, Error::Os(_)) => Error::Closed,
            (_, _, error) => error,
        };
        fault::point();
        let can_move = !forced && (!connecting || self.is_standing(shared_pool));
        let can_ask = !forced && !refused && !connecting && fruitless < MOST_FRUITLESS;
        let mut all = self.lost_on(&pipeline, &mut sharing);
        for lost in &mut all {
            lost.fate = self.fate(lost, can_move, can_ask);
        }
        // of the reads those that may spoil it for others are last
        all.sort_unstable_by_key(|l| (l.fate, l.suspect, l.is_list, *l.numbers.start()));
        self.rescue(shared_pool, &pipeline, &mut all, &error, fruitless);
        for lost in all.iter().filter(|lost| lost.fate == Fate::Fails) {
            let writing = !sent_before && !pipeline.is_sent(*lost.numbers.end());
            for tag in lost.tags() {
                self.fail_operation(tag, &error, writing);
            }
        }
        let last = self
            .shared_pools
            .get(shared_pool)
            .is_some_and(|t| t.connections.is_empty());
        if connecting && last {
            self.refuse_queue(shared_pool, &error);
        } else {
            self.serve_queue(shared_pool);
        }
        self.shorten_idle_if_unused(shared_pool);
        self.drop_unused_shared_pool(shared_pool);
    }

    /// Those who wait for room get what there is.
    pub fn serve_queue(&mut self, shared_key: SharedPoolKey) {
        while let Some(shared_pool) = self.shared_pools.get(shared_key)
            && let Some(first) = shared_pool.next_in_queue()
        {
            let op = self.sessions.get(first).and_then(|s| s.reader.as_ref());
            if op.is_none_or(Op::is_abandoned) {
                // its light thread was killed
                self.disconnect(first, State::Closed);
                self.drop_from_queue(shared_key, first);
                continue;
            }
            if nginx::is_scarce() && self.opens_for_next(shared_key) && self.lacks_room() {
                return self.wait_for_room(Errand::Queue(shared_key));
            }
            let connection = match self.connection_for_batch(shared_key, Some(first), true) {
                Ok(Some(connection)) => connection,
                Ok(None) => return,
                Err(error) => return self.refuse_queue(shared_key, &error),
            };
            self.stop_waiting(first, shared_key);
            self.drop_from_queue(shared_key, first);
            let session = self.sessions.get_mut(first);
            let op = session.and_then(|session| session.reader.as_mut());
            let Some(batch) = op.and_then(Op::unqueue) else {
                continue;
            };
            let what = What::Batch(&batch);
            let put = match self.put_on_connection(first, connection, what) {
                Err(rejected) => self.put_on_knowing(first, connection, what, rejected),
                put => put,
            };
            if let Err(rejected) = put {
                let error = match rejected {
                    // the connection to the server that it was meant for is lost
                    Rejected::Refused(_) => Error::Closed,
                    Rejected::Failed(_) => Error::Unknown,
                };
                self.finish_failed(first, &error);
            }
        }
    }

    /// An operation timed out: its session is closed, as a connection of its
    /// own would be.
    pub fn time_out(&mut self, key: SessionKey, writing: bool) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(op) = &mut session.reader {
            op.fail(Error::Timeout, writing);
        }
        let state = match session.state {
            State::Shared { reused, .. } if writing => State::Broken { reused },
            _ => State::Closed,
        };
        self.disconnect(key, state);
    }

    /// A connection takes no new work, and goes when it has worked off what it has.
    pub fn part_with(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let idle = connection.pipeline.in_flight() == 0 && !connection.is_connecting();
        if let Some(sharing) = &mut connection.sharing {
            sharing.leaving = true;
            sharing.stalled = true;
        }
        if idle {
            self.fail_shared(key, Error::Closed);
        } else if self.is_nobodys(key) {
            self.arm_stall_check(key, 0);
        }
    }

    /// Those who waited for a connection do not get one.
    pub fn refuse_joining(
        &mut self,
        shared_key: SharedPoolKey,
        connection_key: ConnectionKey,
        error: &Error,
    ) {
        let joining = self.end_joining(shared_key);
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return;
        };
        let peer = connection.address.text_and_port();
        if let (Error::Os(errno), true) = (error, joining.is_empty()) {
            // nobody is told the reason
            connection.nginx.log_error(*errno, c"connect() failed");
        }
        for key in joining {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            session.state = State::Closed;
            if let Some(request) = session.request()
                && let Some(connection) = self.connections.get_mut(connection_key)
            {
                log_refusal(&mut connection.nginx, request, error, &peer);
            }
            self.finish_reader(key, Outcome::Failed(error.clone()));
            self.leave_shared_pool(shared_key, key, None);
        }
    }
}
