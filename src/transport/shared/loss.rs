//! Shared connections that fail: who loses what.

use std::ops::RangeInclusive;
use std::rc::Rc;

use super::Sharing;
use super::io::waiting;
use crate::fault;
use crate::nginx::{self, Msec};
use crate::protocol::{Pipeline, Reply};
use crate::transport::Error;
use crate::transport::io::accept;
use crate::transport::link::{Link, Owner, Tag};
use crate::transport::op::Work;
use crate::transport::room::Errand;
use crate::transport::session::State;
use crate::transport::worker::{LinkKey, SessionKey, Worker};

/// How long no further connection is tried after one that failed, in
/// milliseconds.
pub(super) const RETRY_DELAY: Msec = 1000;

/// How many connections may be lost one after the other that have answered
/// nothing of what is asked again.
const MOST_FRUITLESS: u32 = 3;

/// What becomes of commands on a link that failed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Fate {
    /// They were not sent: another link takes them.
    Moves,
    /// They were, but only read: they are sent once more.
    AskedAgain,
    /// Their operations fail.
    Fails,
}

/// The commands of one operation, or one get of several, on a link that failed.
pub(super) struct Lost {
    pub(super) fate: Fate,
    /// Numbers of the exchanges.
    pub(super) numbers: RangeInclusive<u64>,
    /// Who waits for the replies, and who else does.
    pub(super) tag: Tag,
    pub(super) others: Vec<Tag>,
    /// A list of keys is asked for.
    pub(super) is_list: bool,
    /// The reply was the next one: this may be why the server closed.
    suspect: bool,
    unsent: bool,
    repeatable: bool,
}

impl Lost {
    /// All who wait for the replies.
    pub(super) fn tags(&self) -> impl Iterator<Item = Tag> {
        std::iter::once(self.tag).chain(self.others.iter().copied())
    }
}

impl Worker {
    /// A shared connection failed. Commands that were not sent, of operations
    /// that have sent nothing, go to another connection. Reads of which nothing
    /// came are asked again, once. All others get the error.
    pub(in crate::transport) fn fail_shared(&mut self, key: LinkKey, error: Error) {
        if nginx::is_scarce() && self.needs_rescue(key) && self.lacks_room() {
            return self.wait_for_room(Errand::Lost(key, error));
        }
        let Some(link) = self.links.remove(key) else {
            return;
        };
        let Owner::Trunk { trunk, connecting } = link.owner else {
            return;
        };
        let forced = link.is_shut_down();
        let refusal = match error {
            Error::Os(_) | Error::Closed if !connecting => link.refusal(),
            _ => None,
        };
        let refused = refusal.is_some();
        let error = refusal.map_or(error, Error::Said);
        let Link {
            connection,
            pipeline,
            sharing,
            ..
        } = link;
        // another one may need its place
        drop(connection);
        if let Some(trunk) = self.trunks.get_mut(trunk) {
            if connecting {
                trunk.retry_at = nginx::now().saturating_add(RETRY_DELAY);
            }
            trunk.links.retain(|other| *other != key);
            if trunk.current == Some(key) {
                trunk.current = None;
            }
            if trunk.links.is_empty() {
                trunk.served = 0;
                trunk.plain = false;
            }
        }
        let mut sharing = sharing.map_or_else(Sharing::default, |sharing| *sharing);
        let again = sharing.again.take();
        let sent_before = again.is_some();
        let fruitless = match (&again, pipeline.oldest()) {
            (Some(again), 0) => again.fruitless + 1,
            _ => 0,
        };
        let error = match (connecting, again, error) {
            (true, Some(again), _) => again.error,
            // to those who have given it commands, it was connected
            (true, None, Error::Os(_)) => Error::Closed,
            (_, _, error) => error,
        };
        fault::point();
        let can_move = !forced && (!connecting || self.is_standing(trunk));
        let can_ask = !forced && !refused && !connecting && fruitless < MOST_FRUITLESS;
        let mut all = self.lost_on(&pipeline, &mut sharing);
        for lost in &mut all {
            lost.fate = self.fate(lost, can_move, can_ask);
        }
        // of the reads those that may spoil it for others are last
        all.sort_unstable_by_key(|l| (l.fate, l.suspect, l.is_list, *l.numbers.start()));
        self.rescue(trunk, &pipeline, &mut all, &error, fruitless);
        for lost in all.iter().filter(|lost| lost.fate == Fate::Fails) {
            let writing = !sent_before && !pipeline.is_sent(*lost.numbers.end());
            for tag in lost.tags() {
                self.lose(tag, &error, writing);
            }
        }
        let last = self.trunks.get(trunk).is_some_and(|t| t.links.is_empty());
        if connecting && last {
            self.refuse_queue(trunk, &error);
        } else {
            self.serve_queue(trunk);
        }
        self.drop_unused_trunk(trunk);
    }

