//! A place is free: whoever waits longest gets it.

use crate::fault;
use crate::nginx::{self, Msec, Request};
use crate::ngx_lua::Settings;
use crate::transport::connection::idle::IdleTimer;
use crate::transport::connection::{Connection, Idle, Owner};
use crate::transport::ids::{ConnectionKey, PoolKey};
use crate::transport::state::op::Stage;
use crate::transport::state::pool::{NamedPool, fitness};
use crate::transport::state::postponed::Postponed;
use crate::transport::worker::Worker;

impl Worker {
    /// A counted connection is gone; those who wait for it may go on.
    pub fn release(&mut self, pool: PoolKey) {
        self.release_only(pool);
        self.resume_waiting(pool);
    }

    pub fn release_counted(&mut self, pool: Option<PoolKey>) {
        if let Some(pool) = pool {
            self.release(pool);
        }
    }

    /// A pool has room again: whoever waits longest gets it.
    pub fn resume_waiting(&mut self, pool: PoolKey) {
        loop {
            let opens = |named: &NamedPool| named.pool.opens_next();
            if self.pools.get(pool).is_some_and(opens) && self.lacks_room() {
                return self.postpone(Postponed::Pool(pool));
            }
            let (connections, ops) = (&self.connections, &self.ops);
            let resumed = self.pools.get_mut(pool).and_then(|named| {
                let tls = named.tls;
                let next = named.pool.next_waiting().and_then(|op| ops.get(*op));
                let (host, port) = match next.map(|op| &op.stage) {
                    Some(Stage::PoolQueue(queued)) => (&*queued.host, queued.port),
                    _ => (&[][..], 0),
                };
                named
                    .pool
                    .resume(|connection| fitness(connections, tls, *connection, host, port))
            });
            let Some((waiter, admission)) = resumed else {
                break;
            };
            if self.resume_connect(waiter, pool, admission) {
                break;
            }
        }
        self.drop_unused_pool(pool);
    }

    pub fn evict(&mut self, key: ConnectionKey) {
        fault::point();
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        let Owner::Pool(Idle { pool, place, .. }) = connection.owner else {
            return;
        };
        drop(connection);
        if let Some(named) = self.pools.get_mut(pool) {
            named.pool.remove(place);
        }
        self.resume_waiting(pool);
    }

    /// Makes a connection idle in a pool, for at most `timeout` milliseconds. False if it turns out
    /// to be dead, and is gone then.
    #[inline(always)]
    pub fn park(
        &mut self,
        pool: PoolKey,
        key: ConnectionKey,
        counted: bool,
        timeout: Msec,
    ) -> bool {
        let connection = self.connections.get_mut(key);
        let (due, readable) =
            connection.map_or((None, false), |connection| connection.make_idle(timeout));
        self.put_idle(pool, key, counted, due);
        if readable && !self.is_alive(key) {
            self.evict(key);
            return false;
        }
        true
    }

    /// Puts a plain connection back into its pool, because its session needs TLS. The pool goes on
    /// to count the session. False if the connection cannot be pooled.
    pub fn put_back(&mut self, key: ConnectionKey, request: Request) -> bool {
        let settings = Settings::of(request);
        let (Some(connection), Some(settings)) = (self.connections.get_mut(key), settings) else {
            return false;
        };
        let Some(pool) = connection.pool else {
            return false;
        };
        if connection.has_ended()
            || connection.tls.is_some()
            || connection
                .private()
                .is_some_and(|private| private.unanswered || private.leaving)
            || !connection.pipeline.is_quiet()
        {
            return false;
        }
        let nginx = &mut connection.nginx;
        let usable = !nginx.has_failed() && nginx.arm_read().is_ok() && !nginx::is_exiting();
        if !usable {
            return false;
        }
        self.park(pool, key, false, settings.keepalive_timeout());
        true
    }

    /// Handles an event of an idle connection. Closes it if its time is over, if the worker exits,
    /// or if the peer has closed it or sent something.
    pub fn on_idle_event(&mut self, key: ConnectionKey) {
        fault::point();
        let timer = self.connections.get_mut(key).map(Connection::idle_timer);
        let alive = match timer {
            Some(IdleTimer::Early) => true,
            Some(IdleTimer::Silent) => self.is_alive(key),
            Some(IdleTimer::Expired) | None => false,
        };
        if !alive {
            self.evict(key);
        }
    }

    /// Closes a connection and lets the pool know that there is a place.
    pub fn close_connection(&mut self, key: ConnectionKey) {
        if let Some(connection) = self.connections.remove(key) {
            let pool = connection.pool;
            drop(connection);
            fault::point();
            if let Some(pool) = pool {
                self.release(pool);
            }
        }
    }
}
