//! Sessions that use shared connections, or wait for one.

use nginx_sys::{ngx_add_timer, ngx_connection_log_error_e_NGX_ERROR_INFO as NGX_ERROR_INFO};

use crate::nginx::{self, Msec, stop_timer};
use crate::transport::error::Error;
use crate::transport::ids::{LinkKey, SessionKey, TrunkKey};
use crate::transport::link::Owner;
use crate::transport::state::op::{Opened, Outcome, Work};
use crate::transport::state::session::{Flight, Session, State, Waits};
use crate::transport::state::trunk::Trunk;
use crate::transport::worker::Worker;

/// Least time that a link with only discarded replies to come is given, in
/// milliseconds.
pub const MIN_GRACE: Msec = 100;

impl Worker {
    pub fn attach(&mut self, key: SessionKey, trunk_key: TrunkKey) {
        let (Some(trunk), Some(session)) =
            (self.trunks.get_mut(trunk_key), self.sessions.get_mut(key))
        else {
            return;
        };
        trunk.attach(trunk_key, session);
    }

    /// Makes an operation of waiting for a connection.
    pub fn begin_joining(&mut self, key: SessionKey) -> Result<Opened, Error> {
        match self.new_op(Work::Connect) {
            Ok(op) => {
                let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
                session.reader = Some(op);
                self.limit_joining(key);
                Ok(Opened::Pending)
            }
            Err(error) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.state = State::Closed;
                }
                Err(error)
            }
        }
    }

    /// Those who wait for a connection; they do no more.
    pub fn end_joining(&mut self, trunk: TrunkKey) -> Vec<SessionKey> {
        let trunk = self.trunks.get_mut(trunk);
        let joining = trunk.map(|trunk| std::mem::take(&mut trunk.joining));
        let joining: Vec<SessionKey> = joining.unwrap_or_default().into_iter().collect();
        for key in &joining {
            if let Some(session) = self.sessions.get_mut(*key) {
                session.waits = None;
            }
        }
        joining
    }

    pub fn wait_for_link(&mut self, key: SessionKey, trunk_key: TrunkKey) -> Result<(), Error> {
        let trunk = self.trunks.get_mut(trunk_key).ok_or(Error::Closed)?;
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        let place = trunk.joining.try_push_back(key).ok_or(Error::NoMemory)?;
        session.waits = Some(Waits::Joining(place));
        session.state = State::Joining(trunk_key);
        Ok(())
    }

    /// A session does not wait for a connection, or for room, any more.
    pub fn stop_waiting(&mut self, key: SessionKey, trunk: TrunkKey) {
        let session = self.sessions.get_mut(key);
        let waits = session.and_then(|session| session.waits.take());
        if let (Some(waits), Some(trunk)) = (waits, self.trunks.get_mut(trunk)) {
            match waits {
                Waits::Joining(place) => trunk.joining.remove(place),
                Waits::Queued(spot) => trunk.queue.remove(spot),
            };
        }
    }

    /// A session that is not there any more, or was served, is not at the head
    /// of the queue either.
    pub fn drop_from_queue(&mut self, trunk: TrunkKey, key: SessionKey) {
        if let Some(trunk) = self.trunks.get_mut(trunk) {
            trunk.queue.drop_first(&key);
        }
    }

    /// A session uses a trunk no more.
    #[inline(always)]
    pub fn leave(&mut self, key: TrunkKey) {
        if let Some(trunk) = self.trunks.get_mut(key) {
            trunk.users = trunk.users.saturating_sub(1);
            self.rest_if_left(key);
        }
    }

    /// Nothing is in flight on a link.
    pub fn rest(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Owner::Trunk { trunk, .. } = link.owner else {
            return;
        };
        if link.pipeline.in_flight() > 0 || link.is_connecting() {
            return;
        }
        if let Some(sharing) = &mut link.sharing {
            sharing.idle_since = nginx::now();
        }
        let keepalive = self.trunks.get(trunk).map_or(0, Trunk::idle_limit);
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open.
        unsafe {
            (*c).set_idle(1);
            // what happens to it now is no error of anybody
            (*c).set_log_error(NGX_ERROR_INFO as _);
            let read = (*c).read;
            let due = nginx::now().saturating_add(keepalive);
            let armed = (*read).timer_set() != 0 && (*read).timer.key <= due;
            if keepalive != 0 && !armed {
                stop_timer(read);
                ngx_add_timer(read, keepalive);
            }
        }
        link.pipeline.trim();
    }

    /// Lets links that are idle already go sooner.
    pub fn rest_all(&mut self, trunk: TrunkKey) {
        let mut at = 0;
        while let Some(trunk) = self.trunks.get(trunk)
            && let Some(link) = trunk.links.get(at).copied()
        {
            self.rest(link);
            at += 1;
        }
    }

    /// If nobody uses a trunk any more, its links may have to go sooner.
    #[inline(always)]
    pub fn rest_if_left(&mut self, key: TrunkKey) {
        if self.trunks.get(key).is_some_and(Trunk::is_left) {
            self.rest_all(key);
        }
    }

    /// Has the link's timer call [`Self::inspect`].
    pub fn arm_inspection(&mut self, key: LinkKey, after: Msec) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open.
        unsafe {
            // until somebody else uses it, its failure is no error of anybody
            (*c).set_log_error(NGX_ERROR_INFO as _);
            stop_timer((*c).read);
            ngx_add_timer((*c).read, after.max(MIN_GRACE));
        }
    }

    /// An operation is over, but its reply is still to come, if its command was
    /// sent.
    pub fn orphaned(&mut self, flight: Flight, key: SessionKey) {
        let link = self.links.get(flight.link);
        if link.is_none_or(|link| !link.pipeline.is_sent(flight.first)) {
            return;
        }
        let timeout = match link {
            // nobody will come
            Some(link) if link.is_leaving() => 0,
            _ => self.sessions.get(key).map_or(0, Session::read_timeout),
        };
        self.arm_inspection(flight.link, timeout);
    }

    /// An operation on a link timed out. If it was the oldest, or older ones
    /// are nobody's, the link is overdue; else it is once these have their
    /// replies.
    pub fn suspect(&mut self, flight: Flight) {
        let Some(link) = self.links.get_mut(flight.link) else {
            return;
        };
        if let Some(sharing) = &mut link.sharing {
            sharing.late = sharing.late.max(flight.last + 1);
        }
        self.note_overdue(flight.link);
    }

    /// Ends the operation of a session's reader, if it waits.
    pub fn finish_reader(&mut self, key: SessionKey, outcome: Outcome) {
        self.clear_deadline(key);
        if let Some(op) = self.sessions.get_mut(key).and_then(|s| s.reader.as_mut()) {
            op.finish(outcome);
        }
    }
}
