//! nginx's lists of the servers of a block, locked.

use std::ptr::NonNull;

use nginx_sys::{
    ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_http_upstream_srv_conf_t,
};
#[cfg(ngx_feature = "http_upstream_zone")]
use nginx_sys::{ngx_rwlock_rlock, ngx_rwlock_unlock, ngx_rwlock_wlock};

use crate::group::{Health, States};

/// Which list of servers it was: another one, if the list has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation([Option<HalfGeneration>; 2]);

/// Address, nginx's counter of changes, number of servers, sum of weights.
type HalfGeneration = (usize, usize, usize, usize);

/// What is counted for a server.
pub fn health(peer: &ngx_http_upstream_rr_peer_t) -> Health {
    Health {
        down: peer.down != 0,
        fails: peer.fails,
        accessed: peer.accessed,
        checked: peer.checked,
        max_fails: peer.max_fails,
        fail_timeout: peer.fail_timeout,
    }
}

/// Writes down what is counted for a server.
pub fn write(peer: &mut ngx_http_upstream_rr_peer_t, health: Health) {
    peer.fails = health.fails;
    peer.accessed = health.accessed;
    peer.checked = health.checked;
}

/// What a list is locked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Others may read it, too.
    Read,
    /// Nobody else may.
    Write,
}

type List = NonNull<ngx_http_upstream_rr_peers_t>;

/// The lists of a block, the servers and the backup servers, locked as long as
/// this is there. Where they are not shared there is nothing to lock.
pub struct Locked([Option<List>; 2]);

impl Locked {
    /// Locks the lists of a block.
    ///
    /// # Safety
    ///
    /// They are nginx's, and the block's configuration outlives this.
    pub unsafe fn new(conf: NonNull<ngx_http_upstream_srv_conf_t>, access: Access) -> Locked {
        // SAFETY: by this function's contract. nginx sets the lists when it
        // reads the configuration, and once more when a zone is made, before
        // there are workers.
        let lists = unsafe {
            let primary = NonNull::new(conf.as_ref().peer.data.cast());
            [
                primary,
                primary.and_then(|list: List| NonNull::new(list.as_ref().next)),
            ]
        };
        for list in lists.into_iter().flatten() {
            lock(list, access);
        }
        Locked(lists)
    }

    /// The servers of a list.
    pub fn half(&self, half: usize) -> impl Iterator<Item = NonNull<ngx_http_upstream_rr_peer_t>> {
        let list = self.0.get(half).copied().flatten();
        // SAFETY: it is locked.
        let first = list.and_then(|list| unsafe { NonNull::new(list.as_ref().peer) });
        // SAFETY: the same.
        std::iter::successors(first, |peer| unsafe { NonNull::new(peer.as_ref().next) })
    }

    fn number(&self, half: usize) -> usize {
        let list = self.0.get(half).copied().flatten();
        // SAFETY: it is locked.
        list.map_or(0, |list| unsafe { list.as_ref().number })
    }

    /// Whether nginx counts no failures of the list's server.
    pub fn is_single(&self, half: usize) -> bool {
        let list = self.0.get(half).copied().flatten();
        // SAFETY: it is locked.
        list.is_some_and(|list| unsafe { list.as_ref().single() != 0 })
    }

    /// The server with this index in [`Peers::list`].
    fn at(&self, index: usize) -> Option<NonNull<ngx_http_upstream_rr_peer_t>> {
        match index.checked_sub(self.number(0)) {
            None => self.half(0).nth(index),
            Some(index) => self.half(1).nth(index),
        }
    }

    /// An operation goes to the server, which has failed before. To be called
    /// only when it is locked for writing.
    pub fn note_trial(&self, index: usize, now: i64) {
        let Some(mut peer) = self.at(index) else {
            return;
        };
        // SAFETY: it is locked for writing.
        let peer = unsafe { peer.as_mut() };
        let mut health = health(peer);
        health.choose(now);
        write(peer, health);
        if peer.effective_weight < peer.weight {
            peer.effective_weight += 1;
        }
    }

    pub fn generation(&self) -> Generation {
        Generation(self.0.map(|list| {
            let list = list?;
            // SAFETY: it is locked.
            let peers = unsafe { list.as_ref() };
            Some((
                list.as_ptr() as usize,
                changes(peers),
                peers.number,
                peers.total_weight,
            ))
        }))
    }
}

impl States for Locked {
    fn health(&self, peer: usize) -> Health {
        match self.at(peer) {
            // SAFETY: nobody frees it while the list is locked.
            Some(peer) => health(unsafe { peer.as_ref() }),
            None => Health {
                down: true,
                ..Health::new(0, 0)
            },
        }
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        for list in self.0.into_iter().flatten() {
            unlock(list);
        }
    }
}

/// How often nginx has changed a list (`resolve`).
#[cfg(nginx_peers_config)]
fn changes(peers: &ngx_http_upstream_rr_peers_t) -> usize {
    // SAFETY: null, or a counter in the zone, which is locked.
    unsafe { peers.config.as_ref().copied().unwrap_or_default() }
}

#[cfg(not(nginx_peers_config))]
fn changes(_: &ngx_http_upstream_rr_peers_t) -> usize {
    0
}

/// `ngx_http_upstream_rr_peers_rlock`, `ngx_http_upstream_rr_peers_wlock`
#[cfg(ngx_feature = "http_upstream_zone")]
fn lock(list: List, access: Access) {
    let list = list.as_ptr();
    // SAFETY: nginx's list; it is shared if it has a pool of its own.
    unsafe {
        if !(*list).shpool.is_null() {
            match access {
                Access::Read => ngx_rwlock_rlock(&raw mut (*list).rwlock),
                Access::Write => ngx_rwlock_wlock(&raw mut (*list).rwlock),
            }
        }
    }
}

#[cfg(ngx_feature = "http_upstream_zone")]
fn unlock(list: List) {
    let list = list.as_ptr();
    // SAFETY: as above; it is locked.
    unsafe {
        if !(*list).shpool.is_null() {
            ngx_rwlock_unlock(&raw mut (*list).rwlock);
        }
    }
}

#[cfg(not(ngx_feature = "http_upstream_zone"))]
fn lock(_: List, _: Access) {}

#[cfg(not(ngx_feature = "http_upstream_zone"))]
fn unlock(_: List) {}
