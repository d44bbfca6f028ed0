//! Policy: which operations may connect and which wait, which connection is used or closed, and
//! which deadlines expire. Pure bookkeeping over opaque ids: it knows no sockets, no clock and no
//! nginx.
//!
//! | file | subject |
//! |---|---|
//! | `pool` | one keepalive pool |
//! | `line` | a queue that can be left from anywhere |
//! | `queue` | how much may wait, and what waits for room |
//! | `rotation` | which of the shared connections takes the next commands |
//! | `progress` | since when the time limit of an operation runs |
//! | `health` | whether a shared connection takes commands, and when it is given up |
//! | `losses` | what becomes of the operations on a shared connection that failed |
//! | `deadlines` | many deadlines for one timer |
//! | `usage` | who uses a server's shared connections, and how much may wait |
//! | `spares` | how much of what is not used is kept |
//! | `rates` | how often a log line of one kind may be written |
//! | `once` | what is said once |
//! | `writes` | the writes of a background queue, and what became of them |
#![forbid(unsafe_code)]

mod deadlines;
mod health;
mod line;
mod losses;
mod once;
mod pool;
mod progress;
mod queue;
mod rates;
mod rotation;
mod spares;
mod usage;
mod writes;

pub use deadlines::{Deadlines, Ticket};
pub use health::{Awaited, Health, MIN_GRACE, Verdict, Work};
pub use line::{Line, Place};
pub use losses::{Fate, History, Loss, Rescue, Retry, losses, put_in_order};
pub use once::Once;
pub use pool::{Admission, Fitness, Pool};
pub use progress::{Position, Progress};
pub use queue::{Bounds, Queue, QueuePlace};
pub use rates::{LineKind, Rates, Suppressed};
pub use rotation::{Choice, Demand, Load, choose};
pub use spares::Spares;
pub use usage::{RETRY_DELAY, Usage};
pub use writes::{Answers, Counts, Writes};
