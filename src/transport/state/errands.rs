//! What waits for room for a connection.

use std::collections::VecDeque;

use crate::nginx::Posted;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, PoolKey, SessionKey, SharedPoolKey};

/// What waits for room.
pub enum Errand {
    /// A session whose server's name was looked up.
    Resolved(SessionKey),
    /// A pool with operations that wait for a connection.
    Pool(PoolKey),
    /// A shared pool with operations that wait for room there.
    Queue(SharedPoolKey),
    /// A shared connection that failed, and why. Its commands may need another.
    Lost(ConnectionKey, Error),
}

/// All that waits for room.
#[derive(Default)]
pub struct Errands {
    /// Longest waiting first.
    pub waiting: VecDeque<Errand>,
    pub event: Option<Posted>,
    /// Room was made for one connection.
    pub granted: bool,
}
