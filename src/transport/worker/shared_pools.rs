//! The shared connections to each server: finding and counting.

use crate::conf::LocConf;
use crate::nginx::{Msec, Request};
use crate::ngx_lua::Settings;
use crate::transport::connection::Connection;
use crate::transport::ids::{ConnectionKey, SharedPoolKey};
use crate::transport::peer::{Peer, PoolName};
use crate::transport::state::shared_pool::{SharedPool, SharedPoolName};
use crate::transport::worker::Worker;
use crate::upstream::Usage;

/// How many shared pools there may be for those without connections to stay.
pub const MAX_LEARNED: usize = 1024;

impl Worker {
    #[inline(always)]
    pub fn find_shared_pool(&mut self, peer: &Peer<'_>, request: Request) -> SharedPoolKey {
        let conf = LocConf::of(request);
        let max_value = conf.max_value_size();
        let last = self.shared_pools.get(self.last_shared_pool);
        if last.is_some_and(|shared_pool| shared_pool.is_for(peer, max_value)) {
            return self.last_shared_pool;
        }
        self.find_shared_pool_by_name(peer, request, max_value)
    }

    #[inline(never)]
    pub fn find_shared_pool_by_name(
        &mut self,
        peer: &Peer<'_>,
        request: Request,
        max_value: usize,
    ) -> SharedPoolKey {
        let name = SharedPoolName {
            pool: peer.pool_name().into(),
            host: peer.host.into(),
            port: peer.port,
            max_value,
        };
        let found = self.shared_pool_names.get(&name).copied();
        let shared_pool = found.unwrap_or_else(|| {
            let settings = Settings::of(request);
            let keepalive = settings.map_or(0, |settings| settings.keepalive_timeout());
            let shared_pool = self.shared_pools.insert(SharedPool {
                name: name.clone(),
                default_name: None,
                address: None,
                renew_at: Msec::MAX,
                renewal: None,
                connections: Vec::new(),
                last_chosen: 0,
                current: None,
                usage: Usage::new(peer.multiplex.connections, keepalive),
                nodelay: false,
                tls: false,
                loads: Vec::new(),
            });
            self.shared_pool_names.insert(name, shared_pool);
            shared_pool
        });
        if let PoolName::Default { with_port } = peer.pool
            && let Some(shared_pool) = self.shared_pools.get_mut(shared_pool)
        {
            shared_pool.default_name = Some(with_port);
        }
        self.last_shared_pool = shared_pool;
        shared_pool
    }

    /// The shared pool that a session will be attached to, if there is one.
    pub fn known_shared_pool(&self, peer: &Peer<'_>, request: Request) -> Option<SharedPoolKey> {
        let conf = LocConf::of(request);
        let name = SharedPoolName {
            pool: peer.pool_name().into(),
            host: peer.host.into(),
            port: peer.port,
            max_value: conf.max_value_size(),
        };
        self.shared_pool_names.get(&name).copied()
    }

    /// Whether a shared pool's server is spoken to by TLS.
    pub fn uses_tls(&self, shared_pool: SharedPoolKey) -> bool {
        self.shared_pools
            .get(shared_pool)
            .is_some_and(|shared_pool| shared_pool.tls)
    }

    /// Whether a connection stands that takes work, or is being opened.
    pub fn has_connection(&self, shared_pool: SharedPoolKey) -> bool {
        self.is_standing(shared_pool) || self.is_opening(shared_pool)
    }

    /// Whether a connection stands that takes work.
    pub fn is_standing(&self, shared_pool: SharedPoolKey) -> bool {
        let shared_pool = self.shared_pools.get(shared_pool);
        shared_pool.is_some_and(|shared_pool| shared_pool.is_standing(&self.connections))
    }

    /// Whether a connection is being opened.
    pub fn is_opening(&self, shared_pool: SharedPoolKey) -> bool {
        self.connections_of(shared_pool)
            .any(|connection| connection.is_connecting() && !connection.is_leaving())
    }

    pub fn connections_of(&self, shared_pool: SharedPoolKey) -> impl Iterator<Item = &Connection> {
        let connections = self
            .shared_pools
            .get(shared_pool)
            .map(|shared_pool| shared_pool.connections.as_slice());
        let connections = connections.unwrap_or_default().iter();
        connections.filter_map(|connection| self.connections.get(*connection))
    }

    /// Whether a shared pool has more connections than it should: those that replaced stalled ones,
    /// which then recovered.
    pub fn is_surplus(&self, key: ConnectionKey) -> bool {
        let Some(shared_pool) = self.shared_pool_with(key) else {
            return false;
        };
        let Some(shared_pool) = self.shared_pools.get(shared_pool) else {
            return true;
        };
        let connections = shared_pool
            .connections
            .iter()
            .filter_map(|connection| self.connections.get(*connection));
        let fit = connections
            .filter(|connection| connection.takes_work())
            .count();
        fit > shared_pool.usage.wanted()
    }

    /// A shared pool that nobody uses goes.
    pub fn drop_unused_shared_pool(&mut self, key: SharedPoolKey) {
        // that a server uses TLS is remembered, for a limited number of servers
        let learned = self.shared_pools.len() <= MAX_LEARNED;
        let unused = |shared_pool: &SharedPool| {
            shared_pool.usage.has_no_users()
                && shared_pool.connections.is_empty()
                && !(shared_pool.tls && learned)
        };
        if self.shared_pools.get(key).is_some_and(unused)
            && let Some(shared_pool) = self.shared_pools.remove(key)
        {
            debug_assert!(shared_pool.usage.is_balanced());
            self.shared_pool_names.remove(&shared_pool.name);
        }
    }

    /// Updates how many unsent bytes a shared pool has. Returns the pool if operations wait for
    /// room, because there may be room now.
    pub fn count_unsent(&mut self, key: ConnectionKey) -> Option<SharedPoolKey> {
        let connection = self.connections.get_mut(key)?;
        let now = connection.pipeline.unsent_len();
        let sharing = connection.sharing_mut()?;
        let of = sharing.shared_pool;
        let before = std::mem::replace(&mut sharing.unsent, now);
        let shared_pool = self.shared_pools.get_mut(of)?;
        shared_pool.usage.count_unsent(before, now);
        (!shared_pool.usage.queue.is_empty()).then_some(of)
    }

    /// The shared pool that a connection belongs to, if it does to one.
    pub fn shared_pool_with(&self, key: ConnectionKey) -> Option<SharedPoolKey> {
        let sharing = self.connections.get(key)?.sharing()?;
        Some(sharing.shared_pool)
    }

    /// Cancels the look-ups of names that are looked up again: the resolvers of the cycle go.
    pub fn end_renewals(&mut self) {
        for shared_pool in self.shared_pools.values_mut() {
            shared_pool.renewal = None;
        }
    }
}
