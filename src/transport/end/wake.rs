//! A place is free: whoever waits longest gets it.

use crate::fault;
use crate::nginx::{self, Msec, Request};
use crate::ngx_lua::Settings;
use crate::transport::connection::{Connection, Owner, ReadTimer};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, PoolKey, SharedPoolKey};
use crate::transport::state::errands::Errand;
use crate::transport::state::pool::{NamedPool, fitness};
use crate::transport::state::session::Session;
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
                return self.wait_for_room(Errand::Pool(pool));
            }
            let (connections, sessions) = (&self.connections, &self.sessions);
            let resumed = self.pools.get_mut(pool).and_then(|named| {
                let tls = named.tls;
                let target = named
                    .pool
                    .next_waiting()
                    .and_then(|waiter| sessions.get(*waiter));
                let (host, port) = target.map_or((&[][..], 0), Session::queued_for);
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

    /// Those who wait for room get none: no connection can be opened.
    pub fn refuse_queue(&mut self, shared_key: SharedPoolKey, error: &Error) {
        while let Some(shared_pool) = self.shared_pools.get_mut(shared_key)
            && let Some(key) = shared_pool.queue.first_of_all().copied()
        {
            self.finish_failed(key, error);
            self.drop_from_queue(shared_key, key);
        }
    }

    pub fn evict(&mut self, key: ConnectionKey) {
        fault::point();
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        let Owner::Pool { pool, place } = connection.owner else {
            return;
        };
        drop(connection);
        if let Some(named) = self.pools.get_mut(pool) {
            named.pool.remove(place);
        }
        self.resume_waiting(pool);
    }

    /// Makes a connection idle in a pool, for at most `timeout` milliseconds. False
    /// if it turns out to be dead, and is gone then.
    #[inline(always)]
    pub fn park(
        &mut self,
        pool: PoolKey,
        key: ConnectionKey,
        counted: bool,
        timeout: Msec,
    ) -> bool {
        let readable = self
            .connections
            .get_mut(key)
            .is_some_and(|connection| connection.make_idle(timeout));
        self.put_idle(pool, key, counted);
        if readable && !self.is_alive(key) {
            self.evict(key);
            return false;
        }
        true
    }

    /// Gives a plain connection that was taken from a pool, and turned out not
    /// to be wanted, back to it. Its session stays counted. False if it cannot
    /// be pooled.
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
            || connection.unanswered
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

    /// An event of an idle connection: its time is over, the worker exits, or the
    /// peer closed or sent something; then it goes. Or it was nothing.
    pub fn on_idle_event(&mut self, key: ConnectionKey) {
        fault::point();
        let timer = self.connections.get_mut(key).map(Connection::read_timer);
        let alive = match timer {
            Some(ReadTimer::Early) => true,
            Some(ReadTimer::Silent) => self.is_alive(key),
            Some(ReadTimer::Expired) | None => false,
        };
        if !alive {
            self.evict(key);
        }
    }

    /// Closes a connection and lets the pool know that there is room.
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
