//! The servers of an `upstream` block, used as one.

use std::collections::TryReserveError;

use super::check::Check;
use super::conf::UpstreamConf;
use super::discover::Discover;
use crate::distribution::{BuildError, Method, Scheme};
use crate::group::{Group, Peer, Policy};
use crate::nginx::{Generation, Peers, Request, Upstream};

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
    pub(super) upstream: Upstream,
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
    pub(super) fn of(upstream: Upstream) -> Result<Servers, UpstreamError> {
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

    pub(super) fn group_of(&self, list: Vec<Peer>) -> Result<Group, UpstreamError> {
        let policy = self.policy(&list)?;
        Group::new(policy, list).map_err(|error| self.unfit(error))
    }

    /// How a list of servers is used.
    pub(super) fn policy(&self, list: &[Peer]) -> Result<Policy, UpstreamError> {
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

    pub(super) fn unfit(&self, error: BuildError) -> UpstreamError {
        UpstreamError::Unfit(text(self.name()), error)
    }

    pub(super) fn no_memory(&self, error: TryReserveError) -> UpstreamError {
        self.unfit(error.into())
    }
}

/// A name as text.
pub(super) fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}
