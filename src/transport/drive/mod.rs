//! Bytes out and in, connections that are established, time limits that are over.

pub mod due;
pub mod established;
pub mod probe;
pub mod probe_answers;
pub mod queue;
pub mod queue_replies;
pub mod read;
pub mod renew;
pub mod write;
