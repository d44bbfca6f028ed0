//! Bytes out and in on shared connections.

use std::rc::Rc;

use nginx_sys::{NGX_ERROR, NGX_OK, ngx_handle_read_event, ngx_handle_write_event, ngx_int_t};

use crate::protocol::{Malformed, Reply};
use crate::transport::error::Error;
use crate::transport::ids::LinkKey;
use crate::transport::link::io::READ_AT_ONCE;
use crate::transport::link::{Link, Owner, Tag};
use crate::transport::state::op::{Outcome, Status, Work, accept};
use crate::transport::state::session::{Session, State};
use crate::transport::state::sessions::waiting;
use crate::transport::state::trunk::Trunk;
use crate::transport::wait::members::MIN_GRACE;
use crate::transport::worker::Worker;
use crate::{fault, nginx};

/// A reply, to one or to several.
pub enum Delivery {
    Own(Reply),
    Common(Rc<Reply>),
}

/// Gives a session a reply. Whether its operation is done, and whether it was
/// one that the trunk counts.
pub fn deliver_to(session: &mut Session, reply: Delivery) -> (bool, bool) {
    let Some(op) = &mut session.reader else {
        return (false, false);
    };
    match reply {
        Delivery::Own(reply) => accept(op, reply),
        Delivery::Common(reply) => {
            if let Some(Work::Command) = op.work_mut() {
                op.finish(Outcome::Common(reply));
            }
        }
    }
    let done = op.status() == Status::Done;
    let counted = match &mut session.state {
        State::Attached { flight, .. } if done => flight.take().is_some(),
        _ => false,
    };
    (done, counted)
}

impl Worker {
    /// Sends what is to be sent, as far as the socket takes it.
    pub fn flush_shared(&mut self, key: LinkKey) {
        self.flush_shared_with(key, b"");
    }

    /// As [`Self::flush_shared`]; `value`, unless empty, is what
    /// `Pipeline::submit_head` left to be sent.
    pub fn flush_shared_with(&mut self, key: LinkKey, value: &[u8]) {
        self.send_shared(key, value);
        if let Some(trunk) = self.count_unsent(key) {
            self.serve_queue(trunk);
        }
    }

