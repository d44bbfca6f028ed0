//! The nginx facilities that need a Rust interface.
//!
//! | file | subject |
//! |---|---|
//! | `log` | log lines and error texts |
//! | `peer_log` | log lines that end with a server's address |
//! | `limited` | log lines that would repeat |
//! | `request` | a request, as far as this module has to do with it |
//! | `http_block` | what the http block says, where there is no request |
//! | `timer` | timers that belong to no connection |
//! | `cycle` | global variables: the cycle, the clock, the worker's end |
//! | `module`, `conf` | modules, and a configuration that is being read |
//! | `live` | pointers to what nginx owns |
//! | `posted` | posted events |
//! | `draining` | when nginx may close idle connections to get free ones |
//! | `upstream` | `upstream` blocks and their servers |

mod conf;
mod cycle;
mod draining;
mod http_block;
mod limited;
mod live;
mod log;
mod module;
mod peer_log;
mod posted;
mod request;
mod timer;
mod upstream;

#[cfg(ngx_feature = "http_ssl")]
pub use conf::Array;
pub use conf::Conf;
pub use cycle::{current_cycle, has_events, is_exiting, is_starting, now, until_after};
pub use cycle::{seconds, worker_number};
pub use draining::{is_scarce, make_room, without_draining};
pub use http_block::HttpBlock;
pub use limited::{admit, end as end_lines, first, would_admit};
pub use live::Live;
pub use log::{Log, error_text, last_errno};
pub use module::Module;
pub use peer_log::{PeerLog, with_peer};
pub use posted::{Posted, post_next, unlink};
pub use request::Request;
pub use timer::{Msec, Timer, event_id, stop_timer};
pub use upstream::{BalancingMethod, Generation, Methods, Peers, Upstream};
