//! Replies to the writes of background queues, and connections of queues that have nothing to do.

use crate::nginx;
use crate::ngx_lua::Settings;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, QueueKey};
use crate::transport::worker::Worker;

impl Worker {
    /// Replies have come.
    pub fn after_queue_replies(&mut self, connection_key: ConnectionKey) {
        let Some(connection) = self.connections.get(connection_key) else {
            return;
        };
        let Some(key) = connection.queue() else {
            return;
        };
        let in_flight = connection.pipeline.in_flight();
        let broken = connection.pipeline.is_broken();
        let unread = !connection.pipeline.buffered().is_empty();
        self.count_answers(key, in_flight);
        if broken || in_flight == 0 && unread {
            return self.fail_queue(connection_key, &Error::Closed);
        }
        self.rest_queue(key, connection_key);
    }

    /// Marks a queue's connection as idle, if nothing is in flight on it.
    pub fn rest_queue(&mut self, key: QueueKey, connection_key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return;
        };
        if connection.pipeline.in_flight() > 0 || connection.is_connecting() {
            return;
        }
        if nginx::is_exiting() {
            return self.fail_queue(connection_key, &Error::Closed);
        }
        let limit = Settings::idle_timeout_of_http();
        connection.nginx.set_idle();
        if limit != 0 {
            connection.nginx.advance_read_timer(limit);
        }
        connection.pipeline.trim();
        if let Some(queue) = self.queues.get_mut(key.0) {
            queue.idle_since = nginx::now();
        }
        self.let_worker_exit_without_queues();
    }

    /// The timer of a queue's connection has expired. It closes if it was idle for long enough.
    pub fn check_idle_queue(&mut self, key: QueueKey, connection_key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return;
        };
        if connection.pipeline.in_flight() > 0 {
            // it is armed again when there is nothing to do
            return;
        }
        let since = self.queues.get(key.0).map_or(0, |queue| queue.idle_since);
        let due = since.saturating_add(Settings::idle_timeout_of_http());
        let now = nginx::now();
        match due <= now {
            true => self.fail_queue(connection_key, &Error::Closed),
            false => connection.nginx.start_read_timer(due - now),
        }
    }
}