    pub fn send_shared(&mut self, key: LinkKey, value: &[u8]) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Owner::Trunk { trunk, connecting } = link.owner else {
            return;
        };
        if let Some(trunk) = self.trunks.get_mut(trunk)
            && trunk.current == Some(key)
        {
            trunk.current = None;
        }
        if connecting {
            return;
        }
        if let Some(sharing) = &mut link.sharing {
            sharing.close_batch();
        }
        if value.is_empty() {
            self.end_killed(key);
        }
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        link.pipeline.close_gaps();
        let pipeline = &link.pipeline;
        let fresh = pipeline.in_flight() > 0 && !pipeline.has_begun_oldest();
        if fresh && value.is_empty() && link.is_readable() {
            // nothing was asked: it is closed, or out of step
            self.read_shared(key);
        }
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        if !value.is_empty()
            && let Err(error) = link.send_with(value)
        {
            // what goes to another connection must be whole
            let whole = link.pipeline.sent_with(0, value);
            let newest = link.pipeline.exchanges().last();
            if let Some(newest) = newest.filter(|_| !whole) {
                link.pipeline.withdraw(newest.number);
                self.lose(newest.tag, &error, true);
            }
            return self.fail_sending(key, error);
        }
        let until = link.sends_until();
        let c = link.connection.as_ptr();
        let mut wrote = !value.is_empty();
        // SAFETY: the link's connection is open; its send function reads at
        // most `len` bytes.
        let result = unsafe {
            loop {
                let unsent = match until {
                    None => link.pipeline.unsent(),
                    Some(number) => link.pipeline.unsent_before(number),
                };
                if unsent.is_empty() {
                    break Ok(());
                }
                let sent = (*c).send.map_or(NGX_ERROR as isize, |send| {
                    send(c, unsent.as_ptr().cast_mut(), unsent.len())
                });
                if sent > 0 {
                    link.pipeline.sent(sent.unsigned_abs());
                    wrote = true;
                } else if sent == NGX_ERROR as isize {
                    break Err(Error::from_errno(nginx::last_errno()));
                } else {
                    break Ok(());
                }
            }
            .and_then(|()| match ngx_handle_write_event((*c).write, 0) {
                rc if rc == NGX_OK as ngx_int_t => Ok(()),
                _ => Err(Error::Unknown),
            })
        };
        if wrote {
            link.note_written();
        }
        if let Err(error) = result {
            self.fail_sending(key, error);
        }
    }

    /// Nothing can be sent any more, as one learns before the read event comes. The replies that
    /// are there go to those who wait for them first.
    pub fn fail_sending(&mut self, key: LinkKey, error: Error) {
        let mut read = 0;
        while read < READ_AT_ONCE
            && let Some(link) = self.links.get_mut(key)
        {
            link.assume_readable();
            match link.receive() {
                Some(Ok(n @ 1..)) => read += n,
                _ => break,
            }
            self.deliver_shared(key);
        }
        self.fail_shared(key, error);
    }

    /// Receives what there is.
    pub fn read_shared(&mut self, key: LinkKey) {
        let mut read = 0;
        while read < READ_AT_ONCE {
            let Some(link) = self.links.get_mut(key) else {
                return;
            };
            if !link.is_readable() {
                break;
            }
            let error = match link.receive() {
                None => break,
                Some(Ok(0)) => Error::Closed,
                Some(Ok(n)) => {
                    read += n;
                    if let Some(sharing) = &mut link.sharing {
                        sharing.progress = nginx::now();
                    }
                    self.deliver_shared(key);
                    continue;
                }
                Some(Err(error)) => error,
            };
            return self.fail_shared(key, error);
        }
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open.
        let rc = unsafe {
            if link.is_readable() {
                // there is more; with edge-triggered events nobody would tell
                nginx::post_next((*c).read);
            }
            ngx_handle_read_event((*c).read, 0)
        };
        if rc != NGX_OK as ngx_int_t {
            self.fail_shared(key, Error::Unknown);
        }
    }

    /// Hands replies to those who wait for them.
    pub fn deliver_shared(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Owner::Trunk { trunk, .. } = link.owner else {
            return;
        };
        let before = link.pipeline.in_flight();
        let mut answered = false;
        let mut over = 0;
        let unasked = loop {
            let number = link.pipeline.oldest();
            let pipeline = &link.pipeline;
            let unsent = pipeline.in_flight() > 0 && !pipeline.has_begun_oldest();
            if unsent && !pipeline.is_broken() && !pipeline.buffered().is_empty() {
                break true;
            }
            let Some((tag, reply)) = link.pipeline.next_reply() else {
                break false;
            };
            let broken = link.pipeline.is_broken();
            fault::point();
            answered |= !broken;
            if let Reply::Line(_) | Reply::Malformed(Malformed::Unsolicited) = reply {
                link.note_words(number, &reply);
            }
            let followers = match &mut link.sharing {
                Some(sharing) if !sharing.followers.is_empty() => sharing.take_followers(number),
                _ => None,
            };
            let mut deliver = |tag: Tag, reply: Delivery| {
                let Some(session) = waiting(&mut self.sessions, tag) else {
                    return;
                };
                let (done, counted) = deliver_to(session, reply);
                over += usize::from(counted);
                if done && let Some(ticket) = session.deadline.take() {
                    self.deadlines.cancel(ticket);
                }
                if broken && let State::Attached { reused, flight, .. } = session.state {
                    // as a connection of one's own would be
                    over += usize::from(flight.is_some());
                    session.state = State::Broken { reused };
                    if let Some(trunk) = self.trunks.get_mut(trunk) {
                        trunk.users = trunk.users.saturating_sub(1);
                    }
                }
            };
            match followers {
                None => deliver(tag, Delivery::Own(reply)),
                Some(followers) => {
                    let reply = Rc::new(reply);
                    for tag in std::iter::once(tag).chain(followers) {
                        deliver(tag, Delivery::Common(reply.clone()));
                    }
                }
            }
        };
        if let Some(trunk) = self.trunks.get_mut(trunk) {
            trunk.count_out(over);
            trunk.plain |= answered;
        }
        self.ease_deadline();
        if unasked {
            // the next command was not sent, and can be on another connection
            let error = self.links.get(key).map_or(Error::Closed, Link::unasked);
            return self.fail_shared(key, error);
        }
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let idle = link.pipeline.in_flight() == 0;
        if link.pipeline.is_broken() || idle && !link.pipeline.buffered().is_empty() {
            return self.fail_shared(key, Error::Closed);
        }
        if link.pipeline.in_flight() < before {
            let more = link.has_more_to_ask();
            if link
                .sharing
                .as_ref()
                .is_some_and(|s| s.overdue || s.late > 0)
            {
                self.note_overdue(key);
            }
            if idle {
                self.worked_off(key);
            } else if more {
                self.flush_later(key);
            }
            self.serve_queue(trunk);
        }
    }

    /// A read event, or the time of a link's timer.
    pub fn on_shared_readable(&mut self, key: LinkKey) {
        fault::point();
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open.
        let (timed_out, closing, failed) = unsafe {
            let timed_out = (*(*c).read).timedout() != 0;
            (*(*c).read).set_timedout(0);
            (timed_out, (*c).close() != 0, (*c).error() != 0)
        };
        if closing {
            // nginx closes idle connections of a worker that exits, and
            // after worker_shutdown_timeout all
            if failed || link.pipeline.in_flight() == 0 {
                self.fail_shared(key, Error::Closed);
            }
            return;
        }
        if timed_out {
            return self.inspect(key);
        }
        if link.pipeline.in_flight() == 0 && link.peek() != Err(libc::EAGAIN) {
            // of no use any more, and no error of anybody
            return self.fail_shared(key, Error::Closed);
        }
        self.read_shared(key);
    }

    /// Sends what was collected in this turn of the event loop.
    pub fn on_turn_end(&mut self) {
        let mut dirty = std::mem::take(&mut self.dirty);
        for key in dirty.drain(..) {
            if let Some(sharing) = self.links.get_mut(key).and_then(|l| l.sharing.as_mut()) {
                sharing.dirty = false;
                fault::point();
            }
            self.flush_shared(key);
        }
        if self.dirty.is_empty() {
            self.dirty = dirty;
        }
    }

    /// A link's timer has expired: it was idle for long enough, or its oldest
    /// reply may be overdue.
    pub fn inspect(&mut self, key: LinkKey) {
        let orphan = self.is_nobodys(key);
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Owner::Trunk { trunk, .. } = link.owner else {
            return;
        };
        let (Some(sharing), now) = (&mut link.sharing, nginx::now()) else {
            return;
        };
        if link.pipeline.in_flight() == 0 {
            let keepalive = self.trunks.get(trunk).map_or(0, Trunk::idle_limit);
            let due = sharing.idle_since.saturating_add(keepalive);
            return match keepalive {
                0 => {}
                _ if due <= now => self.fail_shared(key, Error::Closed),
                _ => self.arm_inspection(key, due - now),
            };
        }
        if !orphan {
            // it has a deadline of its own
            return self.arm_inspection(key, 10 * MIN_GRACE);
        }
        let due = sharing.progress.saturating_add(MIN_GRACE);
        if due > now {
            return self.arm_inspection(key, due - now);
        }
        sharing.overdue = true;
        let mut tags = link.pipeline.tags().chain(
            sharing
                .followers
                .values()
                .flat_map(|all| all.tags.iter().copied()),
        );
        let live = tags.any(|tag| waiting(&mut self.sessions, tag).is_some());
        drop(tags);
        if live {
            self.arm_inspection(key, MIN_GRACE);
        } else {
            self.fail_shared(key, Error::Closed);
        }
    }
}
