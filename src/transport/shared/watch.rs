//! Shared connections that have nothing to do, or are slow to do it.

use nginx_sys::{ngx_add_timer, ngx_connection_log_error_e_NGX_ERROR_INFO as NGX_ERROR_INFO};

use super::Flight;
use super::io::waiting;
use crate::nginx::{self, Msec, stop_timer};
use crate::transport::Error;
use crate::transport::link::Owner;
use crate::transport::session::Session;
use crate::transport::worker::{LinkKey, SessionKey, Worker};

/// Least time that a link with only discarded replies to come is given, in
/// milliseconds.
const MIN_GRACE: Msec = 100;

impl Worker {
    /// A link has worked off what was in flight.
    pub(super) fn worked_off(&mut self, key: LinkKey) {
        if let Some(sharing) = self.links.get_mut(key).and_then(|l| l.sharing.as_mut()) {
            sharing.again = None;
            sharing.overdue = false;
        }
        if self.is_surplus(key) || nginx::is_exiting() {
            self.fail_shared(key, Error::Closed);
        } else {
            self.rest(key);
        }
    }

    /// Whether a trunk has more links than it should: those that replaced
    /// overdue ones which then came back.
    fn is_surplus(&self, key: LinkKey) -> bool {
        let Some(Owner::Trunk { trunk, .. }) = self.links.get(key).map(|link| link.owner) else {
            return false;
        };
        let Some(trunk) = self.trunks.get(trunk) else {
            return true;
        };
        let links = trunk.links.iter().filter_map(|link| self.links.get(*link));
        let fit = links.filter(|link| link.takes_work()).count();
        fit > trunk.multiplex.connections
    }

    /// Nothing is in flight on a link.
    pub(super) fn rest(&mut self, key: LinkKey) {
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
        let trunk = self.trunks.get(trunk);
        let keepalive = trunk.map_or(0, |trunk| trunk.keepalive);
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

    /// An operation is over, but its reply is still to come, if its command was
    /// sent.
    pub(super) fn orphaned(&mut self, flight: Flight, key: SessionKey) {
        let link = self.links.get(flight.link);
        if link.is_none_or(|link| !link.pipeline.is_sent(flight.first)) {
            return;
        }
        let timeout = self.sessions.get(key).map_or(0, Session::read_timeout);
        self.arm_inspection(flight.link, timeout);
    }

    /// Has the link's timer call [`Self::inspect`].
    pub(super) fn arm_inspection(&mut self, key: LinkKey, after: Msec) {
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

    /// An operation on a link timed out. If it was the oldest, or older ones
    /// are nobody's, the link is overdue; else it is once these have their
    /// replies.
    pub(super) fn suspect(&mut self, flight: Flight) {
        let Some(link) = self.links.get_mut(flight.link) else {
            return;
        };
        if let Some(sharing) = &mut link.sharing {
            sharing.late = sharing.late.max(flight.last + 1);
        }
        self.note_overdue(flight.link);
    }

    /// The oldest exchange of a link is another one now, or became nobody's.
    pub(super) fn note_overdue(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let oldest = link.pipeline.tags().next();
        let orphan = oldest.is_some_and(|tag| waiting(&mut self.sessions, tag).is_none());
        if let Some(sharing) = &mut link.sharing {
            let late = sharing.overdue || link.pipeline.oldest() < sharing.late;
            sharing.overdue = orphan && late;
        }
    }

    /// A link's timer has expired: it was idle for long enough, or its oldest
    /// reply may be overdue.
    pub(super) fn inspect(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Owner::Trunk { trunk, .. } = link.owner else {
            return;
        };
        let (Some(sharing), now) = (&mut link.sharing, nginx::now()) else {
            return;
        };
        if link.pipeline.in_flight() == 0 {
            let keepalive = self.trunks.get(trunk).map_or(0, |trunk| trunk.keepalive);
            let due = sharing.idle_since.saturating_add(keepalive);
            return match keepalive {
                0 => {}
                _ if due <= now => self.fail_shared(key, Error::Closed),
                _ => self.arm_inspection(key, due - now),
            };
        }
        let oldest = link.pipeline.tags().next();
        let orphan = oldest.is_some_and(|tag| waiting(&mut self.sessions, tag).is_none());
        if !orphan {
            // it has a deadline of its own
            return self.arm_inspection(key, 10 * MIN_GRACE);
        }
        let due = sharing.progress.saturating_add(MIN_GRACE);
        if due > now {
            return self.arm_inspection(key, due - now);
        }
        sharing.overdue = true;
        let mut tags = link.pipeline.tags().chain(
            sharing
                .followers
                .values()
                .flat_map(|all| all.tags.iter().copied()),
        );
        let live = tags.any(|tag| waiting(&mut self.sessions, tag).is_some());
        drop(tags);
        if live {
            self.arm_inspection(key, MIN_GRACE);
        } else {
            self.fail_shared(key, Error::Closed);
        }
    }
}
