//! The nginx facilities that need a Rust interface.
//!
//! | file | subject |
//! |---|---|
//! | `log` | log lines and error texts |
//! | `timer` | the clock, and timers that belong to no connection |
//! | `posted` | posted events |
//! | `draining` | when nginx may close idle connections to get free ones |
//! | `upstream` | `upstream` blocks and their servers |

mod draining;
mod log;
mod posted;
mod timer;
#[allow(dead_code)]
mod upstream;

use nginx_sys::{ngx_exiting, ngx_terminate};

pub use draining::{is_scarce, make_room, without_draining};
#[cfg(ngx_feature = "http_ssl")]
pub use log::silent_log;
pub use log::{error_text, last_errno, log};
pub use posted::{Posted, post_next};
pub use timer::{Msec, Timer, event_id, now, stop_timer, until_after};
#[allow(unused_imports)]
pub use upstream::{Balancing, BalancingMethod, Generation, Methods, Peers, Stale, Upstream};

/// Whether the worker is about to end: what becomes idle is to be closed.
pub fn is_exiting() -> bool {
    // SAFETY: nginx's globals, written by this thread only.
    unsafe { ngx_exiting != 0 || ngx_terminate != 0 }
}
