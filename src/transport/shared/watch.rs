//! Shared connections that have nothing to do, or are slow to do it.

use nginx_sys::{ngx_add_timer, ngx_connection_log_error_e_NGX_ERROR_INFO as NGX_ERROR_INFO};

use super::io::waiting;
use super::{Flight, Trunk};
use crate::nginx::{self, Msec, stop_timer};
use crate::transport::Error;
use crate::transport::link::{Link, Owner};
use crate::transport::session::Session;
use crate::transport::worker::{LinkKey, SessionKey, TrunkKey, Worker};

/// Least time that a link with only discarded replies to come is given, in
/// milliseconds.
const MIN_GRACE: Msec = 100;

/// Most time that links are idle if nobody uses them and nobody asked for them
/// to be kept, in milliseconds.
const UNASKED_IDLE: Msec = 300;

impl Trunk {
    /// Nobody uses it, and code that always closes expects nothing to stay.
    fn is_left(&self) -> bool {
        self.users == 0 && !self.kept
    }

    /// How long a connection may be idle; 0: for ever.
    fn idle_limit(&self) -> Msec {
        match self.keepalive {
            0 if self.is_left() => UNASKED_IDLE,
            limit if self.is_left() => limit.min(UNASKED_IDLE),
            limit => limit,
        }
    }
}

impl Worker {
    /// A link has worked off what was in flight.
    pub(super) fn worked_off(&mut self, key: LinkKey) {
        if self.links.get(key).is_some_and(Link::is_leaving) {
            return self.fail_shared(key, Error::Closed);
        }
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
        fit > trunk.connections
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
    pub(super) fn rest_all(&mut self, trunk: TrunkKey) {
        let mut at = 0;
        while let Some(trunk) = self.trunks.get(trunk)
            && let Some(link) = trunk.links.get(at).copied()
        {
            self.rest(link);
            at += 1;
        }
    }

    /// A session uses a trunk no more.
    #[inline(always)]
    pub(super) fn leave(&mut self, key: TrunkKey) {
        if let Some(trunk) = self.trunks.get_mut(key) {
            trunk.users = trunk.users.saturating_sub(1);
            self.rest_if_left(key);
        }
    }

    /// If nobody uses a trunk any more, its links may have to go sooner.
    #[inline(always)]
    pub(super) fn rest_if_left(&mut self, key: TrunkKey) {
        if self.trunks.get(key).is_some_and(Trunk::is_left) {
            self.rest_all(key);
        }
    }

    /// An operation is over, but its reply is still to come, if its command was
    /// sent.
    pub(super) fn orphaned(&mut self, flight: Flight, key: SessionKey) {
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

    /// Whether the oldest reply of a link is still to come, and nobody waits for
    /// it.
    pub(super) fn is_nobodys(&mut self, key: LinkKey) -> bool {
        let Some(link) = self.links.get(key) else {
            return false;
        };
        let (pipeline, sharing) = (&link.pipeline, link.sharing.as_ref());
        let followers = sharing.and_then(|sharing| sharing.followers.get(&pipeline.oldest()));
        let followers = followers.map_or(&[][..], |followers| &followers.tags);
        let mut tags = pipeline.tags().take(1).chain(followers.iter().copied());
        pipeline.in_flight() > 0 && tags.all(|tag| waiting(&mut self.sessions, tag).is_none())
    }

    /// The oldest exchange of a link is another one now, or became nobody's.
    pub(super) fn note_overdue(&mut self, key: LinkKey) {
        let orphan = self.is_nobodys(key);
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        if let Some(sharing) = &mut link.sharing {
            let late = sharing.overdue || link.pipeline.oldest() < sharing.late;
            sharing.overdue = sharing.leaving || orphan && late;
        }
    }

    /// A link's timer has expired: it was idle for long enough, or its oldest
    /// reply may be overdue.
    pub(super) fn inspect(&mut self, key: LinkKey) {
        let orphan = self.is_nobodys(key);
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
            let keepalive = self.trunks.get(trunk).map_or(0, Trunk::idle_limit);
            let due = sharing.idle_since.saturating_add(keepalive);
            return match keepalive {
                0 => {}
                _ if due <= now => self.fail_shared(key, Error::Closed),
                _ => self.arm_inspection(key, due - now),
            };
        }
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
