//! Bytes out and in on shared connections, failures, and connections that are
//! idle or overdue.

use std::rc::Rc;

use nginx_sys::{
    NGX_ERROR, NGX_OK, ngx_add_timer, ngx_connection_log_error_e_NGX_ERROR_INFO as NGX_ERROR_INFO,
    ngx_handle_read_event, ngx_handle_write_event, ngx_int_t,
};

use super::Flight;
use crate::nginx::{self, Msec, stop_timer};
use crate::protocol::Reply;
use crate::transport::Error;
use crate::transport::io::accept;
use crate::transport::link::{Owner, Tag};
use crate::transport::op::{Outcome, Status, Work};
use crate::transport::session::{Session, State};
use crate::transport::worker::{LinkKey, SessionKey, TrunkKey, Worker};

/// Most reads from one connection in a turn of the event loop: others have
/// their turn in between.
const MAX_READS: usize = 16;

/// Least time that a link with only discarded replies to come is given, in
/// milliseconds.
const MIN_GRACE: Msec = 100;

impl Worker {
    /// Sends what is to be sent, as far as the socket takes it.
    pub(in crate::transport) fn flush_shared(&mut self, key: LinkKey) {
        self.flush_shared_with(key, b"");
    }

    /// As [`Self::flush_shared`]; `value`, unless empty, is what
    /// `Pipeline::submit_head` left to be sent.
    pub(super) fn flush_shared_with(&mut self, key: LinkKey, value: &[u8]) {
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
        let pipeline = &link.pipeline;
        let fresh = pipeline.in_flight() > 0 && !pipeline.has_begun(pipeline.oldest());
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
            return self.fail_shared(key, error);
        }
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open; its send function reads at
        // most `len` bytes.
        let result = unsafe {
            loop {
                let unsent = link.pipeline.unsent();
                if unsent.is_empty() {
                    break Ok(());
                }
                let sent = (*c).send.map_or(NGX_ERROR as isize, |send| {
                    send(c, unsent.as_ptr().cast_mut(), unsent.len())
                });
                if sent > 0 {
                    link.pipeline.sent(sent.unsigned_abs());
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
        if let Err(error) = result {
            self.fail_shared(key, error);
        }
    }

    /// A read event, or the time of a link's timer.
    pub(in crate::transport) fn on_shared_readable(&mut self, key: LinkKey) {
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
        self.read_shared(key);
    }

    /// Receives what there is.
    fn read_shared(&mut self, key: LinkKey) {
        for _ in 0..MAX_READS {
            let Some(link) = self.links.get_mut(key) else {
                return;
            };
            if !link.is_readable() {
                break;
            }
            let error = match link.receive() {
                None => break,
                Some(Ok(0)) => Error::Closed,
                Some(Ok(_)) => {
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
    fn deliver_shared(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Owner::Trunk { trunk, .. } = link.owner else {
            return;
        };
        let before = link.pipeline.in_flight();
        loop {
            let number = link.pipeline.oldest();
            let Some((tag, reply)) = link.pipeline.next_reply() else {
                break;
            };
            let broken = link.pipeline.is_broken();
            let followers = match &mut link.sharing {
                Some(sharing) if !sharing.followers.is_empty() => sharing.followers.remove(&number),
                _ => None,
            };
            let mut deliver = |tag: Tag, reply: Answer| {
                let Some(session) = waiting(&mut self.sessions, tag) else {
                    return;
                };
                let done = answer(session, reply);
                if done && let Some(ticket) = session.deadline.take() {
                    self.deadlines.cancel(ticket);
                }
                if broken && let State::Attached { reused, .. } = session.state {
                    // as a connection of one's own would be
                    session.state = State::Broken { reused };
                    if let Some(trunk) = self.trunks.get_mut(trunk) {
                        trunk.users = trunk.users.saturating_sub(1);
                    }
                }
            };
            match followers {
                None => deliver(tag, Answer::Own(reply)),
                Some(followers) => {
                    let reply = Rc::new(reply);
                    for tag in std::iter::once(tag).chain(followers) {
                        deliver(tag, Answer::Common(reply.clone()));
                    }
                }
            }
        }
        self.ease_deadline();
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let idle = link.pipeline.in_flight() == 0;
        if link.pipeline.is_broken() || idle && !link.pipeline.buffered().is_empty() {
            return self.fail_shared(key, Error::Closed);
        }
        if link.pipeline.in_flight() < before {
            let oldest = link.pipeline.tags().next();
            let orphan = |tag| waiting(&mut self.sessions, tag).is_none();
            if let Some(sharing) = &mut link.sharing
                && sharing.overdue
            {
                sharing.overdue = oldest.is_some_and(orphan);
            }
            if idle {
                self.rest(key);
            }
            self.serve_queue(trunk);
        }
    }

    /// A shared connection failed: those whose commands were sent, in part at
    /// least, get the error. The others go to another connection.
    pub(super) fn fail_shared(&mut self, key: LinkKey, error: Error) {
        let Some(mut link) = self.links.remove(key) else {
            return;
        };
        let Owner::Trunk { trunk, connecting } = link.owner else {
            return;
        };
        if let Some(trunk) = self.trunks.get_mut(trunk) {
            trunk.links.retain(|other| *other != key);
            if trunk.current == Some(key) {
                trunk.current = None;
            }
            if trunk.links.is_empty() {
                trunk.served = 0;
            }
        }
        let moved = (!connecting).then(|| link.pipeline.split_unsent());
        let moved = moved.filter(|moved| moved.in_flight() > 0 && !nginx::is_exiting());
        let writing = !link.pipeline.unsent().is_empty();
        // to those who have given it commands, it was connected
        let error = match error {
            Error::Os(_) if connecting => Error::Closed,
            error => error,
        };
        let mut lost: Vec<Tag> = link.pipeline.tags().collect();
        let kept_from = moved.as_ref().map_or(u64::MAX, |moved| moved.oldest());
        let mut kept = Vec::new();
        if let Some(sharing) = &mut link.sharing {
            for (number, followers) in sharing.followers.drain() {
                if number < kept_from {
                    lost.extend(followers);
                } else {
                    kept.push((number, followers));
                }
            }
        }
        drop(link);
        for tag in lost {
            self.lose(tag, &error, writing);
        }
        if let Some(moved) = moved {
            let tags: Vec<Tag> = moved
                .tags()
                .chain(kept.iter().flat_map(|f| f.1.clone()))
                .collect();
            if let Err(error) = self.move_to_new_link(trunk, moved, kept) {
                for tag in tags {
                    self.lose(tag, &error, false);
                }
            }
        }
        if self
            .trunks
            .get(trunk)
            .is_some_and(|trunk| trunk.links.is_empty())
        {
            if connecting {
                self.refuse_queue(trunk, &error);
            } else {
                self.serve_queue(trunk);
            }
        }
        self.drop_unused_trunk(trunk);
    }

    /// An operation fails with the connection it was on.
    fn lose(&mut self, tag: Tag, error: &Error, writing: bool) {
        let Some(session) = waiting(&mut self.sessions, tag) else {
            return;
        };
        if let Some(op) = &mut session.reader {
            op.fail(error.clone(), writing);
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
            if let Some(trunk) = self.trunks.get_mut(trunk) {
                trunk.users = trunk.users.saturating_sub(1);
                trunk.queue.retain(|queued| *queued != key);
            }
        }
    }

    /// Nothing is in flight on a link (any more).
    pub(super) fn rest(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Owner::Trunk { trunk, .. } = link.owner else {
            return;
        };
        if link.pipeline.in_flight() > 0 {
            return;
        }
        if let Some(sharing) = &mut link.sharing {
            sharing.overdue = false;
            sharing.idle_since = nginx::now();
        }
        let trunk = self.trunks.get(trunk);
        let (keepalive, wanted, links) = trunk.map_or((0, 0, &[][..]), |trunk| {
            let wanted = trunk.multiplex.connections;
            (trunk.keepalive, wanted, trunk.links.as_slice())
        });
        let links = links.iter().filter(|link| {
            let link = self.links.get(**link);
            link.is_some_and(|link| !link.is_overdue())
        });
        let surplus = links.count() > wanted;
        if surplus || nginx::is_exiting() {
            return self.fail_shared(key, Error::Closed);
        }
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open.
        unsafe {
            (*c).set_idle(1);
            // what happens to it now is no error of anybody
            (*c).set_log_error(NGX_ERROR_INFO as _);
            if keepalive != 0 && (*(*c).read).timer_set() == 0 {
                ngx_add_timer((*c).read, keepalive);
            }
        }
        link.pipeline.trim();
    }

    /// An operation is over, but its reply is still to come.
    pub(super) fn orphaned(&mut self, flight: Flight, key: SessionKey) {
        let timeout = self.sessions.get(key).map_or(0, Session::read_timeout);
        self.arm_inspection(flight.link, timeout);
    }

    fn arm_inspection(&mut self, key: LinkKey, after: Msec) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open.
        unsafe {
            // until somebody else uses it, its failure is no error of anybody
            (*c).set_log_error(NGX_ERROR_INFO as _);
            stop_timer((*c).read);
            ngx_add_timer((*c).read, after.max(MIN_GRACE));
        }
    }

    /// An operation on a link timed out. If it was the oldest, or older ones
    /// are nobody's, the link is overdue.
    pub(super) fn suspect(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let oldest = link.pipeline.tags().next();
        let overdue = oldest.is_some_and(|tag| waiting(&mut self.sessions, tag).is_none());
        if let Some(sharing) = link.sharing.as_mut().filter(|_| overdue) {
            sharing.overdue = true;
        }
    }

    /// A link's timer has expired: it was idle for long enough, or its oldest
    /// reply may be overdue.
    fn inspect(&mut self, key: LinkKey) {
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
            let keepalive = self.trunks.get(trunk).map_or(0, |trunk| trunk.keepalive);
            let due = sharing.idle_since.saturating_add(keepalive);
            return match keepalive {
                0 => {}
                _ if due <= now => self.fail_shared(key, Error::Closed),
                _ => self.arm_inspection(key, due - now),
            };
        }
        let oldest = link.pipeline.tags().next();
        let orphan = oldest.is_some_and(|tag| waiting(&mut self.sessions, tag).is_none());
        if !orphan {
            // it has a deadline of its own
            return self.arm_inspection(key, 10 * MIN_GRACE);
        }
        let due = sharing.progress.saturating_add(MIN_GRACE);
        if due > now {
            return self.arm_inspection(key, due - now);
        }
        sharing.overdue = true;
        let mut tags = link
            .pipeline
            .tags()
            .chain(sharing.followers.values().flatten().copied());
        let live = tags.any(|tag| waiting(&mut self.sessions, tag).is_some());
        drop(tags);
        if live {
            self.arm_inspection(key, MIN_GRACE);
        } else {
            self.fail_shared(key, Error::Closed);
        }
    }

    /// Exchanges of which nothing was sent go to a new connection.
    fn move_to_new_link(
        &mut self,
        trunk: TrunkKey,
        pipeline: crate::protocol::Pipeline<Tag>,
        followers: Vec<(u64, Vec<Tag>)>,
    ) -> Result<(), Error> {
        let tags = pipeline
            .tags()
            .chain(followers.iter().flat_map(|f| f.1.clone()));
        let alive: Vec<Tag> = tags
            .filter(|tag| waiting(&mut self.sessions, *tag).is_some())
            .collect();
        let first = alive.first().ok_or(Error::Closed)?;
        let session = self.sessions.get(first.session).ok_or(Error::Closed)?;
        let request = session.request().ok_or(Error::Closed)?;
        let timeout = session.connect_timeout();
        let key = self.open_shared(trunk, request, timeout)?;
        for tag in alive {
            if let Some(session) = self.sessions.get_mut(tag.session)
                && let State::Attached {
                    flight: Some(flight),
                    ..
                } = &mut session.state
            {
                flight.link = key;
            }
        }
        if let Some(link) = self.links.get_mut(key) {
            link.pipeline = pipeline;
            link.set_busy(true);
            if let Some(sharing) = &mut link.sharing {
                sharing.followers.extend(followers);
            }
        }
        self.flush_shared(key);
        Ok(())
    }
}

/// A reply, to one or to several.
enum Answer {
    Own(Reply),
    Common(Rc<Reply>),
}

/// The session that waits for the exchange with this tag, if it still does.
fn waiting(sessions: &mut slotmap::SlotMap<SessionKey, Session>, tag: Tag) -> Option<&mut Session> {
    let session = sessions.get_mut(tag.session)?;
    let waits = session
        .reader
        .as_ref()
        .is_some_and(|op| op.status() == Status::Pending);
    (session.serial == tag.serial && waits).then_some(session)
}

/// Gives a session a reply; whether its operation is done.
fn answer(session: &mut Session, answer: Answer) -> bool {
    let Some(op) = &mut session.reader else {
        return false;
    };
    match answer {
        Answer::Own(reply) => accept(op, reply),
        Answer::Common(reply) => {
            if let Some(Work::Command) = op.work_mut() {
                op.finish(Outcome::Common(reply));
            }
        }
    }
    let done = op.status() == Status::Done;
    if done && let State::Attached { flight, .. } = &mut session.state {
        *flight = None;
    }
    done
}
