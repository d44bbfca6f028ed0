//! What a connection has that many sessions share.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use crate::nginx::Msec;
use crate::transport::connection::Tag;
use crate::transport::error::Error;

/// What a shared connection has beside its pipeline.
#[derive(Default)]
pub struct Sharing {
    /// Who else gets the reply to an exchange, by its number.
    pub coalesced: HashMap<u64, Coalesced, foldhash::fast::RandomState>,
    /// Its unsent bytes, as far as the shared pool has counted them.
    pub unsent: usize,
    /// The unsent gets of one key: hashes of the keys, and numbers.
    pub gets: HashMap<u64, u64, BuildHasherDefault<HashedKey>>,
    /// Among the connections to be flushed when the turn ends.
    pub to_flush: bool,
    /// Its oldest reply should have come, or it is leaving: it takes no new
    /// work.
    pub stalled: bool,
    /// The server's name has other addresses now: it goes when it has worked off
    /// what it has.
    pub leaving: bool,
    /// Behind the last exchange whose operation timed out, by number: once older replies have
    /// come, the connection is overdue until the reply to that one comes, too.
    pub timed_out_until: u64,
    /// It asks again what another connection has lost, and takes nothing else until
    /// that is answered.
    pub retry: Option<Retry>,
    /// When it was begun to be opened.
    pub opened: Msec,
    /// The reply to the first exchange, if it was an error line.
    pub first_error_line: Option<Rc<[u8]>>,
    /// When bytes were received last, or the first command was given to it.
    pub progress_at: Msec,
    /// Since when nothing is in flight.
    pub idle_since: Msec,
    /// The last time that the socket did not take all at once.
    pub blocked: BlockedWrite,
}

/// How what was lost is asked again: first one exchange at a time, so that one
/// that ends the connection harms no other, and later a few.
pub struct Retry {
    /// With which it was lost.
    pub error: Error,
    /// Number of the first exchange that has to wait until those before it are
    /// answered.
    pub until: u64,
    /// How many connections were lost before this one, each of which has
    /// answered nothing.
    pub fruitless: u32,
}

/// Who gets the reply to a get that another one asked for.
#[derive(Default)]
pub struct Coalesced {
    pub tags: Vec<Tag>,
    /// How many still wait, the one who asked included.
    pub waiting: usize,
}

/// Commands that the socket took bit by bit.
#[derive(Default)]
pub struct BlockedWrite {
    /// Number of the first exchange that had to wait.
    pub from: u64,
    /// They still do.
    pub now: bool,
    /// When the socket last took something of them.
    pub written: Msec,
}

/// For keys that are hashes already.
#[derive(Default)]
pub struct HashedKey(pub u64);

impl Hasher for HashedKey {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Unsent gets that a connection keeps room for between batches.
pub const GETS_KEPT: usize = 256;

impl Coalesced {
    /// Of one who asks for himself.
    pub const NONE: Coalesced = Coalesced {
        tags: Vec::new(),
        waiting: 1,
    };
}

impl Sharing {
    /// Who else gets the reply to an exchange, which has come.
    pub fn take_coalesced(&mut self, number: u64) -> Option<Vec<Tag>> {
        Some(self.coalesced.remove(&number)?.tags)
    }

    /// What was collected is being sent: nothing can be added to it.
    pub fn close_batch(&mut self) {
        if self.gets.capacity() > GETS_KEPT {
            self.gets = Default::default();
        } else {
            self.gets.clear();
        }
    }
}
