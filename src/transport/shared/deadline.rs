//! Timeouts of those who wait on shared connections: one timer for all.

use nginx_sys::ngx_cycle;

use super::{Flight, open};
use crate::nginx::{self, Msec, Timer};
use crate::transport::Error;
use crate::transport::events::on_deadline;
use crate::transport::io::log_socket_error;
use crate::transport::op::Outcome;
use crate::transport::session::State;
use crate::transport::worker::{SessionKey, TrunkKey, Worker};

/// Least time that nginx's timers are armed for, in milliseconds.
const TICK: Msec = 1;

impl Worker {
    /// Limits the time of an operation that was given to a shared connection.
    pub(super) fn set_operation_deadline(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let timeout = session.send_timeout().min(session.read_timeout());
        self.set_deadline(key, timeout);
    }

    /// Limits the time that a session's operation takes from now on.
    pub(super) fn set_deadline(&mut self, key: SessionKey, timeout: Msec) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let now = nginx::now();
        let ticket = self.deadlines.set(now, timeout, key);
        if let Some(old) = session.deadline.replace(ticket) {
            self.deadlines.cancel(old);
        }
        let due = now.saturating_add(timeout);
        if self.deadline_armed.is_none_or(|armed| armed > due) {
            self.arm_deadline(due);
        } else if let Some(timer) = &mut self.deadline {
            // a worker that exits waits for those who wait
            timer.set_cancelable(false);
        }
    }

    fn arm_deadline(&mut self, due: Msec) {
        let timer = self.deadline.get_or_insert_with(|| {
            // SAFETY: the cycle's log lives until `renew_shared_events`.
            unsafe { Timer::new(on_deadline, 0, (*ngx_cycle).log) }
        });
        timer.set_cancelable(false);
        // nginx does not move an armed timer by less than 300 ms
        timer.stop();
        timer.start(due.saturating_sub(nginx::now()).max(TICK));
        self.deadline_armed = Some(due);
    }

    /// An operation is over before its time.
    pub(super) fn clear_deadline(&mut self, key: SessionKey) {
        let session = self.sessions.get_mut(key);
        if let Some(ticket) = session.and_then(|session| session.deadline.take()) {
            self.deadlines.cancel(ticket);
            self.ease_deadline();
        }
    }

    /// The timer stays armed when nobody waits any more, but then an exiting
    /// worker does not wait for it.
    pub(in crate::transport) fn ease_deadline(&mut self) {
        if self.deadlines.is_empty()
            && let Some(timer) = &mut self.deadline
        {
            timer.set_cancelable(true);
        }
    }

    /// The timer has expired.
    pub(in crate::transport) fn on_deadline(&mut self) {
        self.deadline_armed = None;
        let now = nginx::now();
        while let Some(key) = self.deadlines.expire(now) {
            if let Some(session) = self.sessions.get_mut(key) {
                session.deadline = None;
            }
            self.on_session_due(key);
        }
        if let Some(due) = self.deadlines.next_due() {
            self.arm_deadline(due);
        }
    }

    fn on_session_due(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let request = session.request();
        match session.state {
            State::Joining(trunk) => {
                open::log_timeout(request, &self.peer_text(trunk));
                self.give_up(key, false);
            }
            State::Attached {
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
                let what = if sent { "read" } else { "write" };
                log_socket_error(request, format_args!("lua tcp socket {what} timed out"));
                self.give_up(key, !sent);
                self.suspect(flight);
            }
            State::Attached { flight: None, .. } => {
                log_socket_error(request, format_args!("lua tcp socket write timed out"));
                self.give_up(key, true);
            }
            _ => {}
        }
    }

    /// Since when the time of an operation under way runs, and whether it was
    /// sent: before it was, the send timeout counts, and then the read timeout.
    /// They start again with each part of the command and of the reply.
    fn flight_since(&self, flight: Flight) -> (Msec, bool) {
        let link = self.links.get(flight.link);
        let Some((link, sharing)) = link.and_then(|link| Some((link, link.sharing.as_ref()?)))
        else {
            // it waits for another link
            return (flight.since, false);
        };
        let pipeline = &link.pipeline;
        let sent = pipeline.is_sent(flight.last);
        let held = flight.last >= sharing.held.from && !flight.sent;
        let since = if held && (sent || pipeline.has_begun(flight.first)) {
            flight.since.max(sharing.held.written)
        } else {
            flight.since
        };
        let oldest = pipeline.oldest();
        let arriving = (flight.first..=flight.last).contains(&oldest)
            && (oldest > flight.first || pipeline.is_amid_reply());
        match sent && arriving {
            true => (since.max(sharing.progress), sent),
            false => (since, sent),
        }
    }

    /// What a connection sends from now on is not that of this operation.
    fn note_sent(&mut self, key: SessionKey, at: Msec) {
        let session = self.sessions.get_mut(key);
        if let Some(State::Attached {
            flight: Some(flight),
            ..
        }) = session.map(|session| &mut session.state)
        {
            flight.since = at;
            flight.sent = true;
        }
    }

    /// An operation timed out: its session is closed, as a connection of its
    /// own would be.
    fn give_up(&mut self, key: SessionKey, writing: bool) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(op) = &mut session.reader {
            op.fail(Error::Timeout, writing);
        }
        let state = match session.state {
            State::Attached { reused, .. } if writing => State::Broken { reused },
            _ => State::Closed,
        };
        self.disconnect(key, state);
    }

    /// Ends the operation of a session's reader, if it waits.
    pub(super) fn finish_reader(&mut self, key: SessionKey, outcome: Outcome) {
        self.clear_deadline(key);
        if let Some(op) = self.sessions.get_mut(key).and_then(|s| s.reader.as_mut()) {
            op.finish(outcome);
        }
    }

    /// Where a trunk's server is, for a log line.
    fn peer_text(&self, trunk: TrunkKey) -> String {
        let address = self.trunks.get(trunk).and_then(|trunk| trunk.address);
        address.map_or_else(String::new, |mut address| address.text_and_port())
    }

    /// The cycle, whose log the events have, goes.
    pub(in crate::transport) fn renew_shared_events(&mut self) {
        self.on_turn_end();
        self.turn_end = None;
        self.deadline = None;
        self.deadline_armed = None;
    }
}
