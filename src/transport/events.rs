//! nginx's handlers: where events come in.

use std::ffi::c_void;

use nginx_sys::{ngx_connection_t, ngx_event_t};

use crate::nginx;
use crate::transport::connection::Owner;
use crate::transport::connection::handlers::Handlers;
use crate::transport::ids::{Asker, ConnectionKey, SessionKey};
use crate::transport::state::postponed::Postponed;
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
        if let Owner::Pool(_) = connection.owner {
            return worker.on_idle_event(key);
        }
        let connecting = connection.is_connecting();
        let session = connection
            .session()
            .and_then(|key| worker.sessions.get(key));
        if let Some(request) = session.and_then(|session| session.request()) {
            request.set_log_context();
        }
        match (connecting, write) {
            (true, _) => worker.on_connected(key),
            (false, true) => worker.on_writable(key),
            (false, false) => worker.on_readable(key),
        }
    });
}

/// Time to look for killed light threads.
pub unsafe extern "C" fn on_watch(_: *mut ngx_event_t) {
    with(Worker::on_watch);
}

/// The commands of an iteration of the event loop are complete.
pub unsafe extern "C" fn on_turn_end(_: *mut ngx_event_t) {
    with(Worker::on_turn_end);
}

/// Something waits until nginx has a connection to spare.
pub unsafe extern "C" fn on_room(_: *mut ngx_event_t) {
    go_on();
}

/// Somebody may have waited too long.
pub unsafe extern "C" fn on_deadline(_: *mut ngx_event_t) {
    with(Worker::on_deadline);
}

/// Time has passed for background queues.
pub unsafe extern "C" fn on_queue_tick(_: *mut ngx_event_t) {
    with(Worker::on_queue_tick);
}

/// A poll or a probe of the worker is due.
pub unsafe extern "C" fn on_polls(_: *mut ngx_event_t) {
    with(Worker::on_polls);
}

/// Servers are in no list any more.
pub fn on_gone(names: Vec<Box<[u8]>>) {
    with(|worker| worker.part_with_servers(names));
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

/// Goes on with everything that waits for a connection of nginx.
pub fn go_on() {
    let mut left = 0;
    with(|worker| left = worker.postponed.waiting.len());
    for _ in 0..left {
        nginx::make_room();
        with(Worker::go_on_with_next);
    }
}

impl Worker {
    /// Goes on with what has waited longest, for which there is a connection of nginx now.
    pub fn go_on_with_next(&mut self) {
        let Some(postponed) = self.postponed.waiting.pop_front() else {
            return;
        };
        self.postponed.granted = true;
        match postponed {
            Postponed::Resolved(key) => self.on_resolved(key),
            Postponed::Pool(pool) => self.resume_waiting(pool),
            Postponed::Room(shared_pool) => self.serve_queue(shared_pool),
            Postponed::Queue(queue) => self.connect_queue(queue),
            Postponed::Probe(probe) => self.connect_probe(probe),
            Postponed::Failed(connection, error) => self.fail_shared(connection, error),
        }
        self.postponed.granted = false;
    }
}

/// A name was looked up, or could not be.
fn on_answer(asker: Asker) {
    with(|worker| match asker {
        Asker::Session(key) => worker.on_resolved(key),
        Asker::Shared(key) => worker.on_looked_up_again(key),
        Asker::Queue(key) => worker.on_queue_resolved(key),
        Asker::Poll(at) => worker.on_poll_resolved(at),
    });
}

/// All handlers that nginx is to call.
pub fn all() -> Handlers {
    Handlers {
        connection: on_connection_event,
        watch: on_watch,
        turn_end: on_turn_end,
        room: on_room,
        deadline: on_deadline,
        queues: on_queue_tick,
        polls: on_polls,
        request_end: on_request_end,
        #[cfg(ngx_feature = "http_ssl")]
        handshake: on_handshake,
        answer: on_answer,
    }
}
