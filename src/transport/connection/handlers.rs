//! What nginx calls when something happens to what is opened here. The functions are above, in
//! `events`, and are told once, when the process begins: so nothing below has to know what is
//! above.

use std::ffi::c_void;
use std::sync::OnceLock;

#[cfg(ngx_feature = "http_ssl")]
use nginx_sys::ngx_connection_t;
use nginx_sys::ngx_event_t;

use crate::transport::ids::Asker;

/// A handler of an event.
pub type OnEvent = unsafe extern "C" fn(*mut ngx_event_t);

/// All handlers.
pub struct Handlers {
    /// Read and write events of connections.
    pub connection: OnEvent,
    /// Time to look for killed light threads.
    pub watch: OnEvent,
    /// The commands of an iteration of the event loop are complete.
    pub turn_end: OnEvent,
    /// Somebody waits for a connection of nginx.
    pub room: OnEvent,
    /// Somebody may have waited too long.
    pub deadline: OnEvent,
    /// Time has passed for background queues.
    pub queues: OnEvent,
    /// The worker is to ask something by itself.
    pub polls: OnEvent,
    /// The request that a session belongs to ends.
    pub request_end: unsafe extern "C" fn(*mut c_void),
    /// A TLS handshake is over, well or not.
    #[cfg(ngx_feature = "http_ssl")]
    pub handshake: unsafe extern "C" fn(*mut ngx_connection_t),
    /// A name was looked up, or could not be.
    pub answer: fn(Asker),
}

static HANDLERS: OnceLock<Handlers> = OnceLock::new();

/// Tells the handlers. Only the first time counts.
pub fn install(handlers: Handlers) {
    // there is one set of them
    HANDLERS.get_or_init(|| handlers);
}

/// The handlers that were told.
#[inline(always)]
pub fn handlers() -> &'static Handlers {
    HANDLERS.get().unwrap_or(&NONE)
}

/// Before a process begins nothing is opened.
static NONE: Handlers = Handlers {
    connection: ignore,
    watch: ignore,
    turn_end: ignore,
    room: ignore,
    deadline: ignore,
    queues: ignore,
    polls: ignore,
    request_end: ignore,
    #[cfg(ngx_feature = "http_ssl")]
    handshake: ignore,
    answer: |_| (),
};

unsafe extern "C" fn ignore<T>(_: *mut T) {}
