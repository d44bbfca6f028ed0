//! The directives of an `upstream` block, and what a block is for: servers used as one.
//!
//! | file | subject |
//! |---|---|
//! | `directives` | the directives |
//! | `current` | the group that is made of a block's servers |
//! | `known` | the groups of this worker |
//! | `check` | `lua_memcached_check` |
//! | `discover` | `lua_memcached_discover` |
//! | `rules` | what nginx -t refuses |
//! | `told` | what is said once of servers that are hardly what was meant |

mod check;
mod current;
mod directives;
mod discover;
mod known;
mod rules;
mod told;

use std::cell::Cell;
use std::collections::TryReserveError;
use std::sync::OnceLock;

use crate::distribution::{BuildError, Method, Scheme};
use crate::group::{Failover, Group, Peer, Policy};
use crate::nginx::{Generation, Live, Module, Peers, Request, Upstream};

pub use check::Check;
pub use current::Current;
pub use directives::{SetCheck, SetDiscover, SetFailover, SetHash};
pub use discover::Discover;
pub use known::{
    Named, count_failure, count_success, forget, give_back_trial, known_number, number_of,
    when_servers_go, with_current, with_group, without_used,
};
pub use rules::check;

/// This module.
static MODULE: OnceLock<&Module<Cell<UpstreamConf>>> = OnceLock::new();

/// Sets the module that makes an [`UpstreamConf`] for each block.
pub fn set_module(module: &'static Module<Cell<UpstreamConf>>) {
    // a second configuration has the same one
    let _ = MODULE.set(module);
}

/// What this module's directives say in an `upstream` block (or, unused, in a `server` block). It
/// belongs to the configuration.
#[derive(Clone, Copy, Debug, Default)]
pub struct UpstreamConf {
    hash: Option<Method>,
    failover: Option<Failover>,
    check: Option<Check>,
    discover: Option<Discover>,
    /// nginx's own `hash`, if the block has it.
    own: Option<Method>,
    /// The block's servers, if they can be read.
    peers: Option<Peers>,
    /// What there is to be told of its servers was told.
    told: bool,
}

/// Why a block cannot be used by key.
#[derive(Debug, thiserror::Error)]
pub enum UpstreamError {
    /// Several servers, and nothing says which has a key.
    #[error(
        "upstream \"{0}\" does not distribute by key \
         (add \"hash $memcached_key consistent\" or \"lua_memcached_hash\")"
    )]
    NotByKey(String),
    /// Its servers are known to another module only.
    #[error("the servers of upstream \"{0}\" are known to its load balancing module only")]
    Foreign(String),
    /// The list is not for the method.
    #[error("upstream \"{0}\": {1}")]
    Unfit(String, BuildError),
}

/// An `upstream` block that is used by key. It is there as long as its configuration.
#[derive(Clone, Copy, Debug)]
pub struct Servers {
    upstream: Upstream,
    peers: Peers,
    conf: UpstreamConf,
}

/// The same block.
impl PartialEq for Servers {
    fn eq(&self, other: &Servers) -> bool {
        self.upstream == other.upstream
    }
}

impl Servers {
    /// The block of a request's configuration with this name, without regard to case. `None`: there
    /// is none.
    ///
    /// # Errors
    ///
    /// If it is there and cannot be used.
    pub fn named(request: Request, name: &[u8]) -> Result<Option<Servers>, UpstreamError> {
        let upstream = Upstream::named(request, name);
        upstream.map(Servers::of).transpose()
    }

    /// The blocks of the current configuration that can be used and have `lua_memcached_check` or
    /// `lua_memcached_discover`.
    pub fn polled() -> impl Iterator<Item = Servers> {
        let blocks = Upstream::current().filter_map(|upstream| Servers::of(upstream).ok());
        blocks.filter(|servers| servers.conf.check.is_some() || servers.conf.discover.is_some())
    }

    /// All blocks are completed.
    fn of(upstream: Upstream) -> Result<Servers, UpstreamError> {
        let conf = UpstreamConf::of(upstream).map(|conf| conf.get());
        let foreign = || UpstreamError::Foreign(text(upstream.name()));
        let conf = conf.ok_or_else(foreign)?;
        Ok(Servers {
            upstream,
            peers: conf.peers.ok_or_else(foreign)?,
            conf,
        })
    }

    /// The block's name.
    pub fn name(&self) -> &[u8] {
        self.upstream.name()
    }

    /// Its servers as nginx has them.
    pub fn peers(&self) -> Peers {
        self.peers
    }

    /// `lua_memcached_check`
    pub fn check(&self) -> Option<Check> {
        self.conf.check
    }

    /// `lua_memcached_discover`: then nginx's servers are those that are asked for the list.
    pub fn discover(&self) -> Option<Discover> {
        self.conf.discover
    }

    /// A group of the servers that nginx has now.
    ///
    /// # Errors
    ///
    /// If they cannot be used by key, or there is no memory.
    pub fn group(&self) -> Result<(Group, Generation), UpstreamError> {
        let (list, generation) = self.peers.list().map_err(|error| self.no_memory(error))?;
        Ok((self.group_of(list)?, generation))
    }

    fn group_of(&self, list: Vec<Peer>) -> Result<Group, UpstreamError> {
        let policy = self.policy(&list)?;
        Group::new(policy, list).map_err(|error| self.unfit(error))
    }

    /// How a list of servers is used.
    fn policy(&self, list: &[Peer]) -> Result<Policy, UpstreamError> {
        let several = |backup| list.iter().filter(|peer| peer.backup == backup).count() > 1;
        let method = match self.conf.method() {
            Some(method) => method,
            None if several(false) || several(true) => {
                return Err(UpstreamError::NotByKey(text(self.name())));
            }
            // one server has all keys
            None => Method::of(Scheme::Consistent),
        };
        Ok(Policy {
            method,
            failover: self.conf.failover.unwrap_or_default(),
            trials: self.conf.check.is_none(),
        })
    }

    fn unfit(&self, error: BuildError) -> UpstreamError {
        UpstreamError::Unfit(text(self.name()), error)
    }

    fn no_memory(&self, error: TryReserveError) -> UpstreamError {
        self.unfit(error.into())
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl UpstreamConf {
    fn of(upstream: Upstream) -> Option<Live<Cell<UpstreamConf>>> {
        upstream.conf(MODULE.get()?)
    }

    /// How keys are distributed.
    fn method(&self) -> Option<Method> {
        self.hash.or(self.own)
    }

    /// Whether a directive of this module is in the block.
    fn is_said(&self) -> bool {
        self.hash.is_some()
            || self.failover.is_some()
            || self.check.is_some()
            || self.discover.is_some()
    }
}
