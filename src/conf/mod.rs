//! The configuration of locations and of `upstream` blocks: this module's directives, and the SSL
//! contexts made of ngx_lua's.

mod directive;
mod loc_conf;
mod mapping;
mod multiplex;
mod queue;
mod set;
mod size;
mod time;
#[cfg(ngx_feature = "http_ssl")]
mod tls;
mod upstream;

#[cfg(ngx_feature = "http_ssl")]
pub use tls::Context;

pub use directive::{Directive, ERROR, create, set};
pub use loc_conf::{LocConf, complete, forget, merge_loc_conf, set_module};
pub use multiplex::{MAX_CONNECTIONS, Multiplex, places as multiplex_places};
pub use queue::Queueing;
pub use set::{SetMapping, SetMaxValueSize, SetMultiplex, SetQueue};
pub use upstream::{
    Current, Named, Servers, SetCheck, SetDiscover, SetFailover, SetHash, UpstreamConf,
    UpstreamError, check as check_upstreams, count_failure, count_success, forget as forget_groups,
    give_back_trial, known_number, number_of, set_module as set_upstream_module, when_servers_go,
    with_current, with_group, without_used,
};
