//! The end of shared connections.

use crate::transport::connection::{Connection, Owner};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, SharedPoolKey};
use crate::transport::log::{log_connect_error, log_refusal};
use crate::transport::state::op::Stage;
use crate::transport::state::outcome::Outcome;
use crate::transport::state::postponed::Postponed;
use crate::transport::state::session::State;
use crate::transport::worker::Worker;
use crate::upstream::{Awaited, Fate, Rescue, losses, put_in_order};
use crate::{fault, nginx};

impl Worker {
    /// All replies that were in flight on a connection have come.
    pub fn on_drained(&mut self, key: ConnectionKey) {
        let connection = self.connections.get_mut(key);
        let Some(sharing) = connection.and_then(|connection| connection.sharing_mut()) else {
            return;
        };
        if sharing.health.is_leaving() {
            return self.fail_shared(key, Error::Closed);
        }
        sharing.retry = None;
        sharing.health.drain();
        // a connection that replaced a stalled one is not needed once that has recovered
        match self.is_surplus(key) || nginx::is_exiting() {
            true => self.fail_shared(key, Error::Closed),
            false => self.mark_idle(key),
        }
    }

    /// A shared connection failed. Commands that were not sent, of operations that have sent
    /// nothing, go to another connection. Reads of which nothing came are repeated, once. All
    /// others get the error.
    pub fn fail_shared(&mut self, key: ConnectionKey, error: Error) {
        if nginx::is_scarce() && self.needs_rescue(key) && self.lacks_room() {
            return self.postpone(Postponed::Failed(key, error));
        }
        let Some(connection) = self.connections.remove(key) else {
            return;
        };
        let connecting = connection.is_connecting();
        let forced = connection.nginx.is_aborting();
        let refusal = match error {
            Error::Os(_) | Error::Closed if !connecting => connection.refusal(),
            _ => None,
        };
        let refused = refusal.is_some();
        let error = refusal.map_or(error, Error::Said);
        let Connection {
            nginx,
            pipeline,
            owner,
            ..
        } = connection;
        // closed first, since a new connection may need its place in nginx
        drop(nginx);
        let Owner::Shared(sharing) = owner else {
            return;
        };
        let shared_pool = sharing.shared_pool;
        self.forget_shared(key, shared_pool, sharing.unsent, connecting);
        let retried = sharing.retry.is_some();
        let fruitless = match &sharing.retry {
            Some((retry, _)) => retry.fruitless_after(pipeline.oldest()),
            None => 0,
        };
        let error = match (connecting, sharing.retry, error) {
            (true, Some((_, why)), _) => why,
            // Lua was told that sessions with commands on it are connected
            (true, None, Error::Os(_)) => Error::Closed,
            (_, _, error) => error,
        };
        fault::point();
        let standing = self.is_standing(shared_pool);
        let rescue = Rescue::after(forced, refused, connecting, standing, fruitless);
        let (oldest, broken) = (pipeline.oldest(), pipeline.is_broken());
        let mut all = losses(pipeline.exchanges(), oldest, broken, |op| {
            self.ops.contains_key(op)
        });
        for loss in &mut all {
            if let Some(Stage::Assigned(assignment)) = self.ops.get(loss.op).map(|op| &op.stage) {
                loss.fate = rescue.fate(loss, assignment.first, assignment.history);
            }
        }
        put_in_order(&mut all);
        self.rescue(shared_pool, &pipeline, &mut all, &error, fruitless);
        for loss in all.iter().filter(|loss| loss.fate == Fate::Fail) {
            let writing = !retried && !pipeline.is_sent(*loss.numbers.end());
            self.fail_op(loss.op, &error, writing);
        }
        let last = self
            .shared_pools
            .get(shared_pool)
            .is_some_and(|shared_pool| shared_pool.connections.is_empty());
        match connecting && last {
            true => self.refuse_queue(shared_pool, &error),
            false => self.serve_queue(shared_pool),
        }
        self.shorten_idle_if_unused(shared_pool);
        self.drop_unused_shared_pool(shared_pool);
    }

    /// Removes a connection with so many unsent bytes from its shared pool.
    pub fn forget_shared(
        &mut self,
        key: ConnectionKey,
        shared_key: SharedPoolKey,
        unsent: usize,
        connecting: bool,
    ) {
        let Some(shared_pool) = self.shared_pools.get_mut(shared_key) else {
            return;
        };
        if connecting {
            shared_pool.usage.note_failure(nginx::now());
        }
        shared_pool.usage.count_unsent(unsent, 0);
        shared_pool.connections.retain(|other| *other != key);
        if shared_pool.current == Some(key) {
            shared_pool.current = None;
        }
        if shared_pool.connections.is_empty() {
            shared_pool.usage.forget_connections();
        }
    }

    /// Has a connection take no new work, and closes it when it has none.
    pub fn part_with(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let idle = connection.pipeline.in_flight() == 0 && !connection.is_connecting();
        if let Some(sharing) = connection.sharing_mut() {
            sharing.health.leave();
        }
        if idle {
            self.fail_shared(key, Error::Closed);
        } else if matches!(self.awaited(key), Awaited::Later | Awaited::None) {
            self.arm_stall_check(key, 0);
        }
    }

    /// Those who waited for a connection do not get one.
    pub fn refuse_joining(
        &mut self,
        shared_key: SharedPoolKey,
        connection_key: ConnectionKey,
        error: &Error,
    ) {
        let joining = self.end_joining(shared_key);
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return;
        };
        let peer = connection.address.text_and_port();
        if let (Error::Os(errno), true) = (error, joining.is_empty()) {
            // no session gets the error
            log_connect_error(&connection.nginx, *errno);
        }
        for (op, key) in joining {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            session.enter(State::Closed);
            if let Some(request) = session.request()
                && let Some(connection) = self.connections.get_mut(connection_key)
            {
                log_refusal(&mut connection.nginx, request, error, &peer);
            }
            self.complete(op, Outcome::Failed(error.clone()));
            self.leave(shared_key);
        }
        self.drop_unused_shared_pool(shared_key);
    }
}
