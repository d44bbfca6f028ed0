//! Background queues: what is to be done with them soon, and counting.

use nginx_sys::NGX_LOG_ERR;

use crate::nginx::{self, Log, Msec, Timer};
use crate::protocol::Pipeline;
use crate::transport::connection::handlers::handlers;
use crate::transport::ids::{OpKey, QueueKey};
use crate::transport::state::op::Work;
use crate::transport::state::postponed::Postponed;
use crate::transport::state::write_queue::{ConnectionState, Tally};
use crate::transport::worker::Worker;
use crate::upstream::Answers;
use crate::upstream::LineKind;

/// How often queues are looked at in which something waits, in milliseconds.
const TICK: Msec = 50;

impl Worker {
    /// Keeps the timer of queues running while something waits in one. A worker that exits waits
    /// for it.
    pub fn keep_time_of_queues(&mut self) {
        match &mut self.queue_timer {
            Some(timer) => timer.set_cancelable(false),
            None => {
                let mut timer = Timer::new(handlers().queues, 0);
                timer.start(TICK);
                self.queue_timer = Some(timer);
            }
        }
    }

    /// Has a queue's connection be flushed at the end of this iteration of the event loop.
    pub fn flush_queue_later(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key.0) else {
            return;
        };
        if queue.to_flush {
            return;
        }
        if let ConnectionState::Open(connection) = queue.state {
            queue.to_flush = true;
            self.to_flush.push(connection);
            self.turn_end().post();
        }
    }

    /// Has a connection be opened for a queue that has none, when nginx has made room for it. If
    /// the server was away a moment ago, that waits.
    pub fn open_queue_soon(&mut self, key: QueueKey) {
        let Some(queue) = self.queues.get_mut(key.0) else {
            return;
        };
        let closed = matches!(queue.state, ConnectionState::Closed);
        if !closed || nginx::now() < queue.retry_at {
            return;
        }
        if self.postponed.waiting.try_reserve(1).is_ok() {
            queue.state = ConnectionState::Postponed;
            self.postpone(Postponed::Queue(key));
        }
    }

    /// Counts the replies that have come for a queue. `in_flight`: how many of its exchanges have
    /// no reply yet.
    pub fn count_answers(&mut self, key: QueueKey, in_flight: usize) {
        let Some(queue) = self.queues.get_mut(key.0) else {
            return;
        };
        let tally = match self.ops.get_mut(queue.op).map(|op| &mut op.work) {
            Some(Work::Background(tally)) => std::mem::take(tally),
            _ => Tally::default(),
        };
        queue.writes.answered(in_flight, tally.answers);
        if tally.answers != Answers::default() {
            self.count_queue_success(key);
        }
        if let Some(error) = tally.error {
            let n = tally.answers.refused;
            self.log_queue(key, "lua memcached queue: refused", n, &error);
        }
    }

    /// A line about writes of a queue: these words, how many, and why.
    #[cold]
    pub fn log_queue(&mut self, key: QueueKey, words: &'static str, n: u64, why: &str) {
        let Some(queue) = self.queues.get(key.0) else {
            return;
        };
        let peer = queue.peer();
        let kind = LineKind {
            words,
            about: &peer,
            level: NGX_LOG_ERR,
        };
        if nginx::admit(kind) {
            let ending = if n == 1 { "" } else { "s" };
            nginx::with_peer(Log::of_cycle(), &peer, |log| {
                log.write(
                    NGX_LOG_ERR,
                    0,
                    format_args!("{words}: {n} write{ending}: {why}"),
                );
            });
        }
    }

    /// The pipeline with the unsent writes of a queue. `None` if its connection is established.
    pub fn unsent_of_queue(&mut self, key: QueueKey) -> Option<&mut Pipeline<OpKey>> {
        let queue = self.queues.get_mut(key.0)?;
        match queue.connection() {
            None => Some(&mut queue.waiting),
            Some(connection) => {
                let connection = self.connections.get_mut(connection)?;
                connection
                    .is_connecting()
                    .then_some(&mut connection.pipeline)
            }
        }
    }

    /// An exiting worker need not wait if nothing waits in any queue.
    pub fn let_worker_exit_without_queues(&mut self) {
        if let Some(timer) = &mut self.queue_timer
            && self.queues.iter().all(|queue| queue.writes.is_empty())
        {
            timer.set_cancelable(true);
        }
    }

    /// Look-ups of servers' names end: the resolvers of the cycle go.
    pub fn end_look_ups_of_queues(&mut self) {
        for queue in &mut self.queues {
            if let ConnectionState::Resolving(_) = queue.state {
                queue.state = ConnectionState::Closed;
            }
        }
    }
}
