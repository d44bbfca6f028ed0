//! What a connection has that many sessions share.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use crate::nginx;
use crate::transport::error::Error;
use crate::transport::ids::SharedPoolKey;
use crate::upstream::{Health, Retry};

/// Unsent gets that a connection keeps room for between batches.
const GETS_KEPT: usize = 256;

/// Of a connection that many sessions share.
pub struct Sharing {
    pub shared_pool: SharedPoolKey,
    pub health: Health,
    /// Its unsent bytes, as far as the shared pool has counted them.
    pub unsent: usize,
    /// The unsent gets of single keys: the number of each exchange, by the hash of its key.
    pub gets: HashMap<u64, u64, BuildHasherDefault<HashedKey>>,
    /// Among the connections to be flushed at the end of this iteration of the event loop.
    pub to_flush: bool,
    /// It repeats what another connection has lost, for this reason, and takes nothing else until
    /// that is answered.
    pub retry: Option<(Retry, Error)>,
    /// The reply to the first exchange, if it was an error line.
    pub first_error_line: Option<Rc<[u8]>>,
}

/// For keys that are hashes already.
#[derive(Default)]
pub struct HashedKey(u64);

impl Hasher for HashedKey {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl Sharing {
    /// Of a connection that is being opened.
    pub fn new(shared_pool: SharedPoolKey) -> Sharing {
        Sharing {
            shared_pool,
            health: Health::new(nginx::now()),
            unsent: 0,
            gets: HashMap::default(),
            to_flush: false,
            retry: None,
            first_error_line: None,
        }
    }

    /// What was collected is being sent: nothing can be added to it.
    pub fn close_batch(&mut self) {
        if self.gets.capacity() > GETS_KEPT {
            self.gets = HashMap::default();
        } else {
            self.gets.clear();
        }
    }

    /// Whether commands may be given to it: it is neither stalled nor leaving, and does not repeat
    /// what others have lost.
    pub fn takes_work(&self) -> bool {
        self.health.takes_work() && self.retry.is_none()
    }
}
