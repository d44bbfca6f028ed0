//! Pool policy: who may connect, who waits, which idle connection is reused or
//! given up. Pure bookkeeping over opaque ids; it knows no sockets, no time
//! and no nginx.
#![forbid(unsafe_code)]

mod pool;

pub use pool::{Admission, Fitness, Pool};
