//! What goes to another connection when a shared one fails.

use crate::protocol::Pipeline;
use crate::transport::connection::Tag;
use crate::transport::connection::sharing::{Coalesced, Retry};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, SessionKey, SharedPoolKey};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;
use crate::transport::worker::exchanges::{Fate, Lost};

impl Worker {
    /// Gives what is not to fail to other connections. What of it cannot be had
    /// there fails.
    ///
    /// Reads are asked again over a connection that nobody else uses meanwhile:
    /// one of them may be why the first was lost.
    pub fn rescue(
        &mut self,
        shared_pool: SharedPoolKey,
        from: &Pipeline<Tag>,
        all: &mut [Lost],
        error: &Error,
        fruitless: u32,
    ) {
        let mut again = None;
        for lost in all {
            let key = lost.tag.session;
            let connection = match lost.fate {
                Fate::Moves => self
                    .connection_for_batch(shared_pool, Some(key), false)
                    .ok()
                    .flatten(),
                Fate::AskedAgain => *again.get_or_insert_with(|| {
                    self.connection_to_ask_again(shared_pool, key, error, fruitless)
                }),
                Fate::Fails => continue,
            };
            if !connection.is_some_and(|connection| self.hand_over(from, lost, connection)) {
                lost.fate = Fate::Fails;
            }
        }
    }

    pub fn connection_to_ask_again(
        &mut self,
        shared_key: SharedPoolKey,
        session: SessionKey,
        error: &Error,
        fruitless: u32,
    ) -> Option<ConnectionKey> {
        let shared_pool = self.shared_pools.get(shared_key)?;
        let asks_again = |key: &&ConnectionKey| {
            let sharing = self.connections.get(**key).and_then(|l| l.sharing.as_ref());
            sharing.is_some_and(|sharing| sharing.retry.is_some())
        };
        let mut there = shared_pool.connections.iter().filter(asks_again);
        // a server that closes again and again gets no more and more of them
        if there.clone().count() >= shared_pool.wanted {
            return there.next_back().copied();
        }
        let connection = self.open_for(shared_key, session).ok()?;
        if let Some(sharing) = self
            .connections
            .get_mut(connection)
            .and_then(|l| l.sharing.as_mut())
        {
            sharing.retry = Some(Retry {
                error: error.clone(),
                until: 0,
                fruitless,
            });
        }
        Some(connection)
    }

    /// Gives commands of a connection that failed to another one. False if there is
    /// no memory: then nothing of them is there.
    pub fn hand_over(
        &mut self,
        from: &Pipeline<Tag>,
        lost: &mut Lost,
        connection_key: ConnectionKey,
    ) -> bool {
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return false;
        };
        let was_idle = connection.pipeline.in_flight() == 0;
        let mut first = None;
        for number in lost.numbers.clone() {
            let Some(adopted) = connection.pipeline.adopt(lost.tag, from, number) else {
                let newest = connection.pipeline.newest();
                for number in first
                    .into_iter()
                    .flat_map(|first| first..=newest.unwrap_or(0))
                {
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
        for tag in lost.tags() {
            if let Some(session) = self.sessions.get_mut(tag.session)
                && let State::Shared {
                    flight: Some(flight),
                    shared_pool,
                    ..
                } = &mut session.state
            {
                flight.connection = connection_key;
                (flight.first, flight.last, flight.sent) = (first, last, false);
                match lost.fate {
                    Fate::Moves => flight.moved = true,
                    _ => flight.retried = true,
                }
                if lost.is_list
                    && let Some(shared_pool) = self.shared_pools.get_mut(*shared_pool)
                {
                    shared_pool.current = None;
                }
                connection.give_time_to_connect(session.connect_timeout());
            }
        }
        if let Some(sharing) = connection
            .sharing
            .as_mut()
            .filter(|_| !lost.others.is_empty())
        {
            let coalesced = Coalesced {
                waiting: 1 + lost.others.len(),
                tags: std::mem::take(&mut lost.others),
            };
            sharing.coalesced.insert(first, coalesced);
        }
        self.count_unsent(connection_key);
        self.flush_later(connection_key);
        true
    }
}
