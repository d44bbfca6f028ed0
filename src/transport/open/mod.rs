//! Opening connections, and giving them their first commands.

pub mod batch;
pub mod private;
pub mod rescue;
pub mod room;
pub mod shared;
#[cfg(ngx_feature = "http_ssl")]
pub mod tls;
#[cfg(not(ngx_feature = "http_ssl"))]
#[path = "tls_absent.rs"]
pub mod tls;
