//! What a connection that many sessions share does: takes commands, coalesces gets, repeats.

use std::hash::BuildHasher;

use crate::nginx::{self, Msec};
use crate::transport::connection::sharing::Sharing;
use crate::transport::connection::{Connection, Owner};
use crate::transport::ids::OpKey;
use crate::upstream::{Load, Work};

impl Connection {
    /// Whether it is shared, and takes commands.
    pub fn takes_work(&self) -> bool {
        self.sharing().is_some_and(Sharing::takes_work)
    }

    /// Whether it is shared, and will be closed when it has no work.
    pub fn is_leaving(&self) -> bool {
        self.sharing()
            .is_some_and(|sharing| sharing.health.is_leaving())
    }

    /// Whether the socket takes what is there to be sent, as far as is known.
    pub fn takes_all(&self) -> bool {
        self.nginx.is_write_ready() && !self.is_connecting()
    }

    /// How well it can take commands.
    pub fn load(&self) -> Load {
        let Some(sharing) = self.sharing() else {
            return Load::Unavailable;
        };
        let work = Work {
            opening: self.is_connecting(),
            retries: sharing.retry.is_some(),
            occupied: self.pipeline.is_amid_value() || !self.takes_all(),
            lists: self.pipeline.lists(),
            in_flight: self.pipeline.in_flight(),
        };
        sharing.health.load(work, &self.progress, nginx::now())
    }

    /// Marks it as in use: somebody waits for something in flight.
    pub fn mark_active(&mut self, was_idle: bool) {
        self.nginx.set_active();
        if was_idle {
            self.progress.receive(nginx::now());
        }
    }

    /// The operation in the same unsent batch whose get is the same as the one that was just
    /// submitted with this number. The server will execute it after this moment, hence after every
    /// write that the session has seen completed: so its reply is good for both.
    pub fn equal_get(&mut self, hasher: &impl BuildHasher, newest: u64) -> Option<OpKey> {
        let Connection {
            pipeline, owner, ..
        } = self;
        let Owner::Shared(sharing) = owner else {
            return None;
        };
        let get = pipeline.newest_get()?;
        sharing.gets.try_reserve(1).ok()?;
        let first = *sharing.gets.entry(hasher.hash_one(get)).or_insert(newest);
        if first == newest || pipeline.single_get(first) != Some(get) {
            return None;
        }
        pipeline.tag(first)
    }

    /// Somebody with this connect timeout waits for it to be established, if it is not yet.
    pub fn give_time_to_connect(&mut self, timeout: Msec) {
        if self.is_connecting() {
            self.nginx.delay_write_timer(timeout);
        }
    }

    /// Number of the first exchange that is not to be sent yet, if some are not.
    pub fn sends_until(&mut self) -> Option<u64> {
        let Connection {
            pipeline, owner, ..
        } = self;
        let Owner::Shared(sharing) = owner else {
            return None;
        };
        let (retry, _) = sharing.retry.as_mut()?;
        let oldest = pipeline.oldest();
        Some(retry.sends_until(oldest, |n| {
            let behind = pipeline.exchanges().nth(n);
            let end = pipeline.newest().unwrap_or(oldest) + 1;
            behind.map_or(end, |exchange| exchange.number)
        }))
    }

    /// Whether commands that it has to repeat may be sent now, because earlier ones were answered.
    pub fn has_more_to_retry(&self) -> bool {
        let retry = self.sharing().and_then(|sharing| sharing.retry.as_ref());
        retry.is_some_and(|(retry, _)| {
            self.pipeline.in_flight() > 0 && retry.may_send_more(self.pipeline.oldest())
        })
    }
}
