//! What the directives of an `upstream` block say.

use std::cell::Cell;
use std::sync::OnceLock;

use super::check::Check;
use super::discover::Discover;
use crate::distribution::Method;
use crate::group::Failover;
use crate::nginx::{Live, Module, Peers, Upstream};

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
    pub hash: Option<Method>,
    pub failover: Option<Failover>,
    pub check: Option<Check>,
    pub discover: Option<Discover>,
    /// nginx's own `hash`, if the block has it.
    pub own: Option<Method>,
    /// The block's servers, if they can be read.
    pub peers: Option<Peers>,
    /// What there is to be told of its servers was told.
    pub told: bool,
}

impl UpstreamConf {
    /// That of a block, if there is one.
    pub fn of(upstream: Upstream) -> Option<Live<Cell<UpstreamConf>>> {
        upstream.conf(MODULE.get()?)
    }

    /// How keys are distributed.
    pub fn method(&self) -> Option<Method> {
        self.hash.or(self.own)
    }

    /// Whether a directive of this module is in the block.
    pub fn is_said(&self) -> bool {
        self.hash.is_some()
            || self.failover.is_some()
            || self.check.is_some()
            || self.discover.is_some()
    }
}
