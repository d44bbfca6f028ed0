//! What goes to another connection when a shared one fails.

use super::loss::{Fate, Lost};
use super::{Again, Followers};
use crate::protocol::Pipeline;
use crate::transport::Error;
use crate::transport::link::{Link, Tag};
use crate::transport::session::State;
use crate::transport::worker::{LinkKey, SessionKey, TrunkKey, Worker};

/// Most exchanges that are asked again at once; one more for each so many that
/// were answered.
const MOST_AT_ONCE: u64 = 16;

impl Worker {
    /// Gives what is not to fail to other connections. What of it cannot be had
    /// there fails.
    ///
    /// Reads are asked again over a connection that nobody else uses meanwhile:
    /// one of them may be why the first was lost.
    pub(super) fn rescue(
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

    fn link_to_ask_again(
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
        if there.clone().count() >= trunk.multiplex.connections {
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
    fn hand_over(&mut self, from: &Pipeline<Tag>, lost: &mut Lost, link_key: LinkKey) -> bool {
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
            sharing.following += followers.following();
            sharing.followers.insert(first, followers);
        }
        self.flush_later(link_key);
        true
    }
}

impl Link {
    /// Number of the first exchange that is not to be sent yet, if some are not.
    pub(super) fn sends_until(&mut self) -> Option<u64> {
        let again = self.sharing.as_mut()?.again.as_mut()?;
        let oldest = self.pipeline.oldest();
        if oldest >= again.until {
            // those before are answered
            let at_once = (oldest / MOST_AT_ONCE).clamp(1, MOST_AT_ONCE);
            let behind = self.pipeline.exchanges().nth(at_once as usize);
            let newest = self.pipeline.newest().unwrap_or(oldest);
            again.until = behind.map_or(newest + 1, |exchange| exchange.number);
        }
        Some(again.until)
    }

    /// Whether it has to ask again what had to wait until others were answered.
    pub(super) fn has_more_to_ask(&self) -> bool {
        let again = self
            .sharing
            .as_ref()
            .and_then(|sharing| sharing.again.as_ref());
        again.is_some_and(|again| {
            self.pipeline.in_flight() > 0 && self.pipeline.oldest() >= again.until
        })
    }
}
