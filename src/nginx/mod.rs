//! The nginx facilities that need a Rust interface.
//!
//! | file | subject |
//! |---|---|
//! | `log` | log lines and error texts |
//! | `peer_log` | log lines that end with a server's address |
//! | `limited` | log lines that would repeat |
//! | `request` | a request, as far as this module has to do with it |
//! | `http_block` | what the http block says, where there is no request |
//! | `timer` | the clock, and timers that belong to no connection |
//! | `posted` | posted events |
//! | `draining` | when nginx may close idle connections to get free ones |

mod draining;
mod http_block;
mod limited;
mod log;
mod peer_log;
mod posted;
mod request;
mod timer;

use nginx_sys::{ngx_cycle, ngx_exiting, ngx_terminate};

pub use draining::{is_scarce, make_room, without_draining};
pub use http_block::HttpBlock;
pub use limited::{admit, end as end_lines, first, would_admit};
pub use log::silent_log;
pub use log::{Log, error_text, last_errno};
pub use peer_log::{PeerLog, with_peer};
pub use posted::{Posted, post_next};
pub use request::Request;
pub use timer::{Msec, Timer, event_id, now, stop_timer, until_after};

/// Whether this process handles events, or will: nginx has made its connections.
pub fn has_events() -> bool {
    // SAFETY: nginx's global, written by this thread only.
    unsafe { ngx_cycle.as_ref() }.is_some_and(|cycle| !cycle.connections.is_null())
}

/// Whether the worker is about to end: what becomes idle is to be closed.
pub fn is_exiting() -> bool {
    // SAFETY: nginx's globals, written by this thread only.
    unsafe { ngx_exiting != 0 || ngx_terminate != 0 }
}
