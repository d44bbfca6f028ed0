//! A trial of a disabled server that is under way.

use crate::transport::ids::SessionKey;

/// A session has a command for a disabled server, or connects to it.
pub struct Trial {
    pub session: SessionKey,
    pub upstream: Box<[u8]>,
    pub server: Box<[u8]>,
    /// When it was chosen.
    pub began: i64,
}
