//! What is under way on shared connections: whose, since when, how far.

use std::ops::RangeInclusive;

use crate::nginx::{self, Msec};
use crate::protocol::Pipeline;
use crate::transport::connection::sharing::Sharing;
use crate::transport::connection::{Connection, Tag};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, SessionKey, SharedPoolKey};
use crate::transport::state::op::{Op, Status};
use crate::transport::state::session::{Flight, State};
use crate::transport::state::sessions::waiting;
use crate::transport::worker::Worker;
use crate::upstream::{Choice, Demand, choose};

/// Tags of those who follow a get and wait no more are dropped when there are
/// more of them than others, and than this.
pub const COALESCED_KEPT: usize = 32;

/// How many connections may be lost one after the other that have answered
/// nothing of what is asked again.
pub const MOST_FRUITLESS: u32 = 3;

/// What becomes of commands on a connection that failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// They were not sent: another connection takes them.
    Moves,
    /// They were, but only read: they are sent once more.
    AskedAgain,
    /// Their operations fail.
    Fails,
}

/// The commands of one operation, or one get of several, on a connection that failed.
pub struct Lost {
    pub fate: Fate,
    /// Numbers of the exchanges.
    pub numbers: RangeInclusive<u64>,
    /// Who waits for the replies, and who else does.
    pub tag: Tag,
    pub others: Vec<Tag>,
    /// A list of keys is asked for.
    pub is_list: bool,
    /// The reply was the next one: this may be why the server closed.
    pub suspect: bool,
    pub unsent: bool,
    pub repeatable: bool,
}

impl Lost {
    /// All who wait for the replies.
    pub fn tags(&self) -> impl Iterator<Item = Tag> {
        std::iter::once(self.tag).chain(self.others.iter().copied())
    }
}

impl Worker {
    /// Whether others wait for the reply to the get of an operation that is
    /// over. It is counted out.
    pub fn is_coalesced(&mut self, flight: Flight) -> bool {
        let sharing = self
            .connections
            .get_mut(flight.connection)
            .map(|connection| &mut connection.sharing);
        let Some(Sharing { coalesced, .. }) = sharing.and_then(Option::as_deref_mut) else {
            return false;
        };
        let Some(all) = coalesced.get_mut(&flight.first) else {
            return false;
        };
        all.waiting = all.waiting.saturating_sub(1);
        if all.tags.len() > COALESCED_KEPT.max(2 * all.waiting) {
            let sessions = &self.sessions;
            all.tags.retain(|tag| {
                let session = sessions.get(tag.session);
                session.is_some_and(|session| session.serial == tag.serial)
            });
        }
        all.waiting > 0
    }

    /// Whether the oldest reply of a connection is still to come, and nobody waits for
    /// it.
    pub fn is_nobodys(&mut self, key: ConnectionKey) -> bool {
        let Some(connection) = self.connections.get(key) else {
            return false;
        };
        let (pipeline, sharing) = (&connection.pipeline, connection.sharing.as_ref());
        let coalesced = sharing.and_then(|sharing| sharing.coalesced.get(&pipeline.oldest()));
        let coalesced = coalesced.map_or(&[][..], |coalesced| &coalesced.tags);
        let mut tags = pipeline.tags().take(1).chain(coalesced.iter().copied());
        pipeline.in_flight() > 0 && tags.all(|tag| waiting(&mut self.sessions, tag).is_none())
    }

    /// The operation with this tag, if it waits.
    pub fn waiting_op(&self, tag: Tag) -> Option<&Op> {
        let session = self.sessions.get(tag.session)?;
        let op = session.reader.as_ref()?;
        (session.serial == tag.serial && op.status() == Status::Pending).then_some(op)
    }

    /// Whether a command waits for the socket to take it.
    pub fn is_held_up(&self, flight: Flight) -> bool {
        let connection = self.connections.get(flight.connection);
        connection.is_some_and(|connection| {
            let to_flush = connection
                .sharing
                .as_ref()
                .is_some_and(|sharing| sharing.to_flush);
            !to_flush && !connection.pipeline.is_sent(flight.last)
        })
    }

    /// Since when the time of an operation under way runs, and whether it was
    /// sent: before it was, the send timeout counts, and then the read timeout.
    /// They start again with each part of the command and of the reply.
    pub fn flight_since(&self, flight: Flight) -> (Msec, bool) {
        let Some(connection) = self.connections.get(flight.connection) else {
            return (0, true);
        };
        let Some(sharing) = &connection.sharing else {
            return (0, true);
        };
        let pipeline = &connection.pipeline;
        let sent = pipeline.is_sent(flight.last);
        let blocked = flight.last >= sharing.blocked.from && !flight.sent;
        let since = if blocked && (sent || pipeline.has_begun(flight.first)) {
            flight.since.max(sharing.blocked.written)
        } else {
            flight.since
        };
        let oldest = pipeline.oldest();
        let arriving = (flight.first..=flight.last).contains(&oldest)
            && (oldest > flight.first || pipeline.is_amid_reply());
        match sent && arriving {
            true => (since.max(sharing.progress_at), sent),
            false => (since, sent),
        }
    }

    /// What a connection sends from now on is not that of this operation.
    pub fn note_sent(&mut self, key: SessionKey, at: Msec) {
        let session = self.sessions.get_mut(key);
        if let Some(State::Shared {
            flight: Some(flight),
            ..
        }) = session.map(|session| &mut session.state)
        {
            flight.since = at;
            flight.sent = true;
        }
    }

