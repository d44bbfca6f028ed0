//! The connections of background queues: established, with replies, and in time.

use crate::nginx;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, QueueKey};
use crate::transport::state::write_queue::ConnectionState;
use crate::transport::worker::Worker;

/// How long a worker that exits waits for its queues, in milliseconds.
const EXIT_TIME: nginx::Msec = 900;

const LATE: &str = "timeout";

impl Worker {
    /// Opens the connection of a queue, and sends what waits if it is established at once.
    pub fn connect_queue(&mut self, key: QueueKey) {
        if let Some(connection) = self.open_queue(key) {
            self.after_queue_connect(key, connection);
        }
    }

    /// The name of a queue's server was looked up, or could not be.
    pub fn on_queue_resolved(&mut self, key: QueueKey) {
        if let Some(connection) = self.use_answer_for_queue(key) {
            self.after_queue_connect(key, connection);
        }
    }

    /// The connection of a queue is established.
    pub fn after_queue_connect(&mut self, key: QueueKey, connection_key: ConnectionKey) {
        let now = nginx::now();
        if let Some(queue) = self.queues.get_mut(key.0) {
            queue.established_at = now;
        }
        if let Some(connection) = self.connections.get_mut(connection_key) {
            connection.nginx.set_active();
            connection.progress.receive(now);
        }
        self.flush(connection_key);
        self.read_early(connection_key);
        self.rest_queue(key, connection_key);
    }

    /// The timer of queues has expired: checks those in which something waits.
    pub fn on_queue_tick(&mut self) {
        self.queue_timer = None;
        if nginx::is_exiting() {
            self.end_late_queues();
        }
        let mut waiting = false;
        for at in 0..self.queues.len() {
            self.check_queue(QueueKey(at));
            waiting |= self
                .queues
                .get(at)
                .is_some_and(|queue| !queue.writes.is_empty());
        }
        if waiting {
            self.keep_time_of_queues();
        }
    }

    /// The worker exits: it does not wait for long for what is queued.
    fn end_late_queues(&mut self) {
        let now = nginx::now();
        let exiting = *self.exiting_since.get_or_insert(now);
        for at in 0..self.queues.len() {
            let queue = self.queues.get(at);
            let since = queue.and_then(|queue| queue.writes.waits_since());
            if since.is_some_and(|since| now >= since.max(exiting).saturating_add(EXIT_TIME)) {
                self.give_queue_up(QueueKey(at), "the worker exits");
            }
        }
    }

    fn check_queue(&mut self, key: QueueKey) {
        let now = nginx::now();
        let Some(queue) = self.queues.get(key.0) else {
            return;
        };
        if queue.writes.is_empty() {
            return;
        }
        if let Some(connection_key) = queue.connection()
            && let Some(connection) = self.connections.get(connection_key)
            && connection.is_established()
        {
            let (pipeline, progress) = (&connection.pipeline, &connection.progress);
            let mut since = queue.established_at.max(progress.received());
            if !pipeline.is_sent(pipeline.oldest()) {
                since = since.max(progress.written());
            }
            if !queue.writes.is_late(since, now) {
                return;
            }
            self.fail_queue(connection_key, &Error::Timeout);
        }
        let late = self
            .queues
            .get(key.0)
            .map_or(0, |queue| queue.writes.late(now));
        self.drop_late_writes(key, late, LATE);
        let queue = self.queues.get(key.0);
        if queue.is_some_and(|queue| {
            matches!(queue.state, ConnectionState::Closed) && !queue.writes.is_empty()
        }) {
            self.open_queue_soon(key);
        }
    }
}
