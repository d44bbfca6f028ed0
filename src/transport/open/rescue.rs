//! What goes to another connection when a shared one fails.

use crate::protocol::Pipeline;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, OpKey, SessionKey, SharedPoolKey};
use crate::transport::state::op::Stage;
use crate::transport::state::session::Session;
use crate::transport::worker::Worker;
use crate::upstream::{Fate, Loss, Retry};

impl Worker {
    /// Hands the operations of a failed connection to other connections, unless they are to fail.
    /// Those that no other connection takes fail as well.
    ///
    /// Reads are repeated over a connection that nobody else uses meanwhile: one of the reads may
    /// be why the first connection was lost.
    pub fn rescue(
        &mut self,
        shared_pool: SharedPoolKey,
        from: &Pipeline<OpKey>,
        losses: &mut [Loss<OpKey>],
        error: &Error,
        fruitless: u32,
    ) {
        let mut retries = None;
        for loss in losses {
            let Some(key) = self.waiter_of(loss.op) else {
                loss.fate = Fate::Fail;
                continue;
            };
            let connection = match loss.fate {
                Fate::Move => self
                    .connection_for_batch(shared_pool, Some(key), false)
                    .ok()
                    .flatten(),
                Fate::Retry => *retries.get_or_insert_with(|| {
                    self.connection_for_retries(shared_pool, key, error, fruitless)
                }),
                Fate::Fail => continue,
            };
            if !connection.is_some_and(|connection| self.hand_over(from, loss, connection)) {
                loss.fate = Fate::Fail;
            }
        }
    }

    pub fn connection_for_retries(
        &mut self,
        shared_key: SharedPoolKey,
        session: SessionKey,
        error: &Error,
        fruitless: u32,
    ) -> Option<ConnectionKey> {
        let shared_pool = self.shared_pools.get(shared_key)?;
        let retries = |key: &&ConnectionKey| {
            let connection = self.connections.get(**key);
            let sharing = connection.and_then(|connection| connection.sharing());
            sharing.is_some_and(|sharing| sharing.retry.is_some())
        };
        let mut there = shared_pool.connections.iter().filter(retries);
        // a server that closes each connection must not get ever more of them
        if there.clone().count() >= shared_pool.usage.wanted() {
            return there.next_back().copied();
        }
        let connection = self.open_for(shared_key, session).ok()?;
        let opened = self.connections.get_mut(connection);
        if let Some(sharing) = opened.and_then(|connection| connection.sharing_mut()) {
            sharing.retry = Some((Retry::new(fruitless), error.clone()));
        }
        Some(connection)
    }

    /// Gives commands of a connection that failed to another one. False if there is no memory; then
    /// none of them was added.
    pub fn hand_over(
        &mut self,
        from: &Pipeline<OpKey>,
        loss: &Loss<OpKey>,
        connection_key: ConnectionKey,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return false;
        };
        let was_idle = connection.pipeline.in_flight() == 0;
        let mut first = None;
        for number in loss.numbers.clone() {
            let Some(adopted) = connection.pipeline.adopt(loss.op, from, number) else {
                let newest = connection.pipeline.newest().unwrap_or(0);
                for number in first.into_iter().flat_map(|first| first..=newest) {
                    connection.pipeline.withdraw(number);
                }
                self.count_unsent(connection_key);
                return false;
            };
            first.get_or_insert(adopted);
        }
        let (Some(first), Some(last)) = (first, connection.pipeline.newest()) else {
            return false;
        };
        connection.mark_active(was_idle);
        if let Some(op) = self.ops.get_mut(loss.op) {
            let sessions = op.waiters.sessions().iter();
            let times = sessions.filter_map(|session| self.sessions.get(*session));
            if let Some(longest) = times.map(Session::connect_timeout).max() {
                connection.give_time_to_connect(longest);
            }
            if let Stage::Assigned(assignment) = &mut op.stage {
                assignment.connection = connection_key;
                (assignment.first, assignment.last) = (first, last);
                assignment.accounted = false;
                match loss.fate {
                    Fate::Move => assignment.history.moved = true,
                    Fate::Retry | Fate::Fail => assignment.history.retried = true,
                }
            }
        }
        if loss.is_list
            && let Some(shared_pool) = self.shared_pool_with(connection_key)
            && let Some(shared_pool) = self.shared_pools.get_mut(shared_pool)
        {
            shared_pool.current = None;
        }
        self.count_unsent(connection_key);
        self.flush_later(connection_key);
        true
    }
}
