//! nginx's lists of the servers of a block, locked.

#[cfg(ngx_feature = "http_upstream_zone")]
use nginx_sys::{ngx_atomic_t, ngx_rwlock_rlock, ngx_rwlock_unlock, ngx_rwlock_wlock};
use nginx_sys::{ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t, ngx_int_t};

use super::{Upstream, live};
use crate::group::{Health, States};
use crate::nginx::live::Live;

/// Which list of servers it was: another one, if the list has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation([Option<HalfGeneration>; 2]);

/// Address, nginx's counter of changes, number of servers, sum of weights.
type HalfGeneration = (usize, usize, usize, usize);

/// What is counted for a server.
pub fn health(peer: &Server) -> Health {
    Health {
        down: peer.down != 0,
        fails: peer.fails,
        accessed: peer.accessed,
        checked: peer.checked,
        max_fails: peer.max_fails,
        fail_timeout: peer.fail_timeout,
    }
}

/// Writes down what is counted for a server, whose list is locked for writing.
pub fn write(peer: Live<Server>, health: Health, effective_weight: ngx_int_t) {
    let peer = peer.as_ptr();
    // SAFETY: nobody else looks at it.
    unsafe {
        (*peer).fails = health.fails;
        (*peer).accessed = health.accessed;
        (*peer).checked = health.checked;
        (*peer).effective_weight = effective_weight;
    }
}

/// What a list is locked for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Others may read it, too.
    Read,
    /// Nobody else may.
    Write,
}

type List = Live<ngx_http_upstream_rr_peers_t>;

/// One of nginx's servers, which nobody frees while its list is locked.
pub type Server = ngx_http_upstream_rr_peer_t;

/// The lists of a block, the servers and the backup servers, locked as long as this is there. Where
/// they are not shared there is nothing to lock.
pub struct Locked([Option<List>; 2]);

impl Locked {
    /// Locks the lists of a block, which are nginx's.
    pub(super) fn new(upstream: Upstream, access: Access) -> Locked {
        // nginx sets the lists when it reads the configuration, and once more when a zone is made,
        // before there are workers
        let primary: Option<List> = live(upstream.0.peer.data.cast());
        let lists = [primary, primary.and_then(|list| live(list.next))];
        for list in lists.into_iter().flatten() {
            lock(list, access);
        }
        Locked(lists)
    }

    fn list(&self, half: usize) -> Option<List> {
        self.0.get(half).copied().flatten()
    }

    /// The servers of a list.
    pub fn half(&self, half: usize) -> impl Iterator<Item = Live<Server>> {
        let first = self.list(half).and_then(|list| live(list.peer));
        std::iter::successors(first, |peer| live(peer.next))
    }

    fn number(&self, half: usize) -> usize {
        self.list(half).map_or(0, |list| list.number)
    }

    /// Whether nginx counts no failures of the list's server.
    pub fn is_single(&self, half: usize) -> bool {
        self.list(half).is_some_and(|list| list.single() != 0)
    }

    /// Whether workers share them.
    #[cfg(ngx_feature = "http_upstream_zone")]
    pub fn is_shared(&self) -> bool {
        self.list(0).is_some_and(|list| !list.shpool.is_null())
    }

    /// Whether workers share them.
    #[cfg(not(ngx_feature = "http_upstream_zone"))]
    pub fn is_shared(&self) -> bool {
        false
    }

    /// The server with this index in [`Peers::list`].
    fn at(&self, index: usize) -> Option<Live<Server>> {
        match index.checked_sub(self.number(0)) {
            None => self.half(0).nth(index),
            Some(index) => self.half(1).nth(index),
        }
    }

    /// An operation goes to the server, which has failed before. To be called only when it is
    /// locked for writing.
    pub fn note_trial(&self, index: usize, now: i64) {
        let Some(peer) = self.at(index) else {
            return;
        };
        let mut health = health(&peer);
        health.choose(now);
        let weight = peer.effective_weight;
        let weight = weight.saturating_add((weight < peer.weight).into());
        write(peer, health, weight);
    }

    /// Which lists these are.
    pub fn generation(&self) -> Generation {
        Generation(self.0.map(|list| {
            let list = list?;
            let place = list.as_ptr().addr();
            Some((place, changes(&list), list.number, list.total_weight))
        }))
    }
}

impl States for Locked {
    fn health(&self, peer: usize) -> Health {
        match self.at(peer) {
            Some(peer) => health(&peer),
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
fn changes(list: &ngx_http_upstream_rr_peers_t) -> usize {
    live(list.config).map_or(0, |config| *config)
}

#[cfg(not(nginx_peers_config))]
fn changes(_: &ngx_http_upstream_rr_peers_t) -> usize {
    0
}

/// `ngx_http_upstream_rr_peers_rlock`, `ngx_http_upstream_rr_peers_wlock`
#[cfg(ngx_feature = "http_upstream_zone")]
fn lock(list: List, access: Access) {
    match access {
        Access::Read => with_lock(list, ngx_rwlock_rlock),
        Access::Write => with_lock(list, ngx_rwlock_wlock),
    }
}

#[cfg(ngx_feature = "http_upstream_zone")]
fn unlock(list: List) {
    with_lock(list, ngx_rwlock_unlock);
}

/// Calls a function of nginx with the lock of a list, if that is shared.
#[cfg(ngx_feature = "http_upstream_zone")]
fn with_lock(list: List, f: unsafe extern "C" fn(*mut ngx_atomic_t)) {
    if !list.shpool.is_null() {
        // SAFETY: nginx's lock, in the list's zone.
        unsafe { f(&raw mut (*list.as_ptr()).rwlock) };
    }
}

#[cfg(not(ngx_feature = "http_upstream_zone"))]
fn lock(_: List, _: Access) {}

#[cfg(not(ngx_feature = "http_upstream_zone"))]
fn unlock(_: List) {}
