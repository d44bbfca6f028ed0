//! The group that is made of a block's servers, in one worker.

use std::rc::Rc;

use super::servers::{Servers, UpstreamError};
use crate::group::{Choice, Failure, Group, Health, Local, Peer, named, vanished};
use crate::nginx::{Generation, seconds};

/// Names of servers: addresses.
pub type Names = Vec<Box<[u8]>>;

/// A group of the servers that nginx has at the moment, or of those that were discovered. It is
/// made anew when the list has changed.
#[derive(Debug)]
pub struct Current {
    servers: Servers,
    list: List,
    /// Names of servers that were in a list of before.
    gone: Names,
}

/// Where the servers are known from.
#[derive(Debug)]
enum List {
    /// From nginx, which keeps what is counted for them.
    Nginx(Rc<Group>, Generation),
    /// From an endpoint.
    Discovered(Local),
}

/// The answer of [`Current::choose`].
#[derive(Debug)]
pub struct Chosen {
    /// The server, by its index in `group`. `None`: no live upstreams.
    pub choice: Option<Choice>,
    /// The group that was asked.
    pub group: Rc<Group>,
}

/// How often a list may change while a server is being chosen.
const MAX_CHANGES: usize = 10;

impl Current {
    /// A group of the servers of now.
    ///
    /// # Errors
    ///
    /// As [`Servers::group`].
    pub fn new(servers: Servers) -> Result<Current, UpstreamError> {
        let (group, generation) = servers.group()?;
        Ok(Current {
            servers,
            list: List::Nginx(Rc::new(group), generation),
            gone: Vec::new(),
        })
    }

    /// The servers' block.
    pub fn servers(&self) -> Servers {
        self.servers
    }

    /// The group as it was when it was last asked.
    pub fn group(&self) -> &Rc<Group> {
        match &self.list {
            List::Nginx(group, _) => group,
            List::Discovered(local) => local.group(),
        }
    }

    /// The group of now, and what is known of its servers, put into `states`.
    ///
    /// # Errors
    ///
    /// As [`Self::choose`], or if there is no memory.
    pub fn look(&mut self, states: &mut Vec<Health>) -> Result<Rc<Group>, UpstreamError> {
        for _ in 0..MAX_CHANGES {
            let known = match &self.list {
                List::Nginx(_, generation) => self.servers.peers().states(*generation, states),
                List::Discovered(local) => copy(local.states(), states).map(|()| true),
            };
            if known.map_err(|error| self.servers.no_memory(error))? {
                break;
            }
            self.renew()?;
        }
        Ok(Rc::clone(self.group()))
    }

    /// The server for a key; none of those that were `tried`, by their names.
    ///
    /// # Errors
    ///
    /// If the list has changed, and the new one cannot be used.
    pub fn choose(&mut self, key: &[u8], tried: &[&[u8]]) -> Result<Chosen, UpstreamError> {
        for _ in 0..MAX_CHANGES {
            let tried = &*self.named(tried)?;
            let choice = match &mut self.list {
                List::Discovered(local) => Ok(local.choose(key, seconds(), tried)),
                List::Nginx(group, generation) => {
                    let peers = self.servers.peers();
                    peers.choose(group, *generation, key, tried)
                }
            };
            if let Ok(choice) = choice {
                return Ok(Chosen {
                    choice,
                    group: Rc::clone(self.group()),
                });
            }
            self.renew()?;
        }
        Ok(Chosen {
            choice: None,
            group: Rc::clone(self.group()),
        })
    }

    /// The servers for the keys of one operation, put into `choices`: indexes in the group that is
    /// returned. `tried` as for [`Self::choose`].
    ///
    /// # Errors
    ///
    /// As [`Self::choose`], or if there is no memory.
    pub fn choose_all(
        &mut self,
        keys: impl ExactSizeIterator<Item = impl AsRef<[u8]>> + Clone,
        tried: &[&[u8]],
        choices: &mut Vec<Option<Choice>>,
    ) -> Result<Rc<Group>, UpstreamError> {
        for _ in 0..MAX_CHANGES {
            let tried = &*self.named(tried)?;
            let chosen = match &mut self.list {
                List::Discovered(local) => {
                    let chosen = local.choose_all(keys.clone(), seconds(), tried, choices);
                    chosen.map(|()| true)
                }
                List::Nginx(group, generation) => {
                    let peers = self.servers.peers();
                    peers.choose_all(group, *generation, keys.clone(), tried, choices)
                }
            };
            if chosen.map_err(|error| self.servers.no_memory(error))? {
                return Ok(Rc::clone(self.group()));
            }
            self.renew()?;
        }
        choices.clear();
        for _ in keys {
            choices
                .try_reserve(1)
                .map_err(|error| self.servers.no_memory(error))?;
            choices.push(None);
        }
        Ok(Rc::clone(self.group()))
    }

    /// Servers by their indexes in the group of now.
    fn named(&self, names: &[&[u8]]) -> Result<Vec<usize>, UpstreamError> {
        named(self.group().peers(), names).map_err(|error| self.servers.no_memory(error))
    }

