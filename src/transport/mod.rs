//! Connections on nginx's event loop: connecting, sending, receiving, and the
//! worker's keepalive pools.
//!
//! | file | subject |
//! |---|---|
//! | `worker` | the worker's state and its generational ids |
//! | `session` | a Lua object's side: its state, its end, its results |
//! | `access` | whose a session is, and whether it is busy |
//! | `sessions` | where sessions are, and their memory |
//! | `killed` | light threads that are killed while they wait |
//! | `op` | what a coroutine waits for, and its result |
//! | `link` | one connection and the exchanges under way on it |
//! | `address` | hosts and ports to socket addresses |
//! | `resolve` | names to addresses |
//! | `connect` | a pool's admission and its queue |
//! | `open` | opening a connection |
//! | `room` | which nginx makes for it |
//! | `tls` | on which connection a TLS handshake is done |
//! | `handshake` | OpenSSL's part of it, and TLS identities |
//! | `submit` | commands and raw data, begun on behalf of a request |
//! | `io` | bytes out and in, timeouts, failures |
//! | `unasked` | what a server says without being asked |
//! | `gather` | sending a large value without copying it |
//! | `keepalive` | idle connections |
//! | `shared` | connections that many sessions share |
//! | `contain` | what is left after a panic |
//! | `events` | nginx's handlers: where events come in |
//! | `error` | why an operation failed |
//!
//! Nothing here runs Lua. A coroutine that waits is woken through its
//! semaphore, after the event handler has returned.

mod access;
mod address;
mod connect;
mod contain;
mod error;
mod events;
mod gather;
#[cfg(ngx_feature = "http_ssl")]
mod handshake;
#[cfg(not(ngx_feature = "http_ssl"))]
#[path = "handshake_absent.rs"]
mod handshake;
mod io;
mod keepalive;
mod killed;
mod link;
mod op;
mod open;
mod resolve;
pub mod room;
mod session;
mod sessions;
mod shared;
mod submit;
#[cfg(ngx_feature = "http_ssl")]
mod tls;
#[cfg(not(ngx_feature = "http_ssl"))]
#[path = "tls_absent.rs"]
mod tls;
mod unasked;
mod worker;

pub use connect::{Peer, PoolName};
pub use contain::Fallback;
pub use error::Error;

pub use access::Denied;
#[cfg(ngx_feature = "http_ssl")]
pub use handshake::Certificate;
pub use handshake::Handshake;
pub use keepalive::KeepaliveError;
pub use op::{Begun, Outcome, Slot};
pub use open::Opened;
pub use session::Timeouts;
pub use submit::{Rejected, What, not_connected};
pub use worker::{SessionKey, Worker, with, with_existing};

/// The process begins: makes the worker's state.
pub fn start() {
    with(|_| ());
}

/// Lets go of what belongs to an nginx cycle: its log, and ngx_lua's
/// semaphores, which it would miss when the cycle ends.
pub fn forget_cycle() {
    with_existing(|worker| {
        worker.watch = None;
        worker.finish_errands();
        worker.renew_shared_events();
        worker.semaphores.free_all();
    });
}

/// The process ends: everything goes, before ngx_lua counts its semaphores and
/// the module is unloaded.
pub fn shut_down() {
    worker::end(|worker| {
        worker.close_all();
        worker.take_back_tls_sessions();
    });
}
