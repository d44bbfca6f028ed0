//! What goes to another connection when a shared one fails.

use crate::protocol::Pipeline;
use crate::transport::error::Error;
use crate::transport::ids::{LinkKey, SessionKey, TrunkKey};
use crate::transport::link::Tag;
use crate::transport::link::sharing::{Again, Followers};
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
        trunk: TrunkKey,
        from: &Pipeline<Tag>,
        all: &mut [Lost],
        error: &Error,
        fruitless: u32,
    ) {
        let mut again = None;
        for lost in all {
            let key = lost.tag.session;
            let link = match lost.fate {
                Fate::Moves => self.batch_link(trunk, Some(key), false).ok().flatten(),
                Fate::AskedAgain => *again
                    .get_or_insert_with(|| self.link_to_ask_again(trunk, key, error, fruitless)),
                Fate::Fails => continue,
            };
            if !link.is_some_and(|link| self.hand_over(from, lost, link)) {
                lost.fate = Fate::Fails;
            }
        }
    }

    pub fn link_to_ask_again(
        &mut self,
        trunk_key: TrunkKey,
        session: SessionKey,
        error: &Error,
        fruitless: u32,
    ) -> Option<LinkKey> {
        let trunk = self.trunks.get(trunk_key)?;
        let asks_again = |key: &&LinkKey| {
            let sharing = self.links.get(**key).and_then(|l| l.sharing.as_ref());
            sharing.is_some_and(|sharing| sharing.again.is_some())
        };
        let mut there = trunk.links.iter().filter(asks_again);
        // a server that closes again and again gets no more and more of them
        if there.clone().count() >= trunk.connections {
            return there.next_back().copied();
        }
        let link = self.open_for(trunk_key, session).ok()?;
        if let Some(sharing) = self.links.get_mut(link).and_then(|l| l.sharing.as_mut()) {
            sharing.again = Some(Again {
                error: error.clone(),
                until: 0,
                fruitless,
            });
        }
        Some(link)
    }

    /// Gives commands of a link that failed to another one. False if there is
    /// no memory: then nothing of them is there.
    pub fn hand_over(&mut self, from: &Pipeline<Tag>, lost: &mut Lost, link_key: LinkKey) -> bool {
        let Some(link) = self.links.get_mut(link_key) else {
            return false;
        };
        let was_idle = link.pipeline.in_flight() == 0;
        let mut first = None;
        for number in lost.numbers.clone() {
            let Some(adopted) = link.pipeline.adopt(lost.tag, from, number) else {
                let newest = link.pipeline.newest();
                for number in first
                    .into_iter()
                    .flat_map(|first| first..=newest.unwrap_or(0))
                {
                    link.pipeline.withdraw(number);
                }
                self.count_unsent(link_key);
                return false;
            };
            first.get_or_insert(adopted);
        }
        let (Some(first), Some(last)) = (first, link.pipeline.newest()) else {
            return false;
        };
        link.set_busy(was_idle);
        for tag in lost.tags() {
            if let Some(session) = self.sessions.get_mut(tag.session)
                && let State::Attached {
                    flight: Some(flight),
                    trunk,
                    ..
                } = &mut session.state
            {
                flight.link = link_key;
                (flight.first, flight.last, flight.sent) = (first, last, false);
                match lost.fate {
                    Fate::Moves => flight.moved = true,
                    _ => flight.again = true,
                }
                if lost.is_list
                    && let Some(trunk) = self.trunks.get_mut(*trunk)
                {
                    trunk.current = None;
                }
                link.give_time_to_connect(session.connect_timeout());
            }
        }
        if let Some(sharing) = link.sharing.as_mut().filter(|_| !lost.others.is_empty()) {
            let followers = Followers {
                waiting: 1 + lost.others.len(),
                tags: std::mem::take(&mut lost.others),
            };
            sharing.followers.insert(first, followers);
        }
        self.count_unsent(link_key);
        self.flush_later(link_key);
        true
    }
}
