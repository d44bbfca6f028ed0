//! Operations that are over before their replies came: what of their commands
//! was not sent is not sent any more.

use super::{Flight, Sharing};
use crate::transport::Error;
use crate::transport::link::{Owner, Tag};
use crate::transport::op::{Op, Status};
use crate::transport::session::State;
use crate::transport::worker::{LinkKey, Worker};

/// Tags of those who follow a get and wait no more are dropped when there are
/// more of them than others, and than this.
const FOLLOWERS_KEPT: usize = 32;

impl Worker {
    /// An operation is over, whose commands were given to a link. A get that
    /// somebody else waits for stays. If a command was sent in part, the
    /// connection cannot go on.
    pub(super) fn forsake(&mut self, flight: Flight) {
        if self.is_followed(flight) {
            return;
        }
        let Some(link) = self.links.get_mut(flight.link) else {
            return;
        };
        let Owner::Trunk { trunk, connecting } = link.owner else {
            return;
        };
        let pipeline = &mut link.pipeline;
        if pipeline.is_sent(flight.last) {
            return;
        }
        let from = pipeline.first_unsent().max(flight.first);
        if pipeline.has_begun(from) {
            return self.fail_shared(flight.link, Error::Closed);
        }
        for number in from..=flight.last {
            pipeline.withdraw(number);
        }
        let idle = pipeline.in_flight() == 0;
        if let Some(sharing) = link.sharing.as_mut() {
            sharing.followers.remove(&flight.first);
            if idle {
                sharing.again = None;
            }
        }
        if idle && !connecting {
            self.worked_off(flight.link);
        }
        // there is room for others
        self.serve_queue(trunk);
    }

    /// Whether others wait for the reply to the get of an operation that is
    /// over. It is counted out.
    fn is_followed(&mut self, flight: Flight) -> bool {
        let sharing = self
            .links
            .get_mut(flight.link)
            .map(|link| &mut link.sharing);
        let Some(Sharing {
            followers,
            following,
            ..
        }) = sharing.and_then(Option::as_deref_mut)
        else {
            return false;
        };
        let Some(all) = followers.get_mut(&flight.first) else {
            return false;
        };
        *following -= all.following().min(*following);
        all.waiting = all.waiting.saturating_sub(1);
        *following += all.following();
        if all.tags.len() > FOLLOWERS_KEPT.max(2 * all.waiting) {
            let sessions = &self.sessions;
            all.tags.retain(|tag| {
                let session = sessions.get(tag.session);
                session.is_some_and(|session| session.serial == tag.serial)
            });
        }
        all.waiting > 0
    }

    /// The operation with this tag, if it waits.
    fn waiting_op(&self, tag: Tag) -> Option<&Op> {
        let session = self.sessions.get(tag.session)?;
        let op = session.reader.as_ref()?;
        (session.serial == tag.serial && op.status() == Status::Pending).then_some(op)
    }

    /// Nobody tells when ngx_lua kills a light thread. Before something is
    /// sent, those are looked for whose commands it would be.
    pub(super) fn end_killed(&mut self, key: LinkKey) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let followers = link.sharing.as_ref().map(|sharing| &sharing.followers);
        let followers = followers.filter(|followers| !followers.is_empty());
        let mut killed = Vec::new();
        let mut last = None;
        for (number, tag) in link.pipeline.still_to_send() {
            if last == Some(tag) {
                continue;
            }
            last = Some(tag);
            let followers = followers.and_then(|followers| followers.get(&number));
            let followers = followers.map_or(&[][..], |followers| &followers.tags);
            // up to the first who still waits for it
            for tag in std::iter::once(&tag).chain(followers) {
                match self.waiting_op(*tag) {
                    Some(op) if !op.is_abandoned() => break,
                    Some(_) if killed.try_reserve(1).is_ok() => killed.push(tag.session),
                    _ => {}
                }
            }
        }
        for session in killed {
            self.disconnect(session, State::Closed);
        }
    }
}