    /// The oldest exchange of a connection is another one now, or became nobody's.
    pub fn update_stalled(&mut self, key: ConnectionKey) {
        let orphan = self.is_nobodys(key);
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        if let Some(sharing) = &mut connection.sharing {
            let late = sharing.stalled || connection.pipeline.oldest() < sharing.timed_out_until;
            sharing.stalled = sharing.leaving || orphan && late;
        }
    }

    #[cold]
    pub fn killed_on(&self, key: ConnectionKey) -> Vec<SessionKey> {
        let mut killed = Vec::new();
        let Some(connection) = self.connections.get(key) else {
            return killed;
        };
        let coalesced = connection
            .sharing
            .as_ref()
            .map(|sharing| &sharing.coalesced);
        for (number, tag) in connection.pipeline.still_to_send() {
            let coalesced = coalesced.and_then(|coalesced| coalesced.get(&number));
            let coalesced = coalesced.map_or(&[][..], |coalesced| &coalesced.tags);
            // up to the first who still waits for it
            for tag in std::iter::once(&tag).chain(coalesced) {
                match self.waiting_op(*tag) {
                    Some(op) if !op.is_abandoned() => break,
                    Some(_) if killed.last() == Some(&tag.session) => {}
                    Some(_) if killed.try_reserve(1).is_ok() => killed.push(tag.session),
                    _ => {}
                }
            }
        }
        killed
    }

    /// What is lost with a connection, in order; of what was not answered, that for
    /// which somebody waits.
    pub fn lost_on(&mut self, pipeline: &Pipeline<Tag>, sharing: &mut Sharing) -> Vec<Lost> {
        let mut all: Vec<Lost> = Vec::new();
        let mut last = None;
        for exchange in pipeline.exchanges() {
            if last == Some(exchange.tag)
                && let Some(lost) = all.last_mut()
            {
                lost.numbers = *lost.numbers.start()..=exchange.number;
                lost.unsent &= !exchange.begun;
                lost.repeatable &= exchange.repeatable;
                lost.is_list |= exchange.is_list;
                continue;
            }
            last = None;
            let coalesced = sharing.coalesced.remove(&exchange.number);
            let mut others = coalesced.map_or_else(Vec::new, |coalesced| coalesced.tags);
            others.retain(|tag| waiting(&mut self.sessions, *tag).is_some());
            let tag = match waiting(&mut self.sessions, exchange.tag) {
                Some(_) => Some(exchange.tag),
                None => others.pop(),
            };
            let (Some(tag), Ok(())) = (tag, all.try_reserve(1)) else {
                continue;
            };
            last = Some(exchange.tag);
            all.push(Lost {
                fate: Fate::Fails,
                numbers: exchange.number..=exchange.number,
                tag,
                others,
                is_list: exchange.is_list,
                suspect: exchange.begun
                    && exchange.number == pipeline.oldest()
                    && !pipeline.is_broken(),
                unsent: !exchange.begun,
                repeatable: exchange.repeatable,
            });
        }
        all
    }

    /// Whether a connection has commands that may go to another one. It takes no
    /// further ones.
    #[cold]
    pub fn needs_rescue(&mut self, key: ConnectionKey) -> bool {
        let Some(connection) = self.connections.get_mut(key) else {
            return false;
        };
        if let Some(sharing) = &mut connection.sharing {
            sharing.stalled = true;
        }
        !connection.is_connecting() && connection.pipeline.in_flight() > 0
    }

    pub fn fate(&self, lost: &Lost, can_move: bool, can_ask: bool) -> Fate {
        let session = self.sessions.get(lost.tag.session);
        let Some(State::Shared {
            flight: Some(flight),
            ..
        }) = session.map(|session| &session.state)
        else {
            return Fate::Fails;
        };
        if flight.first != *lost.numbers.start() {
            // some of its commands were answered
            return Fate::Fails;
        }
        match (flight.moved, flight.retried) {
            (false, false) if can_move && lost.unsent => Fate::Moves,
            (_, false) if can_ask && lost.repeatable => Fate::AskedAgain,
            // it was not asked again yet
            (_, true) if can_ask && lost.unsent => Fate::AskedAgain,
            _ => Fate::Fails,
        }
    }

    /// Whether a shared pool takes a session's operation now, and nobody who waits
    /// comes first.
    pub fn has_turn(&self, key: SessionKey, shared_pool: SharedPoolKey) -> bool {
        let (Some(session), Some(shared_pool)) =
            (self.sessions.get(key), self.shared_pools.get(shared_pool))
        else {
            return false;
        };
        let first = shared_pool.queue.is_empty()
            || !shared_pool.queue.has(session.bounds) && shared_pool.next_in_queue().is_none();
        first && shared_pool.has_room(session.bounds)
    }

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
        let wanted = shared_pool.wanted;
        Ok(choose(
            &shared_pool.loads,
            wanted,
            shared_pool.last_chosen,
            demand,
        ))
    }

    /// As [`Self::opens_for_batch`], if there is room for the command.
    pub fn opens_for_next(&mut self, shared_key: SharedPoolKey) -> bool {
        let Some(shared_pool) = self.shared_pools.get(shared_key) else {
            return false;
        };
        let current = shared_pool
            .current
            .and_then(|current| self.connections.get(current));
        let demand = Demand {
            eager: nginx::now() >= shared_pool.retry_at,
            patient: true,
        };
        !current.is_some_and(Connection::takes_work)
            && self
                .choose_among(shared_key, demand)
                .is_ok_and(|choice| choice.open)
    }
}
