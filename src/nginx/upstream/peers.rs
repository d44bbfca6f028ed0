//! The servers of a block while nginx runs. With `zone` all workers share what is counted for them,
//! and `resolve` changes the list.

use std::collections::TryReserveError;

use nginx_sys::ngx_int_t;

use super::Upstream;
use super::locked::{Access, Generation, Locked, Server, health, write};
use crate::group::{Choice, Failure, Group, Health, Peer, States};
use crate::nginx::cycle::seconds;

/// The servers of a block. Their list is nginx's, and so is what is counted for them:
/// `memcached_pass` sees the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peers(Upstream);

/// The list has changed since a group was made of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stale;

impl Peers {
    /// Those of a block whose servers are where nginx's own methods keep them.
    pub(super) fn of(upstream: Upstream) -> Peers {
        Peers(upstream)
    }

    fn lock(&self, access: Access) -> Locked {
        Locked::new(self.0, access)
    }

    /// The list: first those that are no backups.
    ///
    /// # Errors
    ///
    /// If there is no memory.
    pub fn list(&self) -> Result<(Vec<Peer>, Generation), TryReserveError> {
        let locked = self.lock(Access::Read);
        let mut list = Vec::new();
        for (half, backup) in [(0, false), (1, true)] {
            for peer in locked.half(half) {
                list.try_reserve(1)?;
                list.push(Peer {
                    server: copy(peer.server.as_bytes())?,
                    name: copy(peer.name.as_bytes())?,
                    weight: u32::try_from(peer.weight).unwrap_or(u32::MAX),
                    backup,
                });
            }
        }
        Ok((list, locked.generation()))
    }

    /// Whether all workers share what is counted for them: the block has a `zone`.
    pub fn are_shared(&self) -> bool {
        self.lock(Access::Read).is_shared()
    }

    /// The server for a key, as [`Group::choose`]. `group` was made of the list of `generation`. A
    /// trial of a disabled server is written down, so that nobody else makes one.
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
            let locked = self.lock(access);
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
        if let Some(choice) = choice.filter(|choice| choice.suspect) {
            locked.note_trial(choice.peer, now);
        }
        Ok(choice)
    }

    /// The servers for the keys of one operation, as [`Group::choose_all`]. False if the list has
    /// changed.
    ///
    /// # Errors
    ///
    /// If there is no memory.
    pub fn choose_all(
        &self,
        group: &Group,
        generation: Generation,
        keys: impl ExactSizeIterator<Item = impl AsRef<[u8]>> + Clone,
        tried: &[usize],
        choices: &mut Vec<Option<Choice>>,
    ) -> Result<bool, TryReserveError> {
        let now = seconds();
        let mut states = Vec::new();
        if !self.states(generation, &mut states)? {
            return Ok(false);
        }
        loop {
            // not locked: there may be many
            group.choose_all(keys.clone(), now, tried, &states[..], choices)?;
            let is_trial = |choice: &&Choice| {
                let state = states.get(choice.peer);
                choice.suspect && state.is_some_and(|state| state.is_trial(now))
            };
            if !choices.iter().flatten().any(|choice| is_trial(&choice)) {
                return Ok(true);
            }
            let locked = self.lock(Access::Write);
            if locked.generation() != generation {
                return Ok(false);
            }
            // another worker may have been faster
            let trials = group.policy().trials;
            let mut lost = Vec::new();
            for choice in choices.iter().flatten().filter(is_trial) {
                let state = locked.health(choice.peer);
                if !state.is_usable(now, trials) {
                    lost.try_reserve(1)?;
                    lost.push((choice.peer, state));
                }
            }
            if lost.is_empty() {
                for choice in choices.iter().flatten().filter(is_trial) {
                    locked.note_trial(choice.peer, now);
                }
                return Ok(true);
            }
            for (peer, state) in lost {
                if let Some(known) = states.get_mut(peer) {
                    *known = state;
                }
            }
        }
    }

    /// What is known of all servers, in the order of the list. False if that has changed.
    ///
    /// # Errors
    ///
    /// If there is no memory.
    pub fn states(
        &self,
        generation: Generation,
        states: &mut Vec<Health>,
    ) -> Result<bool, TryReserveError> {
        let locked = self.lock(Access::Read);
        if locked.generation() != generation {
            return Ok(false);
        }
        states.clear();
        for peer in locked.half(0).chain(locked.half(1)) {
            states.try_reserve(1)?;
            states.push(health(&peer));
        }
        Ok(true)
    }

    /// An operation with this server failed.
    pub fn fail(&self, peer: &Peer) -> Failure {
        self.change(peer, |peer, health, effective_weight| {
            let failure = health.fail(seconds());
            if let Ok(max_fails @ 1..) = ngx_int_t::try_from(health.max_fails) {
                let less = *effective_weight - peer.weight / max_fails;
                *effective_weight = less.max(0);
            }
            failure
        })
        .unwrap_or(Failure::Counted)
    }

    /// An operation with this server, which was a [`Choice::suspect`], was answered. True if the
    /// server was disabled and is used again.
    pub fn succeed(&self, peer: &Peer) -> bool {
        self.change(peer, |_, health, _| health.succeed())
            .unwrap_or_default()
    }

    /// As [`Health::give_back`].
    pub fn give_back(&self, peer: &Peer, trial: i64) {
        self.change(peer, |_, health, _| health.give_back(trial));
    }

    /// A check found this server in order. True if it was disabled.
    pub fn revive(&self, peer: &Peer) -> bool {
        self.change(peer, |_, health, _| health.revive())
            .unwrap_or_default()
    }

    /// Changes what is counted for a server. `None` if it is not in the list any more, or the only
    /// one, for which nginx counts nothing.
    fn change<R>(
        &self,
        wanted: &Peer,
        change: impl FnOnce(&Server, &mut Health, &mut ngx_int_t) -> R,
    ) -> Option<R> {
        let locked = self.lock(Access::Write);
        let half = usize::from(wanted.backup);
        if locked.is_single(half) {
            return None;
        }
        let found = locked.half(half).find(|peer| {
            *wanted.name == *peer.name.as_bytes() && *wanted.server == *peer.server.as_bytes()
        })?;
        let (mut health, mut weight) = (health(&found), found.effective_weight);
        let result = change(&found, &mut health, &mut weight);
        write(found, health, weight);
        Some(result)
    }
}

fn copy(bytes: &[u8]) -> Result<Box<[u8]>, TryReserveError> {
    let mut copy = Vec::new();
    copy.try_reserve_exact(bytes.len())?;
    copy.extend_from_slice(bytes);
    Ok(copy.into_boxed_slice())
}
