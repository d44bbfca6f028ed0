//! nginx's handlers: where events come in.

use std::ffi::c_void;
use std::ptr::NonNull;

use nginx_sys::{ngx_event_t, ngx_http_log_ctx_t, ngx_http_request_t};

use super::link::Owner;
use super::room;
use super::worker::{LinkKey, SessionKey, Worker, with};
use crate::nginx;

/// Read and write events of all links.
pub(super) unsafe extern "C" fn on_connection_event(event: *mut ngx_event_t) {
    // SAFETY: nginx passes a live event of one of our connections.
    let (id, write) = unsafe { (nginx::event_id(event), (*event).write() != 0) };
    let key = LinkKey::from_bits(id);
    with(|worker| {
        let Some(link) = worker.links.get(key) else {
            return;
        };
        match link.owner {
            Owner::Pool { .. } => worker.on_idle_event(key),
            Owner::Trunk { connecting, .. } => match (connecting, write) {
                (true, _) => worker.on_trunk_connected(key),
                (false, true) => worker.flush_shared(key),
                (false, false) => worker.on_shared_readable(key),
            },
            Owner::Session {
                session,
                connecting,
            } => {
                let request = worker.sessions.get(session).and_then(|s| s.request());
                if let Some(request) = request {
                    // SAFETY: the request has not ended, or the session would
                    // have been told.
                    unsafe { set_log_context(request) };
                }
                match (connecting, write) {
                    (true, _) => worker.on_connected(key),
                    (false, true) => worker.on_writable(key),
                    (false, false) => worker.on_readable(key),
                }
            }
        }
    });
}

/// A queued connect operation waited too long.
pub(super) unsafe extern "C" fn on_queue_timeout(event: *mut ngx_event_t) {
    // SAFETY: nginx passes the live event of one of our timers.
    let id = unsafe { nginx::event_id(event) };
    with(|worker| worker.on_queue_timeout(SessionKey::from_bits(id)));
}

/// Time to look for killed light threads.
pub(super) unsafe extern "C" fn on_watch(_: *mut ngx_event_t) {
    with(Worker::on_watch);
}

/// The commands of a turn of the event loop are complete.
pub(super) unsafe extern "C" fn on_turn_end(_: *mut ngx_event_t) {
    with(Worker::on_turn_end);
}

/// There are those who wait for room for a connection.
pub(super) unsafe extern "C" fn on_room(_: *mut ngx_event_t) {
    room::run_errands();
}

/// Somebody may have waited too long on a shared connection.
pub(super) unsafe extern "C" fn on_deadline(_: *mut ngx_event_t) {
    with(Worker::on_deadline);
}

/// The request that a session belongs to ends.
pub(super) unsafe extern "C" fn on_request_end(data: *mut c_void) {
    with(|worker| worker.request_ended(SessionKey::from_bits(data as usize as u64)));
}

/// Log lines written from here on tell the right (sub)request.
///
/// # Safety
///
/// `request` is live.
unsafe fn set_log_context(request: NonNull<ngx_http_request_t>) {
    // SAFETY: a connection with a descriptor is a client's, and the data of
    // its log is nginx's HTTP log context.
    unsafe {
        let connection = (*request.as_ptr()).connection;
        if (*connection).fd != -1 {
            let context = (*(*connection).log).data.cast::<ngx_http_log_ctx_t>();
            if !context.is_null() {
                (*context).current_request = request.as_ptr();
            }
        }
    }
}
