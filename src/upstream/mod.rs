//! Policy: who may connect, who waits, which connection is used or given up,
//! and when time is over. Pure bookkeeping over opaque ids; it knows no
//! sockets, no clock and no nginx.
//!
//! | file | subject |
//! |---|---|
//! | `pool` | one keepalive pool |
//! | `rotation` | which of the shared connections takes the next commands |
//! | `waiters` | who waits, and may leave |
//! | `deadlines` | many deadlines for one timer |
#![forbid(unsafe_code)]

mod deadlines;
mod pool;
mod rotation;
mod waiters;

pub use deadlines::{Deadlines, Ticket};
pub use pool::{Admission, Fitness, Pool};
pub use rotation::{Choice, Demand, Load, choose};
pub use waiters::{Place, Waiters};
