//! Calls whose time is over.

use crate::nginx::{self, Request};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, OpKey, SessionKey, SharedPoolKey};
use crate::transport::log::{log_socket_error, log_timeout};
use crate::transport::state::op::{Assignment, Stage, Work};
use crate::transport::state::outcome::Slot;
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

/// Calls that time out in an iteration of the event loop before others have their turn.
const AT_ONCE: usize = 512;

const WRITE_TIMED_OUT: &str = "lua tcp socket write timed out";

impl Worker {
    /// The timer has expired.
    pub fn on_deadline(&mut self) {
        self.deadline_armed = None;
        let now = nginx::now();
        for _ in 0..AT_ONCE {
            let Some((key, slot)) = self.deadlines.expire(now) else {
                break;
            };
            let session = self.sessions.get_mut(key);
            if let Some(call) = session.and_then(|session| session.call_mut(slot)) {
                call.deadline = None;
            }
            self.on_call_due(key, slot);
        }
        if let Some(due) = self.deadlines.next_due() {
            self.arm_deadline(due);
        }
    }

    /// A call may have waited for too long.
    pub fn on_call_due(&mut self, key: SessionKey, slot: Slot) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let request = session.request();
        let Some(op_key) = session.call(slot).and_then(|call| call.pending()) else {
            return;
        };
        let Some(op) = self.ops.get(op_key) else {
            return;
        };
        match &op.stage {
            Stage::New | Stage::Resolving(_) => {}
            Stage::PoolQueue(queued) => {
                let to = format!("{}:{}", String::from_utf8_lossy(&queued.host), queued.port);
                log_socket_error(
                    request,
                    &to,
                    "lua tcp socket queued connect timed out",
                    format_args!(", when trying to connect to {to}"),
                );
                self.time_out(key, false);
            }
            Stage::Joining { shared_pool, .. } => {
                let [to, peer] = self.peer_texts(*shared_pool);
                log_timeout(request, &peer, &to);
                self.time_out(key, false);
            }
            Stage::RoomQueue { .. } => {
                let shared_pool = match session.state {
                    State::Shared { shared_pool, .. } => shared_pool,
                    _ => SharedPoolKey::default(),
                };
                let [_, peer] = self.peer_texts(shared_pool);
                log_socket_error(request, &peer, WRITE_TIMED_OUT, format_args!(""));
                self.time_out(key, true);
            }
            Stage::Assigned(assignment) => {
                let connection = self.connections.get(assignment.connection);
                let opening = connection.is_some_and(|connection| {
                    connection.is_connecting() && connection.sharing().is_none()
                });
                match (opening, &op.work) {
                    (true, _) | (_, Work::Connect) => {
                        self.on_connect_due(key, assignment.connection, request);
                    }
                    _ => self.on_assigned_due(op_key, *assignment, key, slot),
                }
            }
        }
    }

    /// A private connection is not established in time.
    pub fn on_connect_due(
        &mut self,
        key: SessionKey,
        connection: ConnectionKey,
        request: Option<Request>,
    ) {
        if let Some(connection) = self.connections.get_mut(connection)
            && connection.is_connecting()
        {
            let to = connection.address.text_and_port();
            log_timeout(request, connection.nginx.peer(), &to);
        }
        // commands that wait for it were not sent
        self.end_use(key, State::Closed, Some(&Error::Timeout), true);
    }

    /// An operation on a connection may have waited for too long.
    pub fn on_assigned_due(
        &mut self,
        op_key: OpKey,
        assignment: Assignment,
        key: SessionKey,
        slot: Slot,
    ) {
        let Some(op) = self.ops.get(op_key) else {
            return;
        };
        let Some((since, sent)) = self.waits_since(op) else {
            // its connection is gone
            return self.time_out(key, false);
        };
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let raw_receive = matches!(op.work, Work::Receive(_));
        let timeout = match sent {
            true => session.read_timeout(),
            false => session.send_timeout(),
        };
        let (due, now) = (since.saturating_add(timeout), nginx::now());
        if due > now {
            let mut after = due - now;
            if sent {
                self.account_for_sending(op_key, since);
            } else if slot == Slot::Reader {
                // when all is sent, the read timeout runs
                after = after.min(session.read_timeout().max(1));
            }
            return self.set_deadline(key, slot, after);
        }
        let words = match sent {
            true => "lua tcp socket read timed out",
            false => WRITE_TIMED_OUT,
        };
        let connection = self.connections.get(assignment.connection);
        let peer = connection.map_or("", |connection| connection.nginx.peer());
        log_socket_error(session.request(), peer, words, format_args!(""));
        if raw_receive {
            // as with cosockets, it can be tried again
            let outcome = self
                .ops
                .get_mut(op_key)
                .map(|op| op.work.fail(Error::Timeout, false));
            if let Some(outcome) = outcome {
                self.complete(op_key, outcome);
            }
            return;
        }
        let shared = matches!(session.state, State::Shared { .. });
        self.time_out(key, !sent);
        if shared {
            self.on_timeout(&assignment);
        }
    }

    /// Notes since when an operation waits, now that all of it is sent. What its connection sends
    /// from now on belongs to other operations.
    pub fn account_for_sending(&mut self, key: OpKey, since: nginx::Msec) {
        if let Some(Stage::Assigned(assignment)) = self.ops.get_mut(key).map(|op| &mut op.stage) {
            assignment.since = since;
            assignment.accounted = true;
        }
    }
}
