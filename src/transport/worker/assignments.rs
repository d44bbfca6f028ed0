//! Operations on connections: whose they are, since when they wait, which connection takes the next
//! ones.

use crate::nginx::{self, Msec};
use crate::transport::connection::Connection;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, OpKey, SessionKey, SharedPoolKey};
use crate::transport::state::op::{Assignment, Op, Stage, Work};
use crate::transport::worker::Worker;
use crate::upstream::{Awaited, Choice, Demand, Position, choose};

impl Worker {
    /// The session that waits longest for an operation: the one that has begun it, unless it has
    /// left the operation to others.
    pub fn waiter_of(&self, op: OpKey) -> Option<SessionKey> {
        let mut sessions = self.ops.get(op)?.waiters.sessions().iter().copied();
        sessions.find(|key| {
            let session = self.sessions.get(*key);
            session.and_then(|session| session.reads()) == Some(op)
        })
    }

    /// Whose replies are in flight on a connection.
    pub fn awaited(&self, key: ConnectionKey) -> Awaited {
        let Some(connection) = self.connections.get(key) else {
            return Awaited::Nothing;
        };
        let mut tags = connection.pipeline.tags();
        match tags.next() {
            None => Awaited::Nothing,
            Some(oldest) if self.ops.contains_key(oldest) => Awaited::Oldest,
            Some(_) if tags.any(|op| self.ops.contains_key(op)) => Awaited::Later,
            Some(_) => Awaited::None,
        }
    }

    /// Whether the oldest reply of a connection is still to come, and nobody waits for it.
    pub fn is_nobodys(&self, key: ConnectionKey) -> bool {
        let connection = self.connections.get(key);
        let oldest = connection.and_then(|connection| connection.pipeline.tags().next());
        oldest.is_some_and(|op| !self.ops.contains_key(op))
    }

    /// The oldest exchange of a connection has changed, or nobody waits for it any more.
    pub fn update_health(&mut self, key: ConnectionKey) {
        let nobodys = self.is_nobodys(key);
        if let Some(connection) = self.connections.get_mut(key) {
            let oldest = connection.pipeline.oldest();
            if let Some(sharing) = connection.sharing_mut() {
                sharing.health.update(oldest, nobodys);
            }
        }
    }

    /// Since when the time of an operation runs, and whether its commands were sent. `None`: it was
    /// not given to a connection.
    pub fn waits_since(&self, op: &Op) -> Option<(Msec, bool)> {
        let Stage::Assigned(assignment) = &op.stage else {
            return None;
        };
        let connection = self.connections.get(assignment.connection)?;
        let (pipeline, progress) = (&connection.pipeline, &connection.progress);
        let Assignment {
            first, last, since, ..
        } = *assignment;
        match op.work {
            Work::Receive(_) => return Some((since.max(progress.received()), true)),
            Work::Send { .. } => return Some((since.max(progress.written()), false)),
            Work::Connect | Work::Command | Work::Pipeline { .. } | Work::Background(_) => {}
        }
        let sent = pipeline.is_sent(last);
        let position = Position {
            numbers: first..=last,
            since,
            accounted: assignment.accounted,
            begun: pipeline.has_begun(first),
            sent,
            oldest: pipeline.oldest(),
            amid_reply: pipeline.is_amid_reply(),
        };
        Some((progress.since(&position), sent))
    }

    /// Sessions whose coroutines were killed, and whose commands are still to be sent on a
    /// connection.
    #[cold]
    pub fn killed_on(&self, key: ConnectionKey) -> Vec<SessionKey> {
        let mut killed = Vec::new();
        let Some(connection) = self.connections.get(key) else {
            return killed;
        };
        for (_, key) in connection.pipeline.still_to_send() {
            let Some(op) = self.ops.get(key) else {
                continue;
            };
            // up to the first who still waits for it
            for session in op.waiters.sessions() {
                match self.sessions.get(*session) {
                    Some(waiting) if waiting.waits_for(key) => break,
                    Some(ended) if ended.reads() != Some(key) => {}
                    Some(_) if killed.last() == Some(session) => {}
                    Some(_) if killed.try_reserve(1).is_ok() => killed.push(*session),
                    _ => {}
                }
            }
        }
        killed
    }

    /// Whether a connection has commands that may go to another one. Marks it as stalled, so that
    /// it takes no further ones.
    #[cold]
    pub fn needs_rescue(&mut self, key: ConnectionKey) -> bool {
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        if let Some(sharing) = connection.sharing_mut() {
            sharing.health.stall();
        }
        !connection.is_connecting() && connection.pipeline.in_flight() > 0
    }

    /// Whether a shared pool takes a session's operation now, and nobody who waits comes first.
    pub fn has_turn(&self, key: SessionKey, shared_pool: SharedPoolKey) -> bool {
        let session = self.sessions.get(key);
        let shared_pool = self.shared_pools.get(shared_pool);
        session
            .zip(shared_pool)
            .is_some_and(|(session, shared_pool)| shared_pool.usage.has_turn(session.bounds))
    }

    /// Which connection of a shared pool takes the next commands.
    pub fn choose_among(
        &mut self,
        shared_pool: SharedPoolKey,
        demand: Demand,
    ) -> Result<Choice, Error> {
        let shared_pool = self
            .shared_pools
            .get_mut(shared_pool)
            .ok_or(Error::Closed)?;
        let connections = shared_pool
            .connections
            .iter()
            .filter_map(|connection| self.connections.get(*connection));
        shared_pool.loads.clear();
        shared_pool.loads.extend(connections.map(Connection::load));
        Ok(choose(
            &shared_pool.loads,
            shared_pool.usage.wanted(),
            shared_pool.last_chosen,
            demand,
        ))
    }

    /// Whether the next commands that are given to a shared pool will open a connection, if there
    /// is room for them.
    pub fn opens_for_next(&mut self, shared_key: SharedPoolKey) -> bool {
        let Some(shared_pool) = self.shared_pools.get(shared_key) else {
            return false;
        };
        let current = shared_pool
            .current
            .and_then(|current| self.connections.get(current));
        let demand = Demand {
            eager: shared_pool.usage.is_eager(nginx::now()),
            patient: true,
        };
        !current.is_some_and(Connection::takes_work)
            && self
                .choose_among(shared_key, demand)
                .is_ok_and(|choice| choice.open)
    }
}
