//! The directives of an `upstream` block, and what a block is for: servers used
//! as one.
//!
//! | file | subject |
//! |---|---|
//! | `directives` | the handlers of the directives |
//! | `current` | the group that is made of a block's servers |
//! | `check` | `lua_memcached_check` |
//! | `discover` | `lua_memcached_discover` |
//! | `rules` | what nginx -t refuses |

mod check;
mod current;
mod directives;
mod discover;
mod rules;

use std::collections::TryReserveError;
use std::ffi::c_void;
use std::ptr::NonNull;
use std::sync::atomic::Ordering;

use nginx_sys::{ngx_conf_t, ngx_http_request_t, ngx_palloc};

use super::INDEX;
use crate::distribution::{BuildError, Method, Scheme};
use crate::group::{Failover, Group, Peer, Policy};
use crate::nginx::{Generation, Peers, Upstream};

pub use check::Check;
pub use current::{Chosen, Current};
pub use directives::{set_check, set_discover, set_failover, set_hash};
pub use discover::Discover;
pub use rules::check;

/// What this module's directives say in an `upstream` block (or, unused, in a
/// `server` block). It belongs to the configuration.
#[derive(Debug)]
pub struct UpstreamConf {
    hash: Option<Method>,
    failover: Option<Failover>,
    check: Option<Check>,
    discover: Option<Discover>,
    /// nginx's own `hash`, if the block has it.
    own: Option<Method>,
    /// Whether the block's servers can be read.
    readable: bool,
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

/// An `upstream` block that is used by key.
#[derive(Clone, Copy, Debug)]
pub struct Servers {
    upstream: Upstream,
    peers: Peers,
    conf: NonNull<UpstreamConf>,
}

impl Servers {
    /// The block with this name, without regard to case. `None`: there is none.
    ///
    /// # Errors
    ///
    /// If it is there and cannot be used.
    ///
    /// # Safety
    ///
    /// `request` is live. The value must not outlive its configuration.
    pub unsafe fn named(
        request: *mut ngx_http_request_t,
        name: &[u8],
    ) -> Result<Option<Servers>, UpstreamError> {
        // SAFETY: by this function's contract.
        unsafe {
            match Upstream::named((*request).main_conf, name) {
                None => Ok(None),
                Some(upstream) => Servers::of(upstream).map(Some),
            }
        }
    }

    /// # Safety
    ///
    /// As for [`Self::named`]; all blocks are completed.
    unsafe fn of(upstream: Upstream) -> Result<Servers, UpstreamError> {
        // SAFETY: by this function's contract.
        let conf = unsafe { UpstreamConf::of(upstream) };
        match conf.filter(|conf| conf.readable).map(NonNull::from) {
            None => Err(UpstreamError::Foreign(text(upstream.name()))),
            Some(conf) => Ok(Servers {
                upstream,
                // SAFETY: `readable` is what was found out about it.
                peers: unsafe { upstream.peers() },
                conf,
            }),
        }
    }

    fn conf(&self) -> &UpstreamConf {
        // SAFETY: the configuration is there, as whoever made this promised.
        unsafe { self.conf.as_ref() }
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
        self.conf().check
    }

    /// `lua_memcached_discover`: then nginx's servers are those that are asked
    /// for the list.
    pub fn discover(&self) -> Option<Discover> {
        self.conf().discover
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

    /// A group of other servers, which were discovered.
    ///
    /// # Errors
    ///
    /// As for [`Self::group`].
    pub fn group_of(&self, list: Vec<Peer>) -> Result<Group, UpstreamError> {
        let several = |backup| list.iter().filter(|peer| peer.backup == backup).count() > 1;
        let method = match self.conf().method() {
            Some(method) => method,
            None if several(false) || several(true) => {
                return Err(UpstreamError::NotByKey(text(self.name())));
            }
            // one server has all keys
            None => Method::of(Scheme::Consistent),
        };
        let policy = Policy {
            method,
            failover: self.conf().failover.unwrap_or_default(),
            trials: self.conf().check.is_none(),
        };
        Group::new(policy, list).map_err(|error| UpstreamError::Unfit(text(self.name()), error))
    }

    fn no_memory(&self, error: TryReserveError) -> UpstreamError {
        UpstreamError::Unfit(text(self.name()), error.into())
    }
}

fn text(name: &[u8]) -> String {
    String::from_utf8_lossy(name).into_owned()
}

impl UpstreamConf {
    /// # Safety
    ///
    /// The reference must not outlive the configuration.
    unsafe fn of<'a>(upstream: Upstream) -> Option<&'a UpstreamConf> {
        let conf = upstream.module_conf(INDEX.load(Ordering::Relaxed));
        // SAFETY: `create_srv_conf` made it.
        unsafe { conf.cast::<UpstreamConf>().as_ref() }
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

/// `create_srv_conf`
pub unsafe extern "C" fn create(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: nginx passes the configuration being read; its pool gives
    // memory that is big and aligned enough, or null.
    unsafe {
        let conf = ngx_palloc((*cf).pool, size_of::<UpstreamConf>()).cast::<UpstreamConf>();
        if !conf.is_null() {
            conf.write(UpstreamConf {
                hash: None,
                failover: None,
                check: None,
                discover: None,
                own: None,
                readable: false,
            });
        }
        conf.cast()
    }
}
