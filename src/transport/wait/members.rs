//! Sessions that use shared connections, or wait for one.

use crate::nginx::{self, Msec};
use crate::transport::connection::Owner;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, SessionKey, SharedPoolKey};
use crate::transport::state::op::{Opened, Outcome, Work};
use crate::transport::state::session::{Flight, Session, State, Waits};
use crate::transport::state::shared_pool::SharedPool;
use crate::transport::worker::Worker;

/// Least time that a connection with only discarded replies to come is given, in
/// milliseconds.
pub const MIN_GRACE: Msec = 100;

impl Worker {
    pub fn attach(&mut self, key: SessionKey, shared_key: SharedPoolKey) {
        let (Some(shared_pool), Some(session)) = (
            self.shared_pools.get_mut(shared_key),
            self.sessions.get_mut(key),
        ) else {
            return;
        };
        shared_pool.attach(shared_key, session);
    }

    /// Makes an operation of waiting for a connection.
    pub fn wait_for_shared(&mut self, key: SessionKey) -> Result<Opened, Error> {
        match self.new_op(Work::Connect) {
            Ok(op) => {
                let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
                session.reader = Some(op);
                self.limit_joining(key);
                Ok(Opened::Pending)
            }
            Err(error) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.state = State::Closed;
                }
                Err(error)
            }
        }
    }

    /// Those who wait for a connection; they do no more.
    pub fn end_joining(&mut self, shared_pool: SharedPoolKey) -> Vec<SessionKey> {
        let shared_pool = self.shared_pools.get_mut(shared_pool);
        let joining = shared_pool.map(|shared_pool| std::mem::take(&mut shared_pool.joining));
        let joining: Vec<SessionKey> = joining.unwrap_or_default().into_iter().collect();
        for key in &joining {
            if let Some(session) = self.sessions.get_mut(*key) {
                session.waits = None;
            }
        }
        joining
    }

    pub fn wait_for_connection(
        &mut self,
        key: SessionKey,
        shared_key: SharedPoolKey,
    ) -> Result<(), Error> {
        let shared_pool = self.shared_pools.get_mut(shared_key).ok_or(Error::Closed)?;
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        let place = shared_pool
            .joining
            .try_push_back(key)
            .ok_or(Error::NoMemory)?;
        session.waits = Some(Waits::Joining(place));
        session.state = State::Joining(shared_key);
        Ok(())
    }

    /// A session does not wait for a connection, or for room, any more.
    pub fn stop_waiting(&mut self, key: SessionKey, shared_pool: SharedPoolKey) {
        let session = self.sessions.get_mut(key);
        let waits = session.and_then(|session| session.waits.take());
        if let (Some(waits), Some(shared_pool)) = (waits, self.shared_pools.get_mut(shared_pool)) {
            match waits {
                Waits::Joining(place) => shared_pool.joining.remove(place),
                Waits::Queued(spot) => shared_pool.queue.remove(spot),
            };
        }
    }

    /// A session that is not there any more, or was served, is not at the head
    /// of the queue either.
    pub fn drop_from_queue(&mut self, shared_pool: SharedPoolKey, key: SessionKey) {
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_pool) {
            shared_pool.queue.drop_first(&key);
        }
    }

    /// A session uses a shared pool no more.
    #[inline(always)]
    pub fn leave(&mut self, key: SharedPoolKey) {
        if let Some(shared_pool) = self.shared_pools.get_mut(key) {
            shared_pool.users = shared_pool.users.saturating_sub(1);
            self.shorten_idle_if_unused(key);
        }
    }

    /// Nothing is in flight on a connection.
    pub fn mark_idle(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Owner::Shared { shared_pool, .. } = connection.owner else {
            return;
        };
        if connection.pipeline.in_flight() > 0 || connection.is_connecting() {
            return;
        }
        if let Some(sharing) = &mut connection.sharing {
            sharing.idle_since = nginx::now();
        }
        let keepalive = self
            .shared_pools
            .get(shared_pool)
            .map_or(0, SharedPool::idle_limit);
        connection.nginx.set_idle();
        if keepalive != 0 {
            connection.nginx.advance_read_timer(keepalive);
        }
        connection.pipeline.trim();
    }

    /// Lets connections that are idle already go sooner.
    pub fn shorten_idle_timeouts(&mut self, shared_pool: SharedPoolKey) {
        let mut at = 0;
        while let Some(shared_pool) = self.shared_pools.get(shared_pool)
            && let Some(connection) = shared_pool.connections.get(at).copied()
        {
            self.mark_idle(connection);
            at += 1;
        }
    }

    /// If nobody uses a shared pool any more, its connections may have to go sooner.
    #[inline(always)]
    pub fn shorten_idle_if_unused(&mut self, key: SharedPoolKey) {
        if self
            .shared_pools
            .get(key)
            .is_some_and(SharedPool::is_unused)
        {
            self.shorten_idle_timeouts(key);
        }
    }

    /// Has the connection's timer call [`Self::check_stalled`].
    pub fn arm_stall_check(&mut self, key: ConnectionKey, after: Msec) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        // until somebody else uses it, its failure is no error of anybody
        connection.nginx.hush();
        connection.nginx.start_read_timer(after.max(MIN_GRACE));
    }

    /// An operation is over, but its reply is still to come, if its command was
    /// sent.
    pub fn on_orphaned_reply(&mut self, flight: Flight, key: SessionKey) {
        let connection = self.connections.get(flight.connection);
        if connection.is_none_or(|connection| !connection.pipeline.is_sent(flight.first)) {
            return;
        }
        let timeout = match connection {
            // nobody will come
            Some(connection) if connection.is_leaving() => 0,
            _ => self.sessions.get(key).map_or(0, Session::read_timeout),
        };
        self.arm_stall_check(flight.connection, timeout);
    }

    /// An operation on a connection timed out. If it was the oldest, or older ones
    /// are nobody's, the connection is overdue; else it is once these have their
    /// replies.
    pub fn on_timeout(&mut self, flight: Flight) {
        let Some(connection) = self.connections.get_mut(flight.connection) else {
            return;
        };
        if let Some(sharing) = &mut connection.sharing {
            sharing.timed_out_until = sharing.timed_out_until.max(flight.last + 1);
        }
        self.update_stalled(flight.connection);
    }

    /// Ends the operation of a session's reader, if it waits.
    pub fn finish_reader(&mut self, key: SessionKey, outcome: Outcome) {
        self.clear_deadline(key);
        if let Some(op) = self.sessions.get_mut(key).and_then(|s| s.reader.as_mut()) {
            op.finish(outcome);
        }
    }
}
