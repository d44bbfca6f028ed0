//! A connection to a server: its nginx connection and what is under way on it.
//!
//! Nothing here knows the worker's state.

pub mod address;
pub mod dial;
pub mod handlers;
#[cfg(ngx_feature = "http_ssl")]
mod handshake;
#[cfg(not(ngx_feature = "http_ssl"))]
#[path = "handshake_absent.rs"]
mod handshake;
pub mod idle;
pub mod io;
pub mod nginx_connection;
pub mod parts;
pub mod resolve;
mod shared;
pub mod sharing;
#[cfg(ngx_feature = "http_ssl")]
pub mod tls;
#[cfg(not(ngx_feature = "http_ssl"))]
#[path = "tls_absent.rs"]
pub mod tls;
pub mod unasked;
pub mod writev;

pub use nginx_connection::NgxConnection;
#[cfg(ngx_feature = "http_ssl")]
pub use parts::TlsLayer;
pub use parts::{Connection, Idle, MAX_LINE, Owner, Phase, Private};
