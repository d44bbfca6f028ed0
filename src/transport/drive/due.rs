//! Operations on shared connections whose time is over.

use crate::nginx;
use crate::transport::ids::SessionKey;
use crate::transport::log::{log_socket_error, log_timeout};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

/// Operations that time out in a turn of the event loop before others have theirs.
pub const AT_ONCE: usize = 512;

impl Worker {
    /// The timer has expired.
    pub fn on_deadline(&mut self) {
        self.deadline_armed = None;
        let now = nginx::now();
        for _ in 0..AT_ONCE {
            let Some(key) = self.deadlines.expire(now) else {
                break;
            };
            if let Some(session) = self.sessions.get_mut(key) {
                session.deadline = None;
            }
            self.on_session_due(key);
        }
        if let Some(due) = self.deadlines.next_due() {
            self.arm_deadline(due);
        }
    }

    pub fn on_session_due(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let request = session.request();
        match session.state {
            State::Joining(shared_pool) => {
                let [to, peer] = self.peer_texts(shared_pool);
                log_timeout(request, &peer, &to);
                self.time_out(key, false);
            }
            State::Shared {
                shared_pool,
                flight: Some(flight),
                ..
            } => {
                let (since, sent) = self.flight_since(flight);
                let timeout = match sent {
                    true => session.read_timeout(),
                    false => session.send_timeout(),
                };
                let (due, now) = (since.saturating_add(timeout), nginx::now());
                if due > now {
                    if sent {
                        self.note_sent(key, since);
                    }
                    return self.set_deadline(key, due - now);
                }
                let words = match sent {
                    true => "lua tcp socket read timed out",
                    false => "lua tcp socket write timed out",
                };
                let [_, peer] = self.peer_texts(shared_pool);
                log_socket_error(request, &peer, words, format_args!(""));
                self.time_out(key, !sent);
                self.on_timeout(flight);
            }
            State::Shared {
                shared_pool,
                flight: None,
                ..
            } => {
                let [_, peer] = self.peer_texts(shared_pool);
                let words = "lua tcp socket write timed out";
                log_socket_error(request, &peer, words, format_args!(""));
                self.time_out(key, true);
            }
            _ => {}
        }
    }

    /// The cycle, whose log the events have, goes.
    pub fn renew_shared_events(&mut self) {
        self.on_turn_end();
        self.turn_end = None;
        self.deadline = None;
        self.deadline_armed = None;
    }
}
