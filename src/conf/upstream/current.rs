//! The group that is made of a block's servers, in one worker.

use std::rc::Rc;

use super::{Servers, UpstreamError};
use crate::group::{Choice, Group, Health, translated};
use crate::nginx::Generation;

/// A group of the servers that nginx has at the moment. It is made anew when nginx has changed the
/// list.
#[derive(Debug)]
pub struct Current {
    servers: Servers,
    group: Rc<Group>,
    generation: Generation,
}

/// The answer of [`Current::choose`].
#[derive(Debug)]
pub struct Chosen {
    /// The server, by its index in `group`. `None`: no live upstreams.
    pub choice: Option<Choice>,
    /// The group that was asked.
    pub group: Rc<Group>,
    /// The group of before, if the list has changed: connections to addresses that have vanished
    /// are to be closed.
    pub before: Option<Rc<Group>>,
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
            group: Rc::new(group),
            generation,
        })
    }

    /// The servers' block.
    pub fn servers(&self) -> Servers {
        self.servers
    }

    /// The group as it was when it was last asked.
    pub fn group(&self) -> &Rc<Group> {
        &self.group
    }

    /// The group of now, and what is known of its servers, put into `states`.
    ///
    /// # Errors
    ///
    /// As [`Self::choose`], or if there is no memory.
    pub fn look(&mut self, states: &mut Vec<Health>) -> Result<Rc<Group>, UpstreamError> {
        for _ in 0..MAX_CHANGES {
            let known = self.servers.peers().states(self.generation, states);
            if known.map_err(|error| self.servers.no_memory(error))? {
                break;
            }
            self.renew()?;
        }
        Ok(Rc::clone(&self.group))
    }

    /// The server for a key. `tried` are indexes in `of`, the group that an earlier choice of the
    /// same operation came from.
    ///
    /// # Errors
    ///
    /// If the list has changed, and the new one cannot be used.
    pub fn choose(
        &mut self,
        key: &[u8],
        tried: &[usize],
        of: Option<&Group>,
    ) -> Result<Chosen, UpstreamError> {
        let mut before = None;
        for _ in 0..MAX_CHANGES {
            let known = self.known(tried, of)?;
            let tried = known.as_deref().unwrap_or(tried);
            let peers = self.servers.peers();
            if let Ok(choice) = peers.choose(&self.group, self.generation, key, tried) {
                return Ok(Chosen {
                    choice,
                    group: Rc::clone(&self.group),
                    before,
                });
            }
            let old = self.renew()?;
            before.get_or_insert(old);
        }
        Ok(Chosen {
            choice: None,
            group: Rc::clone(&self.group),
            before,
        })
    }

    /// The servers for the keys of one operation, put into `choices`: indexes in the group that is
    /// returned, and the group of before if the list has changed, as for [`Chosen`]. `tried` and
    /// `of` as for [`Self::choose`].
    ///
    /// # Errors
    ///
    /// As [`Self::choose`], or if there is no memory.
    pub fn choose_all<'a>(
        &mut self,
        keys: impl Iterator<Item = &'a [u8]> + Clone,
        tried: &[usize],
        of: Option<&Group>,
        choices: &mut Vec<Option<Choice>>,
    ) -> Result<(Rc<Group>, Option<Rc<Group>>), UpstreamError> {
        let mut before = None;
        for _ in 0..MAX_CHANGES {
            let known = self.known(tried, of)?;
            let tried = known.as_deref().unwrap_or(tried);
            let peers = self.servers.peers();
            let chosen = peers
                .choose_all(&self.group, self.generation, keys.clone(), tried, choices)
                .map_err(|error| self.servers.no_memory(error))?;
            if chosen {
                return Ok((Rc::clone(&self.group), before));
            }
            let old = self.renew()?;
            before.get_or_insert(old);
        }
        choices.clear();
        for _ in keys {
            choices
                .try_reserve(1)
                .map_err(|error| self.servers.no_memory(error))?;
            choices.push(None);
        }
        Ok((Rc::clone(&self.group), before))
    }

    /// Servers of another group by their indexes in the one of now. `None`: it is the same one.
    fn known(
        &self,
        tried: &[usize],
        of: Option<&Group>,
    ) -> Result<Option<Vec<usize>>, UpstreamError> {
        match of {
            Some(of) if !tried.is_empty() && !std::ptr::eq(of, &*self.group) => {
                let known = translated(tried, of.peers(), self.group.peers());
                known
                    .map(Some)
                    .map_err(|error| self.servers.no_memory(error))
            }
            _ => Ok(None),
        }
    }

    /// Takes nginx's list of now; returns the group of before.
    fn renew(&mut self) -> Result<Rc<Group>, UpstreamError> {
        let next = Current::new(self.servers)?;
        Ok(std::mem::replace(self, next).group)
    }
}
