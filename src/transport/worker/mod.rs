//! The state of one worker process: sessions, connections and pools, found by generational ids
//! only. A stale id, in an nginx event or in a Lua object, finds nothing instead of freed memory.

pub mod assignments;
pub mod cell;
pub mod lifecycle;
pub mod pipelines;
pub mod polls;
pub mod pools;
pub mod queue_upstreams;
pub mod queues;
pub mod sessions;
pub mod shared_pools;
pub mod state;
#[cfg(ngx_feature = "http_ssl")]
pub mod tls_sessions;
#[cfg(not(ngx_feature = "http_ssl"))]
#[path = "tls_sessions_absent.rs"]
pub mod tls_sessions;
pub mod trials;

pub use state::Worker;
