//! The shared connections to each server: finding and counting.

use std::ptr::NonNull;

use nginx_sys::ngx_http_request_t;

use crate::conf::LocConf;
use crate::nginx::Msec;
use crate::ngx_lua::Settings;
use crate::transport::ids::{LinkKey, TrunkKey};
use crate::transport::link::{Link, Owner};
use crate::transport::peer::{Peer, PoolName};
use crate::transport::state::trunk::{Trunk, TrunkName};
use crate::transport::worker::Worker;

/// How many trunks there may be for those without connections to stay.
pub const MAX_LEARNED: usize = 1024;

impl Worker {
    #[inline(always)]
    pub fn find_trunk(
        &mut self,
        peer: &Peer<'_>,
        request: NonNull<ngx_http_request_t>,
    ) -> TrunkKey {
        // SAFETY: the request is the running one.
        let conf = unsafe { LocConf::of(request) };
        let max_value = conf.map_or(usize::MAX, LocConf::max_value_size);
        let last = self.trunks.get(self.last_trunk);
        if last.is_some_and(|trunk| trunk.is_for(peer, max_value)) {
            return self.last_trunk;
        }
        self.find_trunk_named(peer, request, max_value)
    }

    #[inline(never)]
    pub fn find_trunk_named(
        &mut self,
        peer: &Peer<'_>,
        request: NonNull<ngx_http_request_t>,
        max_value: usize,
    ) -> TrunkKey {
        let name = TrunkName {
            pool: peer.pool_name().into(),
            host: peer.host.into(),
            port: peer.port,
            max_value,
        };
        let found = self.trunk_names.get(&name).copied();
        let trunk = found.unwrap_or_else(|| {
            // SAFETY: as above.
            let settings = unsafe { Settings::of(request) };
            let trunk = self.trunks.insert(Trunk {
                name: name.clone(),
                usual: None,
                address: None,
                renew_at: Msec::MAX,
                renewal: None,
                links: Vec::new(),
                turn: 0,
                current: None,
                joining: Default::default(),
                queue: Default::default(),
                operations: 0,
                unsent: 0,
                users: 0,
                served: 0,
                plain: false,
                connections: peer.multiplex.connections,
                nodelay: false,
                keepalive: settings.map_or(0, |settings| settings.keepalive_timeout()),
                kept: false,
                retry_at: 0,
                tls: false,
                loads: Vec::new(),
            });
            self.trunk_names.insert(name, trunk);
            trunk
        });
        if let PoolName::Usual { with_port } = peer.pool
            && let Some(trunk) = self.trunks.get_mut(trunk)
        {
            trunk.usual = Some(with_port);
        }
        self.last_trunk = trunk;
        trunk
    }

    /// The trunk that a session will be attached to, if there is one.
    pub fn known_trunk(
        &self,
        peer: &Peer<'_>,
        request: NonNull<ngx_http_request_t>,
    ) -> Option<TrunkKey> {
        // SAFETY: the request is the running one.
        let conf = unsafe { LocConf::of(request) };
        let name = TrunkName {
            pool: peer.pool_name().into(),
            host: peer.host.into(),
            port: peer.port,
            max_value: conf.map_or(usize::MAX, LocConf::max_value_size),
        };
        self.trunk_names.get(&name).copied()
    }

    /// Whether a trunk's server is spoken to by TLS.
    pub fn uses_tls(&self, trunk: TrunkKey) -> bool {
        self.trunks.get(trunk).is_some_and(|trunk| trunk.tls)
    }

    /// Whether a link stands that takes work, or is being opened.
    pub fn has_link(&self, trunk: TrunkKey) -> bool {
        self.is_standing(trunk) || self.is_opening(trunk)
    }

    /// Whether a link stands that takes work.
    pub fn is_standing(&self, trunk: TrunkKey) -> bool {
        let trunk = self.trunks.get(trunk);
        trunk.is_some_and(|trunk| trunk.is_standing(&self.links))
    }

    /// Whether a link is being opened.
    pub fn is_opening(&self, trunk: TrunkKey) -> bool {
        self.trunk_links(trunk)
            .any(|link| link.is_connecting() && !link.is_leaving())
    }

    pub fn trunk_links(&self, trunk: TrunkKey) -> impl Iterator<Item = &Link> {
        let links = self.trunks.get(trunk).map(|trunk| trunk.links.as_slice());
        let links = links.unwrap_or_default().iter();
        links.filter_map(|link| self.links.get(*link))
    }

    /// Whether a trunk has more links than it should: those that replaced
    /// overdue ones which then came back.
    pub fn is_surplus(&self, key: LinkKey) -> bool {
        let Some(Owner::Trunk { trunk, .. }) = self.links.get(key).map(|link| link.owner) else {
            return false;
        };
        let Some(trunk) = self.trunks.get(trunk) else {
            return true;
        };
        let links = trunk.links.iter().filter_map(|link| self.links.get(*link));
        let fit = links.filter(|link| link.takes_work()).count();
        fit > trunk.connections
    }

    /// A trunk that nobody uses goes.
    pub fn drop_unused_trunk(&mut self, key: TrunkKey) {
        // what was learned of servers is kept, but not of any number of them
        let learned = self.trunks.len() <= MAX_LEARNED;
        let unused =
            |trunk: &Trunk| trunk.users == 0 && trunk.links.is_empty() && !(trunk.tls && learned);
        if self.trunks.get(key).is_some_and(unused)
            && let Some(trunk) = self.trunks.remove(key)
        {
            debug_assert_eq!(
                (trunk.operations, trunk.unsent, trunk.queue.len()),
                (0, 0, 0)
            );
            self.trunk_names.remove(&trunk.name);
        }
    }

    /// Has a link's trunk count what it has still to send. The trunk, if
    /// somebody waits for room there, which there may be now.
    pub fn count_unsent(&mut self, key: LinkKey) -> Option<TrunkKey> {
        let link = self.links.get_mut(key)?;
        let Owner::Trunk { trunk: of, .. } = link.owner else {
            return None;
        };
        let trunk = self.trunks.get_mut(of)?;
        let sharing = link.sharing.as_mut()?;
        let now = link.pipeline.unsent_len();
        trunk.count_unsent(std::mem::replace(&mut sharing.unsent, now), now);
        (!trunk.queue.is_empty()).then_some(of)
    }

    /// Gives up what is looked up again: the resolvers of the cycle go.
    pub fn end_renewals(&mut self) {
        for trunk in self.trunks.values_mut() {
            trunk.renewal = None;
        }
    }
}
