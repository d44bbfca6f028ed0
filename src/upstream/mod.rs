//! Policy: which operations may connect and which wait, which connection is
//! used or closed, and which deadlines expire. Pure bookkeeping over opaque
//! ids: it knows no sockets, no clock and no nginx.
//!
//! | file | subject |
//! |---|---|
//! | `pool` | one keepalive pool |
//! | `line` | a queue that can be left from anywhere |
//! | `queue` | how much may wait, and what waits for room |
//! | `rotation` | which of the shared connections takes the next commands |
//! | `deadlines` | many deadlines for one timer |
//! | `spares` | how much of what is not used is kept |
//! | `rates` | how often a log line of one kind may be written |
//! | `once` | what is said once |
#![forbid(unsafe_code)]

mod deadlines;
mod line;
mod once;
mod pool;
mod queue;
mod rates;
mod rotation;
mod spares;

pub use deadlines::{Deadlines, Ticket};
pub use line::{Line, Place};
pub use once::Once;
pub use pool::{Admission, Fitness, Pool};
pub use queue::{Bounds, Queue, Spot};
pub use rates::{Kind, Rates, Suppressed};
pub use rotation::{Choice, Demand, Load, choose};
pub use spares::Spares;