    /// Whether a link has commands that may go to another one. It takes no
    /// further ones.
    #[cold]
    fn needs_rescue(&mut self, key: LinkKey) -> bool {
        let Some(link) = self.links.get_mut(key) else {
            return false;
        };
        if let Some(sharing) = &mut link.sharing {
            sharing.overdue = true;
        }
        !link.is_connecting() && link.pipeline.in_flight() > 0
    }

    /// What is lost with a link, in order; of what was not answered, that for
    /// which somebody waits.
    fn lost_on(&mut self, pipeline: &Pipeline<Tag>, sharing: &mut Sharing) -> Vec<Lost> {
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
            let followers = sharing.followers.remove(&exchange.number);
            let mut others = followers.map_or_else(Vec::new, |followers| followers.tags);
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

    fn fate(&self, lost: &Lost, can_move: bool, can_ask: bool) -> Fate {
        let session = self.sessions.get(lost.tag.session);
        let Some(State::Attached {
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
        match (flight.moved, flight.again) {
            (false, false) if can_move && lost.unsent => Fate::Moves,
            (_, false) if can_ask && lost.repeatable => Fate::AskedAgain,
            // it was not asked again yet
            (_, true) if can_ask && lost.unsent => Fate::AskedAgain,
            _ => Fate::Fails,
        }
    }

    /// An operation fails with the connection it was on.
    pub(super) fn lose(&mut self, tag: Tag, error: &Error, writing: bool) {
        fault::point();
        let Some(session) = waiting(&mut self.sessions, tag) else {
            return;
        };
        if let Some(op) = &mut session.reader {
            let begun = matches!(op.work_mut(), Some(Work::Pipeline { replies, .. }) if !replies.is_empty());
            match error {
                Error::Said(_) if begun => op.fail(Error::Closed, writing),
                Error::Said(line) => {
                    // in place of its reply, or of the first of them
                    accept(op, Reply::Line(line.to_vec()));
                    op.fail(Error::Closed, false);
                }
                error => op.fail(error.clone(), writing),
            }
        }
        self.end_broken(tag.session);
    }

    /// The operation of a session fails; so is its connection, to Lua.
    pub(super) fn finish_failed(&mut self, key: SessionKey, error: &Error) {
        if let Some(op) = self.sessions.get_mut(key).and_then(|s| s.reader.as_mut()) {
            op.fail(error.clone(), false);
        }
        self.end_broken(key);
    }

    fn end_broken(&mut self, key: SessionKey) {
        self.clear_deadline(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let State::Attached { trunk, reused, .. } = session.state {
            session.state = State::Broken { reused };
            session.serial += 1;
            self.stop_waiting(key, trunk);
            if let Some(trunk) = self.trunks.get_mut(trunk) {
                trunk.users = trunk.users.saturating_sub(1);
            }
        }
    }
}

impl Link {
    /// Whether nginx closes it, as `worker_shutdown_timeout` is over.
    fn is_shut_down(&self) -> bool {
        let c = self.connection.as_ptr();
        // SAFETY: the link's connection is open.
        unsafe { (*c).close() != 0 && (*c).error() != 0 }
    }

    /// Notes what a server says instead of answering, if that is the first of what it says.
    #[cold]
    pub(super) fn note_words(&mut self, number: u64, reply: &Reply) {
        match reply {
            Reply::Line(line) if reply.is_error() => {
                if let Some(sharing) = self.sharing.as_mut().filter(|_| number == 0) {
                    sharing.words = Some(line.as_slice().into());
                }
            }
            Reply::Malformed(_) => self.log_unsolicited(),
            _ => {}
        }
    }

    /// Why the server does not serve this connection, if it has said nothing but that and closed:
    /// then it is the answer to all that was asked.
    fn refusal(&self) -> Option<Rc<[u8]>> {
        let sharing = self.sharing.as_ref()?;
        let line = sharing.words.as_ref()?;
        let only = self.pipeline.oldest() == 1;
        let closed = !matches!(self.peek(), Ok(1..) | Err(libc::EAGAIN));
        (only && closed && self.pipeline.buffered().is_empty()).then(|| line.clone())
    }
}
