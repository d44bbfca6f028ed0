//! The directives of an `upstream` block, and what a block is for: servers used as one.
//!
//! | file | subject |
//! |---|---|
//! | `conf`, `directives`, `parameters` | what the directives say, and how they are read |
//! | `servers` | the servers of a block |
//! | `current` | the group that is made of a block's servers |
//! | `known` | the groups of this worker |
//! | `check` | `lua_memcached_check` |
//! | `discover` | `lua_memcached_discover` |
//! | `rules` | what nginx -t refuses |
//! | `told` | what is said once of servers that are hardly what was meant |

mod check;
mod conf;
mod current;
mod directives;
mod discover;
mod known;
mod parameters;
mod rules;
mod servers;
mod told;

pub use conf::{UpstreamConf, set_module};
pub use current::Current;
pub use directives::{SetCheck, SetDiscover, SetFailover, SetHash};
pub use known::{
    Named, count_failure, count_success, forget, give_back_trial, known_number, number_of,
    when_servers_go, with_current, with_group, without_used,
};
pub use rules::check;
pub use servers::{Servers, UpstreamError};
