//! The servers of a block while nginx runs. With `zone` all workers share what
//! is counted for them, and `resolve` changes the list.

use std::collections::TryReserveError;
use std::ptr::NonNull;

use nginx_sys::{
    ngx_cached_time, ngx_http_upstream_rr_peer_t, ngx_http_upstream_rr_peers_t,
    ngx_http_upstream_srv_conf_t, ngx_int_t,
};
#[cfg(ngx_feature = "http_upstream_zone")]
use nginx_sys::{ngx_rwlock_rlock, ngx_rwlock_unlock, ngx_rwlock_wlock};

use crate::group::{Choice, Failure, Group, Health, Peer, States};

/// The servers of a block. Their list is nginx's, and so is what is counted for
/// them: `memcached_pass` sees the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peers(NonNull<ngx_http_upstream_srv_conf_t>);

/// Which list of servers it was: another one, if the list has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation([Option<HalfGeneration>; 2]);

/// Address, nginx's counter of changes, number of servers, sum of weights.
type HalfGeneration = (usize, usize, usize, usize);

/// The list has changed since a group was made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl Peers {
    pub(super) fn of(conf: NonNull<ngx_http_upstream_srv_conf_t>) -> Peers {
        Peers(conf)
    }

    /// The list: first those that are no backups.
    ///
    /// # Errors
    ///
    /// If there is no memory.
    pub fn list(&self) -> Result<(Vec<Peer>, Generation), TryReserveError> {
        let locked = Locked::new(self, Access::Read);
        let mut list = Vec::new();
        for (half, backup) in [(0, false), (1, true)] {
            for peer in locked.half(half) {
                list.try_reserve(1)?;
                // SAFETY: nobody changes the list while it is locked; names
                // and addresses are as long as they say.
                let peer = unsafe {
                    let peer = peer.as_ref();
                    let address =
                        std::slice::from_raw_parts(peer.sockaddr.cast(), peer.socklen as usize);
                    Peer {
                        server: copy(peer.server.as_bytes())?,
                        name: copy(peer.name.as_bytes())?,
                        address: copy(address)?,
                        weight: u32::try_from(peer.weight).unwrap_or(u32::MAX),
                        backup,
                    }
                };
                list.push(peer);
            }
        }
        Ok((list, locked.generation()))
    }

    /// Which list it is now.
    pub fn generation(&self) -> Generation {
        Locked::new(self, Access::Read).generation()
    }

    /// The server for a key, as [`Group::choose`]. `group` was made of the list
    /// of `generation`. A trial of a disabled server is written down, so that
    /// nobody else makes one.
    ///
    /// # Errors
    ///
    /// If the list has changed: to be asked again with the new one.
    pub fn choose(
        &self,
        group: &Group,
        generation: Generation,
        key: &[u8],
        tried: &[usize],
    ) -> Result<Option<Choice>, Stale> {
        let now = seconds();
        let choose = |access| {
            let locked = Locked::new(self, access);
            match locked.generation() == generation {
                true => Ok((group.choose(key, now, tried, &locked), locked)),
                false => Err(Stale),
            }
        };
        match choose(Access::Read)? {
            (Some(choice), locked) if choice.suspect => drop(locked),
            (choice, _) => return Ok(choice),
        }
        let (choice, locked) = choose(Access::Write)?;
        if let Some(choice) = choice
            && choice.suspect
            && let Some(mut peer) = locked.at(choice.peer)
        {
            // SAFETY: it is locked for writing.
            let peer = unsafe { peer.as_mut() };
            let mut health = health(peer);
            health.choose(now);
            write(peer, health);
            if peer.effective_weight < peer.weight {
                peer.effective_weight += 1;
            }
        }
        Ok(choice)
    }

    /// What is known of all servers, in the order of the list.
    ///
    /// # Errors
    ///
    /// If the list has changed, or there is no memory for it.
    pub fn states(&self, generation: Generation, states: &mut Vec<Health>) -> Result<(), Stale> {
        let locked = Locked::new(self, Access::Read);
        if locked.generation() != generation {
            return Err(Stale);
        }
        states.clear();
        for peer in locked.half(0).chain(locked.half(1)) {
            states.try_reserve(1).map_err(|_| Stale)?;
            // SAFETY: nobody frees it while the list is locked.
            states.push(health(unsafe { peer.as_ref() }));
        }
        Ok(())
    }

    /// An operation with this server failed.
    pub fn fail(&self, peer: &Peer) -> Failure {
        self.change(peer, |peer, health| {
            let failure = health.fail(seconds());
            if let Ok(max_fails @ 1..) = ngx_int_t::try_from(health.max_fails) {
                let less = peer.effective_weight - peer.weight / max_fails;
                peer.effective_weight = less.max(0);
            }
            failure
        })
        .unwrap_or(Failure::Counted)
    }

    /// An operation with this server, which was a [`Choice::suspect`], was
    /// answered. True if the server was disabled and is used again.
    pub fn succeed(&self, peer: &Peer) -> bool {
        self.change(peer, |_, health| health.succeed())
            .unwrap_or_default()
    }

    /// A check found this server in order. True if it was disabled.
    pub fn revive(&self, peer: &Peer) -> bool {
        self.change(peer, |_, health| health.revive())
            .unwrap_or_default()
    }

    /// Changes what is counted for a server. `None` if it is not in the list
    /// any more, or the only one, for which nginx counts nothing.
    fn change<R>(
        &self,
        wanted: &Peer,
        change: impl FnOnce(&mut ngx_http_upstream_rr_peer_t, &mut Health) -> R,
    ) -> Option<R> {
        let locked = Locked::new(self, Access::Write);
        let half = usize::from(wanted.backup);
        if locked.is_single(half) {
            return None;
        }
        let mut found = locked.half(half).find(|peer| {
            // SAFETY: nobody frees it while the list is locked; names and
            // addresses are as long as they say.
            unsafe {
                let peer = peer.as_ref();
                let address =
                    std::slice::from_raw_parts(peer.sockaddr.cast(), peer.socklen as usize);
                *wanted.address == *address && *wanted.server == *peer.server.as_bytes()
            }
        })?;
        // SAFETY: it is locked for writing.
        let peer = unsafe { found.as_mut() };
        let mut health = health(peer);
        let result = change(peer, &mut health);
        write(peer, health);
        Some(result)
    }
}

