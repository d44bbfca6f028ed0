//! Sessions that use shared connections, or wait for one; connections that have nothing to do.

use crate::fault;
use crate::nginx::{self, Msec};
use crate::transport::connection::Connection;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, OpKey, SessionKey, SharedPoolKey};
use crate::transport::state::op::{Assignment, Stage, Work};
use crate::transport::state::outcome::{Opened, Slot};
use crate::transport::state::session::{Session, State};
use crate::transport::state::shared_pool::SharedPool;
use crate::transport::worker::Worker;
use crate::upstream::{MIN_GRACE, Usage};

impl Worker {
    pub fn attach(&mut self, key: SessionKey, shared_key: SharedPoolKey) {
        if let (Some(shared_pool), Some(session)) = (
            self.shared_pools.get_mut(shared_key),
            self.sessions.get_mut(key),
        ) {
            shared_pool.attach(shared_key, session);
        }
    }

    /// Has a session wait for a shared connection. Opening one may take as long as the longest
    /// connect timeout of the sessions that wait for it.
    pub fn wait_for_shared(
        &mut self,
        key: SessionKey,
        shared_pool: SharedPoolKey,
    ) -> Result<Opened, Error> {
        let op = self.begin(key, Slot::Reader, Work::Connect, Stage::New)?;
        match self.join_line(op, key, shared_pool) {
            Ok(()) => Ok(Opened::Pending),
            Err(error) => {
                self.take_back(key, Slot::Reader);
                Err(error)
            }
        }
    }

    /// Has a connect operation wait for a shared connection.
    pub fn join_line(
        &mut self,
        op_key: OpKey,
        key: SessionKey,
        shared_key: SharedPoolKey,
    ) -> Result<(), Error> {
        let shared_pool = self.shared_pools.get_mut(shared_key).ok_or(Error::Closed)?;
        let op = self.ops.get_mut(op_key).ok_or(Error::Closed)?;
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        let place = shared_pool.usage.joining.try_push_back(op_key);
        op.stage = Stage::Joining {
            shared_pool: shared_key,
            place: place.ok_or(Error::NoMemory)?,
        };
        session.enter(State::Connecting);
        let timeout = session.connect_timeout();
        for key in &shared_pool.connections {
            if let Some(connection) = self.connections.get_mut(*key) {
                connection.give_time_to_connect(timeout);
            }
        }
        Ok(())
    }

    /// Ends the wait of all operations for a connection, and returns them.
    pub fn end_joining(&mut self, shared_pool: SharedPoolKey) -> Vec<(OpKey, SessionKey)> {
        let shared_pool = self.shared_pools.get_mut(shared_pool);
        let joining = shared_pool.map(|shared_pool| std::mem::take(&mut shared_pool.usage.joining));
        let mut all = Vec::new();
        for key in joining.unwrap_or_default() {
            if let Some(op) = self.ops.get_mut(key) {
                op.stage = Stage::New;
                let sessions = op.waiters.sessions().iter();
                all.extend(sessions.map(|session| (key, *session)));
            }
        }
        all
    }

    /// A session uses a shared pool no more.
    #[inline(always)]
    pub fn leave(&mut self, key: SharedPoolKey) {
        if let Some(shared_pool) = self.shared_pools.get_mut(key) {
            shared_pool.usage.leave();
            self.shorten_idle_if_unused(key);
        }
    }

    /// As [`Self::leave`], after a connection could not be had.
    pub fn leave_after_failure(&mut self, key: SharedPoolKey) {
        self.leave(key);
        self.drop_unused_shared_pool(key);
    }

    /// Marks a shared connection as idle, if nothing is in flight on it.
    pub fn mark_idle(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if connection.pipeline.in_flight() > 0 || connection.is_connecting() {
            return;
        }
        let Some(sharing) = connection.sharing_mut() else {
            return;
        };
        sharing.health.rest(nginx::now());
        let shared_pool = self.shared_pools.get(sharing.shared_pool);
        let limit = shared_pool.map_or(0, |shared_pool| shared_pool.usage.idle_limit());
        connection.nginx.set_idle();
        if limit != 0 {
            connection.nginx.advance_read_timer(limit);
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
        let usage = |shared_pool: &SharedPool| Usage::is_unused(&shared_pool.usage);
        if self.shared_pools.get(key).is_some_and(usage) {
            self.shorten_idle_timeouts(key);
        }
    }

    /// Has a connection's timer call for a check of its health.
    pub fn arm_stall_check(&mut self, key: ConnectionKey, after: Msec) {
        if let Some(connection) = self.connections.get_mut(key) {
            // until somebody else uses it, its failure is no error of anybody
            connection.nginx.hush();
            connection.nginx.start_read_timer(after.max(MIN_GRACE));
        }
    }

    /// An operation is over, but its reply is still to come, if its commands were sent. What was
    /// withdrawn counts as sent if nothing before it is in flight.
    pub fn on_orphaned_reply(&mut self, assignment: &Assignment, key: SessionKey) {
        let connection = self.connections.get(assignment.connection);
        let is_awaited = |connection: &&Connection| {
            let pipeline = &connection.pipeline;
            pipeline.is_sent(assignment.first) && pipeline.oldest() <= assignment.last
        };
        let timeout = match connection.filter(is_awaited) {
            Some(connection) if connection.is_leaving() => 0, // nobody will come
            Some(_) => self.sessions.get(key).map_or(0, Session::read_timeout),
            None => return,
        };
        self.arm_stall_check(assignment.connection, timeout);
    }

    /// An operation on a shared connection timed out. If nobody waits for the oldest reply, the
    /// connection is stalled now; otherwise it will be when the older replies have come.
    pub fn on_timeout(&mut self, assignment: &Assignment) {
        let connection = self.connections.get_mut(assignment.connection);
        let sharing = connection.and_then(|connection| connection.sharing_mut());
        if let Some(sharing) = sharing {
            sharing.health.time_out(assignment.last);
            self.update_health(assignment.connection);
        }
    }

    /// The address of a shared pool's server for log lines: as cosockets write it, and as nginx
    /// does.
    pub fn peer_texts(&self, shared_pool: SharedPoolKey) -> [String; 2] {
        let address = self
            .shared_pools
            .get(shared_pool)
            .and_then(|shared_pool| shared_pool.address);
        address.map_or_else(Default::default, |mut address| {
            [address.text_and_port(), address.text()]
        })
    }

    /// Has a shared connection be flushed at the end of this iteration of the event loop.
    pub fn flush_later(&mut self, key: ConnectionKey) {
        let connection = self.connections.get_mut(key);
        let sharing = connection.and_then(|connection| connection.sharing_mut());
        if let Some(sharing) = sharing.filter(|sharing| !sharing.to_flush) {
            sharing.to_flush = true;
            self.to_flush.push(key);
            fault::point();
            self.turn_end().post();
        }
    }
}
