//! The end of sessions and connections, and who gets what is free then.

pub mod connection;
pub mod killed;
pub mod probe;
pub mod queue;
pub mod session;
pub mod shared;
pub mod wake;
pub mod write_queue;
