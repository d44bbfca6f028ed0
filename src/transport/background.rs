//! What Lua calls of background queues. They belong to no request, and are used in any phase.

use super::ids::QueueKey;
use super::state::write_queue::NotQueued;
use super::worker::cell::{has_ended, with, with_existing};
use super::{connection, events};
use crate::conf::Queueing;
use crate::nginx;
use crate::protocol::Command;
use crate::upstream::Counts;

/// Whether the process handles events, or will in a moment: `init_worker_by_lua*` comes before
/// [`super::start`].
pub fn is_running() -> bool {
    let running = nginx::has_events() && !has_ended();
    if running {
        connection::handlers::install(events::all());
    }
    running
}

/// The background queue to a server. It is made if there is none.
pub fn find_queue(host: &[u8], port: u16) -> Result<QueueKey, NotQueued> {
    match is_running() {
        true => with(|worker| worker.find_queue(b"", host, port)),
        false => Err(NotQueued::NoEventLoop),
    }
}

/// Has a background queue take a write, which is copied.
pub fn enqueue(key: QueueKey, limits: Queueing, command: &Command<'_>) -> Result<(), NotQueued> {
    match is_running() {
        true => with(|worker| worker.queue_write(key, limits, command)),
        false => Err(NotQueued::NoEventLoop),
    }
}

/// As [`enqueue`], for a server of an `upstream` block. `suspect`: it has failed before.
pub fn enqueue_for(
    upstream: &[u8],
    (host, port): (&[u8], u16),
    suspect: bool,
    limits: Queueing,
    command: &Command<'_>,
) -> Result<(), NotQueued> {
    if !is_running() {
        return Err(NotQueued::NoEventLoop);
    }
    with(|worker| {
        let key = worker.find_queue(upstream, host, port)?;
        worker.queue_write(key, limits, command)?;
        worker.suspect_server_of_queue(key, suspect);
        Ok(())
    })
}

/// How many writes wait in the queues to the servers of an `upstream` block, their bytes, and what
/// became of other writes.
pub fn upstream_counts(upstream: &[u8]) -> (usize, usize, Counts) {
    let mut counts = Default::default();
    with_existing(|worker| counts = worker.upstream_counts(upstream));
    counts
}

/// How many writes wait in a queue, their bytes, and what became of other writes. `None`: there is
/// no such queue.
pub fn queue_counts(key: QueueKey) -> Option<(usize, usize, Counts)> {
    let mut counts = None;
    with_existing(|worker| counts = worker.queue_counts(key));
    counts
}
