//! Whether a shared connection takes commands, and which.

use std::hash::BuildHasher;

use crate::nginx::{self, Msec};
use crate::transport::connection::sharing::{Coalesced, Sharing};
use crate::transport::connection::{Connection, Tag};
use crate::upstream::Load;

/// How long something that keeps a connection may last before the connection is given no
/// more work, if there is another, in milliseconds.
pub const SLOW_AFTER: Msec = 100;

impl Connection {
    /// Whether it may be given commands: its oldest reply is not overdue, and
    /// it does not ask again what others have lost.
    pub fn takes_work(&self) -> bool {
        let sharing = self.sharing.as_ref();
        sharing.is_some_and(|sharing| !sharing.stalled && sharing.retry.is_none())
    }

    /// Whether the socket takes what is there to be sent, as far as is known.
    pub fn takes_all(&self) -> bool {
        self.nginx.is_write_ready() && !self.is_connecting()
    }

    /// How well it can take commands now.
    pub fn load(&self) -> Load {
        let Some(sharing) = self.sharing.as_ref() else {
            return Load::Overdue;
        };
        let slow = |since: Msec| nginx::now() > since.saturating_add(SLOW_AFTER);
        if self.is_connecting() {
            return match slow(sharing.opened) {
                true => Load::Stalled,
                false => Load::Opening,
            };
        }
        if !self.takes_work() {
            return Load::Overdue;
        }
        let busy = self.pipeline.is_amid_value() || !self.takes_all();
        if busy && slow(sharing.progress_at.max(sharing.blocked.written)) {
            Load::Stalled
        } else if self.pipeline.lists() > 0 {
            Load::Listed
        } else if busy {
            Load::Busy
        } else {
            Load::Ready(self.pipeline.in_flight())
        }
    }

    /// Something is in flight that somebody waits for.
    pub fn mark_active(&mut self, was_idle: bool) {
        self.nginx.set_active();
        if let Some(sharing) = self.sharing.as_mut().filter(|_| was_idle) {
            sharing.progress_at = nginx::now();
        }
    }

    /// If the get that was just submitted is the same as one in the same
    /// unsent batch, it is taken back and its session gets the other's reply:
    /// the server will execute it after this moment, hence after every write
    /// that the session has seen completed. The number of the exchange that
    /// brings the reply.
    pub fn coalesce_get(&mut self, hasher: &impl BuildHasher, newest: u64, tag: Tag) -> u64 {
        let Connection {
            pipeline, sharing, ..
        } = self;
        let Some(Sharing {
            coalesced, gets, ..
        }) = sharing.as_deref_mut()
        else {
            return newest;
        };
        let Some(get) = pipeline.newest_get() else {
            return newest;
        };
        if gets.try_reserve(1).is_err() {
            return newest;
        }
        let first = *gets.entry(hasher.hash_one(get)).or_insert(newest);
        if first == newest || pipeline.single_get(first) != Some(get) {
            return newest;
        }
        if coalesced.try_reserve(1).is_err() {
            return newest;
        }
        let all = coalesced.entry(first).or_insert(Coalesced::NONE);
        if all.tags.try_reserve(1).is_err() {
            return newest;
        }
        pipeline.take_back();
        all.tags.push(tag);
        all.waiting += 1;
        first
    }
}

impl Connection {
    /// One who has this timeout waits for the connection to stand, if it does
    /// not yet.
    pub fn give_time_to_connect(&mut self, timeout: Msec) {
        if !self.is_connecting() {
            return;
        }
        self.nginx.delay_write_timer(timeout);
    }
}

impl Connection {
    /// Whether it only works off what it has.
    pub fn is_leaving(&self) -> bool {
        let sharing = self.sharing.as_ref();
        sharing.is_some_and(|sharing| sharing.leaving)
    }
}

/// Most exchanges that are asked again at once; one more for each so many that
/// were answered.
pub const MOST_AT_ONCE: u64 = 16;

impl Connection {
    /// Number of the first exchange that is not to be sent yet, if some are not.
    pub fn sends_until(&mut self) -> Option<u64> {
        let again = self.sharing.as_mut()?.retry.as_mut()?;
        let oldest = self.pipeline.oldest();
        if oldest >= again.until {
            // those before are answered
            let at_once = (oldest / MOST_AT_ONCE).clamp(1, MOST_AT_ONCE);
            let behind = self.pipeline.exchanges().nth(at_once as usize);
            let newest = self.pipeline.newest().unwrap_or(oldest);
            again.until = behind.map_or(newest + 1, |exchange| exchange.number);
        }
        Some(again.until)
    }

    /// Whether it has to ask again what had to wait until others were answered.
    pub fn has_more_to_ask(&self) -> bool {
        let again = self
            .sharing
            .as_ref()
            .and_then(|sharing| sharing.retry.as_ref());
        again.is_some_and(|again| {
            self.pipeline.in_flight() > 0 && self.pipeline.oldest() >= again.until
        })
    }
}
