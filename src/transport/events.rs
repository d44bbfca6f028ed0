//! nginx's handlers: where events come in.

use std::ffi::c_void;

use nginx_sys::{ngx_connection_t, ngx_event_t};

use crate::nginx;
use crate::transport::connection::Owner;
use crate::transport::connection::handlers::Handlers;
use crate::transport::ids::{Asker, ConnectionKey, SessionKey};
use crate::transport::state::errands::{Errand, Errands};
use crate::transport::worker::Worker;
use crate::transport::worker::cell::with;

/// Read and write events of all connections.
pub unsafe extern "C" fn on_connection_event(event: *mut ngx_event_t) {
    // SAFETY: nginx passes a live event of one of our connections.
    let (id, write) = unsafe { (nginx::event_id(event), (*event).write() != 0) };
    let key = ConnectionKey::from_bits(id);
    with(|worker| {
        let Some(connection) = worker.connections.get(key) else {
            return;
        };
        match connection.owner {
            Owner::Pool { .. } => worker.on_idle_event(key),
            Owner::Shared { connecting, .. } => match (connecting, write) {
                (true, _) => worker.on_shared_connected(key),
                (false, true) => worker.flush_shared(key),
                (false, false) => worker.on_shared_readable(key),
            },
            Owner::Session {
                session,
                connecting,
            } => {
                let request = worker.sessions.get(session).and_then(|s| s.request());
                if let Some(request) = request {
                    request.set_log_context();
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
pub unsafe extern "C" fn on_queue_timeout(event: *mut ngx_event_t) {
    // SAFETY: nginx passes the live event of one of our timers.
    let id = unsafe { nginx::event_id(event) };
    with(|worker| worker.on_queue_timeout(SessionKey::from_bits(id)));
}

/// Time to look for killed light threads.
pub unsafe extern "C" fn on_watch(_: *mut ngx_event_t) {
    with(Worker::on_watch);
}

/// The commands of a turn of the event loop are complete.
pub unsafe extern "C" fn on_turn_end(_: *mut ngx_event_t) {
    with(Worker::on_turn_end);
}

/// There are those who wait for room for a connection.
pub unsafe extern "C" fn on_room(_: *mut ngx_event_t) {
    run_errands();
}

/// Somebody may have waited too long on a shared connection.
pub unsafe extern "C" fn on_deadline(_: *mut ngx_event_t) {
    with(Worker::on_deadline);
}

/// The request that a session belongs to ends.
pub unsafe extern "C" fn on_request_end(data: *mut c_void) {
    with(|worker| worker.request_ended(SessionKey::from_bits(data as usize as u64)));
}

/// nginx's handshake is over, well or not.
pub unsafe extern "C" fn on_handshake(c: *mut ngx_connection_t) {
    // SAFETY: the data of a connection is its id.
    let id = unsafe { (*c).data as usize as u64 };
    with(|worker| worker.on_handshaken(ConnectionKey::from_bits(id)));
}

/// The time of those that wait for room.
pub fn run_errands() {
    let mut left = 0;
    with(|worker| left = worker.errands.waiting.len());
    for _ in 0..left {
        nginx::make_room();
        with(Worker::run_errand);
    }
}

impl Worker {
    /// Does what has waited longest, for which room was made.
    pub fn run_errand(&mut self) {
        let Some(errand) = self.errands.waiting.pop_front() else {
            return;
        };
        self.errands.granted = true;
        match errand {
            Errand::Resolved(key) => self.on_resolved(key),
            Errand::Pool(pool) => self.resume_waiting(pool),
            Errand::Queue(shared_pool) => self.serve_queue(shared_pool),
            Errand::Lost(connection, error) => self.fail_shared(connection, error),
        }
        self.errands.granted = false;
    }

    /// The cycle, whose log the event has, goes.
    pub fn finish_errands(&mut self) {
        while !self.errands.waiting.is_empty() {
            self.run_errand();
        }
        self.errands = Errands::default();
    }
}

/// A name was looked up, or could not be.
fn on_answer(asker: Asker) {
    with(|worker| match asker {
        Asker::Session(key) => worker.on_resolved(key),
        Asker::Shared(key) => worker.on_looked_up_again(key),
    });
}

/// What nginx is to call.
pub fn all() -> Handlers {
    Handlers {
        connection: on_connection_event,
        queue_timeout: on_queue_timeout,
        watch: on_watch,
        turn_end: on_turn_end,
        room: on_room,
        deadline: on_deadline,
        request_end: on_request_end,
        #[cfg(ngx_feature = "http_ssl")]
        handshake: on_handshake,
        answer: on_answer,
    }
}
