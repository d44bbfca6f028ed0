//! The end of a session's use of shared connections, and theirs.

use nginx_sys::ngx_connection_error;

use crate::transport::error::Error;
use crate::transport::ids::{LinkKey, SessionKey, TrunkKey};
use crate::transport::link::sharing::Sharing;
use crate::transport::link::{Link, Owner};
use crate::transport::log::log_refusal;
use crate::transport::open::shared::RETRY_DELAY;
use crate::transport::state::errands::Errand;
use crate::transport::state::op::{Op, Outcome, Slot, What};
use crate::transport::state::session::{Flight, State};
use crate::transport::worker::Worker;
use crate::transport::worker::exchanges::{Fate, MOST_FRUITLESS};
use crate::{fault, nginx};

impl Worker {
    /// Ends what a session has: its place in a queue, its link, its pending
    /// operations. A coroutine that waits is told, unless its request ends.
    pub fn disconnect(&mut self, key: SessionKey, state: State) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let (State::Closed, State::Closed, None, None) =
            (&session.state, &state, &session.reader, &session.writer)
        {
            return;
        }
        let was = std::mem::replace(&mut session.state, state);
        let deadline = session.deadline.take();
        let ended = session.cleanup.is_none();
        fault::point();
        for slot in [Slot::Reader, Slot::Writer] {
            match session.op(slot) {
                None => {}
                Some(op) if !ended && op.has_waiter() => op.fail(Error::Closed, false),
                Some(_) => {
                    if let Some(op) = session.take_op(slot) {
                        self.semaphores.give(op.into_semaphore());
                    }
                }
            }
        }
        if let Some(ticket) = deadline {
            self.deadlines.cancel(ticket);
            self.ease_deadline();
        }
        match was {
            State::Queued { pool, place, .. } => self.leave_queue(pool, place),
            State::Resolving { pool, trunk, .. } => {
                if let Some(pool) = pool {
                    self.release(pool);
                }
                if let Some(trunk) = trunk {
                    self.leave_trunk(trunk, key, None);
                }
            }
            State::Joining(trunk) => self.leave_trunk(trunk, key, None),
            State::Attached { trunk, flight, .. } => self.leave_trunk(trunk, key, flight),
            State::Linked(link) => self.close_link(link),
            State::Postponed { pool, .. } => self.release(pool),
            State::Closed | State::Broken { .. } => {}
        }
    }

    /// A session ends its use of a trunk; its state was changed already.
    pub fn leave_trunk(&mut self, trunk_key: TrunkKey, key: SessionKey, flight: Option<Flight>) {
        if let Some(session) = self.sessions.get_mut(key) {
            // what is under way is nobody's any more
            session.serial += 1;
        }
        self.stop_waiting(key, trunk_key);
        if let Some(trunk) = self.trunks.get_mut(trunk_key) {
            trunk.count_out(usize::from(flight.is_some()));
        }
        self.leave(trunk_key);
        if let Some(flight) = flight {
            self.forsake(flight);
            fault::point();
            self.orphaned(flight, key);
        }
        self.drop_unused_trunk(trunk_key);
    }

    /// An operation is over, whose commands were given to a link. A get that
    /// somebody else waits for stays. If a command was sent in part, the
    /// connection cannot go on.
    pub fn forsake(&mut self, flight: Flight) {
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
        let mut from = flight.first;
        if pipeline.is_sent(from) || pipeline.has_begun(from) {
            from = from.max(pipeline.first_unsent());
            if pipeline.has_begun(from) {
                return self.fail_shared(flight.link, Error::Closed);
            }
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
        self.count_unsent(flight.link);
        if idle && !connecting {
            self.worked_off(flight.link);
        }
        // there is room for others
        self.serve_queue(trunk);
    }

    /// A link has worked off what was in flight.
    pub fn worked_off(&mut self, key: LinkKey) {
        if self.links.get(key).is_some_and(Link::is_leaving) {
            return self.fail_shared(key, Error::Closed);
        }
        if let Some(sharing) = self.links.get_mut(key).and_then(|l| l.sharing.as_mut()) {
            sharing.again = None;
            sharing.overdue = false;
        }
        if self.is_surplus(key) || nginx::is_exiting() {
            self.fail_shared(key, Error::Closed);
        } else {
            self.rest(key);
        }
    }

    /// A shared connection failed. Commands that were not sent, of operations
    /// that have sent nothing, go to another connection. Reads of which nothing
    /// came are asked again, once. All others get the error.
    pub fn fail_shared(&mut self, key: LinkKey, error: Error) {
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
        let mut sharing = sharing.map_or_else(Sharing::default, |sharing| *sharing);
        if let Some(trunk) = self.trunks.get_mut(trunk) {
            if connecting {
                trunk.retry_at = nginx::now().saturating_add(RETRY_DELAY);
            }
            trunk.count_unsent(sharing.unsent, 0);
            trunk.links.retain(|other| *other != key);
            if trunk.current == Some(key) {
                trunk.current = None;
            }
            if trunk.links.is_empty() {
                trunk.served = 0;
                trunk.plain = false;
            }
        }
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
        self.rest_if_left(trunk);
        self.drop_unused_trunk(trunk);
    }

    /// Those who wait for room get what there is.
    pub fn serve_queue(&mut self, trunk_key: TrunkKey) {
        while let Some(trunk) = self.trunks.get(trunk_key)
            && let Some(first) = trunk.next_in_queue()
        {
            let op = self.sessions.get(first).and_then(|s| s.reader.as_ref());
            if op.is_none_or(Op::is_abandoned) {
                // its light thread was killed
                self.disconnect(first, State::Closed);
                self.drop_from_queue(trunk_key, first);
                continue;
            }
            if nginx::is_scarce() && self.opens_for_next(trunk_key) && self.lacks_room() {
                return self.wait_for_room(Errand::Queue(trunk_key));
            }
            let link = match self.batch_link(trunk_key, Some(first), true) {
                Ok(Some(link)) => link,
                Ok(None) => return,
                Err(error) => return self.refuse_queue(trunk_key, &error),
            };
            self.stop_waiting(first, trunk_key);
            self.drop_from_queue(trunk_key, first);
            let session = self.sessions.get_mut(first);
            let op = session.and_then(|session| session.reader.as_mut());
            if let Some(batch) = op.and_then(Op::unqueue)
                && self.put_on_link(first, link, What::Batch(&batch)).is_err()
            {
                self.finish_failed(first, &Error::Unknown);
            }
        }
    }

    /// An operation timed out: its session is closed, as a connection of its
    /// own would be.
    pub fn give_up(&mut self, key: SessionKey, writing: bool) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let Some(op) = &mut session.reader {
            op.fail(Error::Timeout, writing);
        }
        let state = match session.state {
            State::Attached { reused, .. } if writing => State::Broken { reused },
            _ => State::Closed,
        };
        self.disconnect(key, state);
    }

    /// A link takes no new work, and goes when it has worked off what it has.
    pub fn part_with(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let idle = link.pipeline.in_flight() == 0 && !link.is_connecting();
        if let Some(sharing) = &mut link.sharing {
            sharing.leaving = true;
            sharing.overdue = true;
        }
        if idle {
            self.fail_shared(key, Error::Closed);
        } else if self.is_nobodys(key) {
            self.arm_inspection(key, 0);
        }
    }

    /// Those who waited for a connection do not get one.
    pub fn refuse_joining(&mut self, trunk_key: TrunkKey, link: LinkKey, error: &Error) {
        let joining = self.end_joining(trunk_key);
        let Some(link) = self.links.get_mut(link) else {
            return;
        };
        let c = link.connection.as_ptr();
        let peer = link.address.text_and_port();
        if let (Error::Os(errno), true) = (error, joining.is_empty()) {
            // nobody is told the reason
            // SAFETY: the link's connection is open.
            unsafe {
                ngx_connection_error(c, *errno, c"connect() failed".as_ptr().cast_mut().cast());
            }
        }
        for key in joining {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            session.state = State::Closed;
            if let Some(request) = session.request() {
                // SAFETY: the link's connection is open, the request live; the
                // log is lent for one line.
                unsafe { log_refusal(c, request, error, &peer) };
            }
            self.finish_reader(key, Outcome::Failed(error.clone()));
            self.leave_trunk(trunk_key, key, None);
        }
    }
}
