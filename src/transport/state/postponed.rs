//! What waits until nginx has a connection to spare.

use std::collections::VecDeque;

use crate::nginx::Posted;
use crate::transport::error::Error;
use crate::transport::ids::ProbeKey;
use crate::transport::ids::{ConnectionKey, PoolKey, QueueKey, SessionKey, SharedPoolKey};

/// What will open a connection.
pub enum Postponed {
    /// A session whose server's name was looked up.
    Resolved(SessionKey),
    /// A pool with operations that wait for a place.
    Pool(PoolKey),
    /// A shared pool with operations that wait for room.
    Room(SharedPoolKey),
    /// A background queue in which something waits.
    Queue(QueueKey),
    /// A question that the worker asks by itself.
    Probe(ProbeKey),
    /// A shared connection that failed, and why. Its commands may need another.
    Failed(ConnectionKey, Error),
}

/// All that waits for a connection of nginx.
#[derive(Default)]
pub struct PostponedQueue {
    /// Longest waiting first.
    pub waiting: VecDeque<Postponed>,
    pub event: Option<Posted>,
    /// There is a connection to spare for the one that goes on now.
    pub granted: bool,
}