fn copy(bytes: &[u8]) -> Result<Box<[u8]>, TryReserveError> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy.into_boxed_slice())
}

fn health(peer: &ngx_http_upstream_rr_peer_t) -> Health {
    Health {
        down: peer.down != 0,
        fails: peer.fails,
        accessed: peer.accessed,
        checked: peer.checked,
        max_fails: peer.max_fails,
        fail_timeout: peer.fail_timeout,
    }
}

fn write(peer: &mut ngx_http_upstream_rr_peer_t, health: Health) {
    peer.fails = health.fails;
    peer.accessed = health.accessed;
    peer.checked = health.checked;
}

/// nginx's clock, seconds of the epoch.
fn seconds() -> i64 {
    // SAFETY: set at nginx's start, and by this thread only.
    unsafe { (*ngx_cached_time).sec }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Access {
    Read,
    Write,
}

type List = NonNull<ngx_http_upstream_rr_peers_t>;

/// The lists of a block, the servers and the backup servers, locked as long as
/// this is there. Where they are not shared there is nothing to lock.
struct Locked([Option<List>; 2]);

impl Locked {
    fn new(peers: &Peers, access: Access) -> Locked {
        // SAFETY: `Upstream::peers` was promised that nginx's list is there.
        // nginx sets it when it reads the configuration, and once more when a
        // zone is made, before there are workers.
        let lists = unsafe {
            let primary = NonNull::new(peers.0.as_ref().peer.data.cast());
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
    fn half(&self, half: usize) -> impl Iterator<Item = NonNull<ngx_http_upstream_rr_peer_t>> {
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
    fn is_single(&self, half: usize) -> bool {
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

    fn generation(&self) -> Generation {
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
