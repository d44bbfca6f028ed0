//! Keepalive pools: finding, filling, counting.

use std::rc::Rc;

use crate::fault;
use crate::nginx::{Msec, Request};
use crate::ngx_lua::Settings;
use crate::transport::connection::{Idle, Owner};
use crate::transport::error::{Error, KeepaliveError};
use crate::transport::ids::{ConnectionKey, PoolKey, SessionKey};
use crate::transport::peer::{Peer, PoolName};
use crate::transport::state::pool::{DefaultPeer, NamedPool};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;
use crate::upstream::{Place, Pool};

impl Worker {
    #[inline(always)]
    pub fn find_pool(&mut self, peer: &Peer<'_>) -> Option<PoolKey> {
        if let Some(last) = self.last_pool
            && let Some(named) = self.pools.get(last)
            && named.is_for(peer)
        {
            return Some(last);
        }
        self.find_pool_by_name(peer)
    }

    #[inline(never)]
    pub fn find_pool_by_name(&mut self, peer: &Peer<'_>) -> Option<PoolKey> {
        let name = peer.pool_name();
        let Some(pool) = self.pool_names.get(&*name).copied() else {
            return Some(self.create_pool(name.into(), peer.pool_size?, peer.backlog));
        };
        self.last_pool = Some(pool);
        if let PoolName::Default { with_port } = peer.pool
            && let Some(named) = self.pools.get_mut(pool)
        {
            named.default_peer = Some(DefaultPeer {
                host: peer.host.into(),
                port: peer.port,
                with_port,
            });
        }
        Some(pool)
    }

    pub fn create_pool(&mut self, name: Rc<[u8]>, size: usize, backlog: Option<usize>) -> PoolKey {
        let pool = self.pools.insert(NamedPool {
            name: name.clone(),
            default_peer: None,
            tls: false,
            pool: Pool::new(size, backlog),
        });
        self.pool_names.insert(name, pool);
        pool
    }

    /// The pool of this name, made now if there is none.
    #[inline(never)]
    pub fn pool_named(
        &mut self,
        name: Rc<[u8]>,
        request: Request,
        pool_size: Option<i64>,
    ) -> Result<PoolKey, KeepaliveError> {
        if let Some(pool) = self.pool_names.get(&name) {
            return Ok(*pool);
        }
        let size = match pool_size {
            Some(size) => size,
            None => settings(request)?.pool_size() as i64,
        };
        match usize::try_from(size) {
            Ok(size) if size > 0 => Ok(self.create_pool(name, size, None)),
            _ => Err(KeepaliveError::BadPoolSize(size)),
        }
    }

    /// The pool of a session's connections of its own, if there is one.
    pub fn pool_for_private(&self, key: SessionKey) -> Option<PoolKey> {
        let name = self.sessions.get(key)?.pool_name.as_ref()?;
        self.pool_names.get(name).copied()
    }

    /// A pool that counts nothing goes, and with it its size and backlog.
    pub fn drop_unused_pool(&mut self, pool: PoolKey) {
        let unused = |named: &NamedPool| named.pool.is_unused();
        if self.pools.get(pool).is_some_and(unused)
            && let Some(named) = self.pools.remove(pool)
        {
            self.pool_names.remove(&named.name);
        }
    }

    /// Counts a connection to be opened for a session that was deferred.
    pub fn claim(&mut self, pool: PoolKey) {
        let evicted = self
            .pools
            .get_mut(pool)
            .and_then(|named| named.pool.claim());
        if let Some(evicted) = evicted {
            // the pool does not count it any more
            self.connections.remove(evicted);
        }
    }

    /// Hands an idle connection to a session.
    pub fn take_idle(&mut self, key: ConnectionKey, owner: SessionKey) {
        if let Some(connection) = self.connections.get_mut(key)
            && let Some(session) = self.sessions.get_mut(owner)
        {
            session.enter(State::Private(key));
            connection.begin_use(owner, session.request());
        }
    }

    /// Makes a connection idle in a pool, until it is `due`; the least recently used one goes if
    /// there is no room.
    #[inline(always)]
    pub fn put_idle(
        &mut self,
        pool: PoolKey,
        key: ConnectionKey,
        counted: bool,
        due: Option<Msec>,
    ) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let (place, evicted) = match self.pools.get_mut(pool) {
            Some(named) => {
                named.tls |= connection.tls.is_some();
                named.pool.put(key, counted)
            }
            None => Default::default(),
        };
        connection.owner = Owner::Pool(Idle { pool, place, due });
        fault::point();
        connection.pool = Some(pool);
        if let Some(evicted) = evicted {
            self.close_evicted(evicted);
        }
    }

    /// Puts an idle connection back that was taken from a pool, and not used.
    pub fn put_idle_again(&mut self, pool: PoolKey, key: ConnectionKey) {
        let owner = self
            .connections
            .get(key)
            .map(|connection| &connection.owner);
        let due = match owner {
            Some(Owner::Pool(idle)) => idle.due,
            _ => None,
        };
        self.put_idle(pool, key, true, due);
    }

    pub fn is_alive(&mut self, key: ConnectionKey) -> bool {
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        if connection.nginx.is_closing() {
            return false;
        }
        if connection.tls.is_some() {
            // what came may be TLS's own, e.g. a session ticket
            return connection.receive().is_none() && connection.nginx.arm_read().is_ok();
        }
        if connection.nginx.peek() == Err(libc::EAGAIN) {
            connection.nginx.clear_read_ready();
            return connection.nginx.arm_read().is_ok();
        }
        false
    }

    /// Closes a connection that its pool does not count any more.
    #[cold]
    pub fn close_evicted(&mut self, key: ConnectionKey) {
        self.connections.remove(key);
    }

    pub fn release_only(&mut self, pool: PoolKey) {
        if let Some(named) = self.pools.get_mut(pool) {
            named.pool.release();
        }
    }

    /// Takes a session out of a pool's queue.
    pub fn leave_queue(&mut self, pool: PoolKey, place: Place) {
        if let Some(named) = self.pools.get_mut(pool) {
            named.pool.abandon(place);
        }
        self.drop_unused_pool(pool);
    }

    /// Marks a session as connected, though it has no connection yet. A handshake will take one of
    /// the pool's TLS connections to the host; anything else will open a new plain connection.
    pub fn defer(&mut self, key: SessionKey, pool: PoolKey, host: &[u8], port: u16) {
        let Some(named) = self.pools.get(pool) else {
            return;
        };
        let to_host = |connection: &&ConnectionKey| {
            self.connections
                .get(**connection)
                .is_some_and(|connection| connection.is_tls_to(host, port))
        };
        let model = named.pool.idle().find(to_host);
        if let Some(model) = model.and_then(|model| self.connections.get(*model))
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.state = State::Deferred {
                pool,
                address: Box::new(model.address),
            };
        }
    }
}

/// The directives that the running request goes by.
pub fn settings(request: Request) -> Result<Settings, Error> {
    Settings::of(request).ok_or(Error::Unknown)
}