    /// An operation with this server failed.
    pub fn fail(&mut self, peer: &Peer) -> Failure {
        match &mut self.list {
            List::Nginx(..) => self.servers.peers().fail(peer),
            List::Discovered(local) => local.fail(peer, seconds()),
        }
    }

    /// An operation with this server, which was a [`Choice::suspect`], was answered. True if the
    /// server was disabled and is used again.
    pub fn succeed(&mut self, peer: &Peer) -> bool {
        match &mut self.list {
            List::Nginx(..) => self.servers.peers().succeed(peer),
            List::Discovered(local) => local.succeed(peer),
        }
    }

    /// Since when a trial of this disabled server is under way.
    pub fn trial(&mut self, server: &[u8]) -> Option<i64> {
        let mut states = Vec::new();
        let group = self.look(&mut states).ok()?;
        let mut all = group.peers().iter().zip(&states);
        let (_, state) = all.find(|(peer, _)| *peer.name == *server)?;
        state.trial()
    }

    /// The trial that began then has no result and never will: another one may be made.
    pub fn give_back(&mut self, peer: &Peer, trial: i64) {
        match &mut self.list {
            List::Nginx(..) => self.servers.peers().give_back(peer, trial),
            List::Discovered(local) => local.give_back(peer, trial),
        }
    }

    /// A check found this server in order. True if it was disabled.
    pub fn revive(&mut self, peer: &Peer) -> bool {
        match &mut self.list {
            List::Nginx(..) => self.servers.peers().revive(peer),
            List::Discovered(local) => local.revive(peer),
        }
    }

    /// Those that have failed too often.
    ///
    /// # Errors
    ///
    /// As [`Self::look`].
    pub fn disabled(&mut self) -> Result<Vec<Peer>, UpstreamError> {
        let mut states = Vec::new();
        let group = self.look(&mut states)?;
        let all = group.peers().iter().zip(&states);
        let disabled = all.filter(|(_, state)| state.is_disabled() && !state.down);
        Ok(disabled.map(|(peer, _)| peer.clone()).collect())
    }

    /// Puts a list in place that was discovered. The block's backup servers stay.
    ///
    /// # Errors
    ///
    /// If it cannot be used: then the list of before stays.
    pub fn replace(&mut self, mut list: Vec<Peer>) -> Result<(), UpstreamError> {
        let no_memory = |error| self.servers.no_memory(error);
        let (endpoints, generation) = self.servers.peers().list().map_err(no_memory)?;
        let backups = endpoints.into_iter().filter(|peer| peer.backup);
        for backup in backups {
            list.try_reserve(1).map_err(no_memory)?;
            list.push(backup);
        }
        let gone = match &mut self.list {
            List::Discovered(local) => {
                let gone = local.replace(list);
                gone.map_err(|error| self.servers.unfit(error))?
            }
            List::Nginx(group, _) => {
                let mut states = Vec::new();
                let peers = self.servers.peers();
                peers.states(generation, &mut states).map_err(no_memory)?;
                // they have the endpoint's limits
                let limits = states
                    .first()
                    .map_or((1, 10), |state| (state.max_fails, state.fail_timeout));
                let policy = self.servers.policy(&list)?;
                let local = Local::new(policy, list, Health::new(limits.0, limits.1))
                    .map_err(|error| self.servers.unfit(error))?;
                let gone = absent(group, local.group());
                self.list = List::Discovered(local);
                gone
            }
        };
        self.part_with(gone);
        Ok(())
    }

    /// Takes nginx's list of now.
    fn renew(&mut self) -> Result<(), UpstreamError> {
        let (group, generation) = self.servers.group()?;
        let gone = absent(self.group(), &group);
        self.list = List::Nginx(Rc::new(group), generation);
        self.part_with(gone);
        Ok(())
    }

    fn part_with(&mut self, gone: Vec<Peer>) {
        // without memory, their connections go when their time is over
        if self.gone.try_reserve(gone.len()).is_ok() {
            self.gone.extend(gone.into_iter().map(|peer| peer.name));
        }
    }

    /// Whether servers have gone that were not told yet.
    pub fn has_parted(&self) -> bool {
        !self.gone.is_empty()
    }

    /// The names of servers that were in a list of before, which are told once.
    pub fn take_gone(&mut self) -> Names {
        std::mem::take(&mut self.gone)
    }
}

/// Those of a group whose addresses are not in another.
fn absent(old: &Group, new: &Group) -> Vec<Peer> {
    let gone = vanished(old.peers(), new.peers()).unwrap_or_default();
    let gone = gone
        .into_iter()
        .filter_map(|at| old.peers().get(at).cloned());
    gone.collect()
}

fn copy(from: &[Health], to: &mut Vec<Health>) -> Result<(), std::collections::TryReserveError> {
    to.clear();
    to.try_reserve(from.len())?;
    to.extend_from_slice(from);
    Ok(())
}
