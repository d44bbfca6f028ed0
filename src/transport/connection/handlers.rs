//! The functions that nginx calls on events. They are in `events`, above this floor, which sets
//! them here when the process begins. So no file below has to use `events`.

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
    /// Something waits until nginx has a connection to spare.
    pub room: OnEvent,
    /// Somebody may have waited too long.
    pub deadline: OnEvent,
    /// Time has passed for background queues.
    pub queues: OnEvent,
    /// A poll or a probe of the worker is due.
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

/// Sets the handlers. Only the first call counts.
pub fn install(handlers: Handlers) {
    // all calls bring the same handlers
    HANDLERS.get_or_init(|| handlers);
}

/// The handlers that were set.
#[inline(always)]
pub fn handlers() -> &'static Handlers {
    HANDLERS.get().unwrap_or(&NONE)
}

/// Used until the process begins, when nothing is open.
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
