//! What a session, a call, an operation, a pool is.

pub mod call;
pub mod op;
pub mod outcome;
pub mod pipeline;
pub mod poll;
pub mod pool;
pub mod postponed;
pub mod session;
pub mod sessions;
pub mod shared_pool;
pub mod trial;
pub mod write_queue;
