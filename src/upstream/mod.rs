//! Policy: who may connect, who waits, which connection is used or given up,
//! and when time is over. Pure bookkeeping over opaque ids; it knows no
//! sockets, no clock and no nginx.
//!
//! | file | subject |
//! |---|---|
//! | `pool` | one keepalive pool |
//! | `line` | a queue that can be left from anywhere |
//! | `rotation` | which of the shared connections takes the next commands |
//! | `deadlines` | many deadlines for one timer |
#![forbid(unsafe_code)]

mod deadlines;
mod line;
mod pool;
mod rotation;

pub use deadlines::{Deadlines, Ticket};
pub use line::{Line, Place};
pub use pool::{Admission, Fitness, Pool};
pub use rotation::{Choice, Demand, Load, choose};
