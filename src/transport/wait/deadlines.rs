//! Timeouts of those who wait on shared connections: one timer for all.

use nginx_sys::ngx_cycle;

use crate::fault;
use crate::nginx::{self, Msec, Timer};
use crate::transport::connection::handlers::handlers;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, SessionKey, SharedPoolKey};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

/// Least time that nginx's timers are armed for, in milliseconds.
pub const TICK: Msec = 1;

impl Worker {
    /// Limits the time of an operation that was given to a shared connection.
    pub fn set_operation_deadline(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let timeout = session.send_timeout().min(session.read_timeout());
        self.set_deadline(key, timeout);
    }

    /// Limits the time that a session's operation takes from now on.
    pub fn set_deadline(&mut self, key: SessionKey, timeout: Msec) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let now = nginx::now();
        let ticket = self.deadlines.set(now, timeout, key);
        if let Some(old) = session.deadline.replace(ticket) {
            self.deadlines.cancel(old);
        }
        let due = now.saturating_add(timeout);
        if self.deadline_armed.is_none_or(|armed| armed > due) {
            self.arm_deadline(due);
        } else if let Some(timer) = &mut self.deadline {
            // a worker that exits waits for those who wait
            timer.set_cancelable(false);
        }
    }

    pub fn arm_deadline(&mut self, due: Msec) {
        let timer = self.deadline.get_or_insert_with(|| {
            // SAFETY: the cycle's log lives until `renew_shared_events`.
            unsafe { Timer::new(handlers().deadline, 0, (*ngx_cycle).log) }
        });
        timer.set_cancelable(false);
        // nginx does not move an armed timer by less than 300 ms
        timer.stop();
        timer.start(due.saturating_sub(nginx::now()).max(TICK));
        self.deadline_armed = Some(due);
    }

    /// An operation is over before its time.
    pub fn clear_deadline(&mut self, key: SessionKey) {
        let session = self.sessions.get_mut(key);
        if let Some(ticket) = session.and_then(|session| session.deadline.take()) {
            self.deadlines.cancel(ticket);
            self.let_worker_exit();
        }
    }

    /// The timer stays armed when nobody waits any more, but then an exiting
    /// worker does not wait for it.
    pub fn let_worker_exit(&mut self) {
        if self.deadlines.is_empty()
            && let Some(timer) = &mut self.deadline
        {
            timer.set_cancelable(true);
        }
    }

    /// Limits the time that a session waits for a connection; the connection
    /// is given as long as the one that waits longest.
    pub fn limit_joining(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let State::Joining(shared_pool) = session.state else {
            return;
        };
        let timeout = session.connect_timeout();
        let shared_pool = self.shared_pools.get(shared_pool);
        for key in shared_pool.map_or(&[][..], |shared_pool| &shared_pool.connections) {
            if let Some(connection) = self.connections.get_mut(*key) {
                connection.give_time_to_connect(timeout);
            }
        }
        self.set_deadline(key, timeout);
    }

    /// Where a shared pool's server is, for a log line: as cosockets say to where they connect,
    /// and its address.
    pub fn peer_texts(&self, shared_pool: SharedPoolKey) -> [String; 2] {
        let address = self
            .shared_pools
            .get(shared_pool)
            .and_then(|shared_pool| shared_pool.address);
        address.map_or_else(Default::default, |mut address| {
            [address.text_and_port(), address.text()]
        })
    }

    /// Has a connection be flushed when this turn of the event loop ends.
    pub fn flush_later(&mut self, key: ConnectionKey) {
        let sharing = self
            .connections
            .get_mut(key)
            .and_then(|l| l.sharing.as_mut());
        if let Some(sharing) = sharing.filter(|sharing| !sharing.to_flush) {
            sharing.to_flush = true;
            self.to_flush.push(key);
            fault::point();
            self.turn_end().post();
        }
    }

    /// The end of the stream completes a raw read of all there is, and leaves
    /// the connection to be closed by its owner.
    pub fn finish_read_all(&mut self, key: ConnectionKey) -> bool {
        match self.pending_reader(key) {
            Some(op) if op.reads_all() => {
                op.fail(Error::Closed, false);
                true
            }
            _ => false,
        }
    }
}
