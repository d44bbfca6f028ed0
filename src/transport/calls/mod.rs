//! What Lua calls.

pub mod access;
pub mod attach;
pub mod connect;
#[cfg(ngx_feature = "http_ssl")]
pub mod handshake;
#[cfg(not(ngx_feature = "http_ssl"))]
#[path = "handshake_absent.rs"]
pub mod handshake;
pub mod keepalive;
pub mod queue_write;
pub mod room;
pub mod submit;
pub mod suspend;
