//! The connection of a background queue is lost, or the time of its writes is over.

use crate::fault;
use crate::nginx;
use crate::protocol::Exchange;
use crate::transport::connection::{Owner, Phase};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, QueueKey};
use crate::transport::log::log_connect_error;
use crate::transport::open::queue::CANNOT_CONNECT;
use crate::transport::state::write_queue::{ConnectionState, new_pipeline};
use crate::transport::worker::Worker;

const LOST: &str = "lua memcached queue: lost";
const DROPPED: &str = "lua memcached queue: dropped";

impl Worker {
    /// The connection of a queue failed. What was sent, or a part of it, is lost; the rest waits
    /// for another connection.
    pub fn fail_queue(&mut self, key: ConnectionKey, error: &Error) {
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        let Owner::Queue(queue_key) = connection.owner else {
            return;
        };
        let forced = connection.nginx.is_aborting();
        let pipeline = connection.pipeline;
        let connecting = !matches!(connection.phase, Phase::Established);
        // closed first, since a new connection may need its place in nginx
        drop(connection.nginx);
        self.count_answers(queue_key, pipeline.in_flight());
        fault::point();
        let Some(queue) = self.queues.get_mut(queue_key.0) else {
            return;
        };
        let fruitless = connecting || pipeline.oldest() == 0 && pipeline.in_flight() > 0;
        queue.note_loss(nginx::now(), fruitless);
        let (mut lost, mut dropped) = (0, 0);
        if connecting {
            // nothing of it was sent
            queue.waiting = pipeline;
        } else {
            queue.waiting = new_pipeline();
            lost = pipeline.exchanges().filter(|one| one.begun).count();
            let rest = pipeline.exchanges().skip(lost);
            let adopt = |one: Exchange<_>| queue.waiting.adopt(queue.op, &pipeline, one.number);
            let kept = rest.map_while(adopt).count();
            queue.writes.lose(lost);
            if kept < queue.writes.len() {
                // without memory for one write, those behind it are dropped, too, to keep the order
                queue.waiting = new_pipeline();
                dropped = queue.writes.len();
                queue.writes.drop_first(dropped);
            }
        }
        if lost > 0 {
            self.log_queue(queue_key, LOST, lost as u64, &error.to_string());
        }
        if dropped > 0 {
            let why = Error::NoMemory.to_string();
            self.log_queue(queue_key, DROPPED, dropped as u64, &why);
        }
        if connecting || lost > 0 {
            self.count_queue_failure(queue_key, error);
        }
        if forced {
            self.give_queue_up(queue_key, "worker_shutdown_timeout is over");
        }
        if self
            .queues
            .get(queue_key.0)
            .is_some_and(|queue| !queue.writes.is_empty())
        {
            self.open_queue_soon(queue_key);
        }
        self.let_worker_exit_without_queues();
    }

    /// The connection of a queue could not be opened.
    #[cold]
    pub fn fail_queue_opening(&mut self, key: ConnectionKey, error: &Error) {
        if let Some(connection) = self.connections.get(key) {
            match error {
                Error::Os(errno) => log_connect_error(&connection.nginx, *errno),
                error => {
                    let queue = connection.queue();
                    let n = queue.and_then(|queue| self.queues.get(queue.0));
                    let n = n.map_or(0, |queue| queue.writes.len() as u64);
                    if let Some(queue) = queue {
                        self.log_queue(queue, CANNOT_CONNECT, n, &error.to_string());
                    }
                }
            }
        }
        self.fail_queue(key, error);
    }

    /// The first writes of a queue that has no connection are not sent: their time is over.
    pub fn drop_late_writes(&mut self, key: QueueKey, n: usize, why: &str) {
        let Some(pipeline) = self.unsent_of_queue(key) else {
            return;
        };
        for _ in 0..n {
            let oldest = pipeline.oldest();
            pipeline.withdraw(oldest);
        }
        if let Some(queue) = self.queues.get_mut(key.0)
            && n > 0
        {
            queue.writes.drop_first(n);
            self.log_queue(key, DROPPED, n as u64, why);
        }
    }

    /// Gives up a queue: closes its connection, and drops all its writes.
    pub fn give_queue_up(&mut self, key: QueueKey, why: &str) {
        let connection = self.queues.get(key.0).and_then(|queue| queue.connection());
        if let Some(connection) = connection {
            self.fail_queue(connection, &Error::Closed);
        }
        if let Some(queue) = self.queues.get_mut(key.0) {
            let n = queue.writes.len();
            queue.state = ConnectionState::Closed;
            queue.waiting = new_pipeline();
            queue.writes.drop_first(n);
            if n > 0 {
                self.log_queue(key, DROPPED, n as u64, why);
            }
        }
    }

    /// The worker ends. What can be sent without waiting is sent; how many writes have no reply is
    /// logged.
    pub fn end_queues(&mut self) {
        for at in 0..self.queues.len() {
            let key = QueueKey(at);
            let connection = self.queues.get(at).and_then(|queue| queue.connection());
            if let Some(connection) = connection
                && let Some(connection) = self.connections.get_mut(connection)
                && connection.is_established()
            {
                // the connection goes, whatever comes of it
                let _ = connection.write();
            }
            self.give_queue_up(key, "the worker ends");
        }
        self.queue_timer = None;
    }
}
