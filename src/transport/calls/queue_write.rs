//! Writes that nobody waits for: they are taken by a background queue.

use crate::conf::Queueing;
use crate::fault;
use crate::nginx;
use crate::protocol::Command;
use crate::reserve::MEMORY;
use crate::transport::error::Error;
use crate::transport::ids::QueueKey;
use crate::transport::state::write_queue::{ConnectionState, MAX_QUEUES, NotQueued, WriteQueue};
use crate::transport::worker::Worker;
use crate::upstream::Counts;

impl Worker {
    /// The queue to a server, which is made if there is none. There is one for each combination of
    /// `upstream`, host and port, as they are given. `upstream` is empty for a server outside of a
    /// block.
    pub fn find_queue(
        &mut self,
        upstream: &[u8],
        host: &[u8],
        port: u16,
    ) -> Result<QueueKey, NotQueued> {
        let same = |queue: &WriteQueue| {
            queue.port == port && *queue.host == *host && *queue.upstream == *upstream
        };
        if let Some(at) = self.queues.iter().position(same) {
            return Ok(QueueKey(at));
        }
        if self.queues.len() >= MAX_QUEUES {
            let at = self.queues.iter().position(WriteQueue::is_done_with);
            let queue = at.and_then(|at| Some((at, self.queues.get_mut(at)?)));
            let (at, queue) = queue.ok_or(NotQueued::TooMany)?;
            *queue = WriteQueue::new(upstream, host, port, queue.op);
            return Ok(QueueKey(at));
        }
        let room = self.queues.try_reserve(1).is_ok() && self.ops.try_reserve(1).is_ok();
        if !MEMORY.fill() || !room {
            return Err(Error::NoMemory.into());
        }
        let op = self.new_background_op();
        self.queues.push(WriteQueue::new(upstream, host, port, op));
        Ok(QueueKey(self.queues.len() - 1))
    }

    /// Has a queue take a write, which is copied. It is sent at the end of this iteration of the
    /// event loop, or when there is a connection.
    pub fn queue_write(
        &mut self,
        key: QueueKey,
        limits: Queueing,
        command: &Command<'_>,
    ) -> Result<(), NotQueued> {
        fault::point();
        let queue = self.queues.get_mut(key.0).ok_or(Error::Closed)?;
        if !queue.writes.admit(limits.bounds) {
            return Err(NotQueued::Full);
        }
        if !MEMORY.fill() || !queue.writes.make_room() {
            return Err(Error::NoMemory.into());
        }
        let now = nginx::now();
        let connection = match queue.state {
            ConnectionState::Open(connection) => self.connections.get_mut(connection),
            _ => None,
        };
        let (pipeline, nginx) = match connection {
            Some(connection) => (&mut connection.pipeline, Some(&mut connection.nginx)),
            None => (&mut queue.waiting, None),
        };
        let before = pipeline.unsent_len();
        let submitted = pipeline.submit(queue.op, command);
        submitted.map_err(NotQueued::Refused)?;
        let size = pipeline.unsent_len().saturating_sub(before);
        queue.writes.add(now, limits.timeout, size);
        fault::point();
        match nginx {
            Some(nginx) => {
                nginx.set_active();
                self.flush_queue_later(key);
            }
            None => self.open_queue_soon(key),
        }
        self.keep_time_of_queues();
        Ok(())
    }

    /// How many writes wait in a queue, their bytes, and what became of others.
    pub fn queue_counts(&self, key: QueueKey) -> Option<(usize, usize, Counts)> {
        let writes = &self.queues.get(key.0)?.writes;
        Some((writes.len(), writes.size(), writes.counts()))
    }
}
