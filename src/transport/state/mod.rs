//! Sessions, their operations, and the shared connections to a server, as values.

pub mod errands;
pub mod op;
pub mod pipeline;
pub mod pool;
pub mod session;
pub mod sessions;
pub mod shared_pool;
