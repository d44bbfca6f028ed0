//! Opening connections, and giving them their first commands.

pub mod batch;
pub mod connection;
pub mod private;
pub mod probe;
pub mod queue;
pub mod rescue;
pub mod room;
pub mod shared;
pub mod tls;
