//! Connections on nginx's event loop: connecting, sending, receiving, and the
//! worker's keepalive pools.
//!
//! | floor | subject |
//! |---|---|
//! | `events` | nginx's handlers: where events come in |
//! | `calls` | what Lua calls |
//! | `drive` | bytes out and in, timeouts, names that are looked up again |
//! | `end` | sessions and connections end; whoever waits gets what is free then |
//! | `open` | connections are opened, and given their first commands |
//! | `wait` | who waits for what, and for how long |
//! | `worker` | the worker's state: sessions, connections and pools by their ids |
//! | `state` | what a session, an operation, a pool is |
//! | `connection` | one connection: sockets, names, TLS, bytes |
//! | `error`, `ids`, `log`, `peer`, `fallback` | what all of these name |
//!
//! Each uses what is on its own floor or below, never what is above:
//! ARCHITECTURE.md has the floors, and `scripts/audit` checks them.
//!
//! Nothing here runs Lua. A coroutine that waits is woken through its
//! semaphore, after the event handler has returned.

mod calls;
mod connection;
mod drive;
mod end;
mod error;
mod events;
mod fallback;
mod ids;
mod log;
mod open;
mod peer;
mod state;
mod wait;
mod worker;

pub use calls::room;
#[cfg(ngx_feature = "http_ssl")]
pub use connection::tls::Certificate;
pub use connection::tls::Handshake;
pub use error::{Denied, Error, KeepaliveError, Rejected};
pub use fallback::Fallback;
pub use ids::SessionKey;
pub use log::not_connected;
pub use peer::{Peer, PoolName};
pub use state::op::{Begun, Opened, Outcome, Slot, What};
pub use state::session::Timeouts;
pub use worker::Worker;
pub use worker::cell::{with, with_existing};

/// The process begins: makes the worker's state.
pub fn start() {
    connection::handlers::install(events::all());
    #[cfg(feature = "fault-injection")]
    crate::fault::when_asked(|| with(|_| ()));
    with(|_| ());
}

/// Lets go of what belongs to an nginx cycle: its log, and ngx_lua's
/// semaphores, which it would miss when the cycle ends.
pub fn forget_cycle() {
    with_existing(|worker| {
        worker.watch = None;
        worker.finish_errands();
        worker.end_renewals();
        worker.renew_shared_events();
        worker.semaphores.free_all();
    });
}

/// The process ends: everything goes, before ngx_lua counts its semaphores and
/// the module is unloaded.
pub fn shut_down() {
    worker::cell::end(|worker| {
        worker.close_all();
        worker.take_back_tls_sessions();
    });
}
