//! Commands: onto which connection, how many, and gets asked once.

use std::hash::BuildHasher;

use nginx_sys::{ngx_connection_log_error_e_NGX_ERROR_ERR as NGX_ERROR_ERR, ngx_cycle};

use super::{Flight, Sharing, Trunk};
use crate::fault;
use crate::nginx::{self, Posted};
use crate::protocol::{Batch, Command};
use crate::transport::Error;
use crate::transport::events::on_turn_end;
use crate::transport::link::{Link, Tag};
use crate::transport::op::{Begun, Op, Slot, Work};
use crate::transport::room::Errand;
use crate::transport::session::State;
use crate::transport::submit::{Rejected, What};
use crate::transport::worker::{LinkKey, SessionKey, TrunkKey, Worker};
use crate::upstream::{Choice, Load, choose};

/// Unsent gets that a link keeps room for between batches.
const GETS_KEPT: usize = 256;

impl Worker {
    /// Gives an attached session's commands to a shared connection.
    pub(in crate::transport) fn submit_shared(
        &mut self,
        key: SessionKey,
        trunk: TrunkKey,
        what: What<'_>,
    ) -> Result<Begun, Rejected> {
        fault::point();
        self.check_idle(key)?;
        let link = match self.has_room(trunk) {
            true => self.batch_link(trunk, key, false)?,
            false => None,
        };
        let Some(link) = link else {
            return self.queue_up(key, trunk, what);
        };
        let work = match what {
            What::Command(_) => Work::Command,
            What::Batch(batch) => Work::pipeline(batch)?,
        };
        let semaphore = self.semaphores.take().ok_or(Error::NoMemory)?;
        let value = match self.put_on_link(key, link, what) {
            Ok(value) => value,
            Err(rejected) => {
                self.semaphores.give(semaphore);
                return Err(rejected);
            }
        };
        if let Some(session) = self.sessions.get_mut(key) {
            session.reader = Some(Op::new(semaphore, work));
        }
        self.set_operation_deadline(key);
        if value.is_empty() {
            return Ok(Begun::Waiting);
        }
        // at once, while it is surely there
        self.flush_shared_with(link, value);
        Ok(self.begun(key, Slot::Reader)?)
    }

    /// Appends commands to what a link will send at the end of this turn. What
    /// is returned, unless empty, is a large value that belongs behind them and
    /// was left out: [`Worker::flush_shared_with`] is to be called with it.
    fn put_on_link<'a>(
        &mut self,
        key: SessionKey,
        link_key: LinkKey,
        what: What<'a>,
    ) -> Result<&'a [u8], Rejected> {
        let link = self.links.get_mut(link_key).ok_or(Error::Closed)?;
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        session.serial += 1;
        let tag = Tag {
            session: key,
            serial: session.serial,
        };
        let idle = link.pipeline.in_flight() == 0;
        let mut value = &b""[..];
        let (first, last) = match what {
            What::Command(command) => {
                // one that may be closed gets nothing that could not be moved
                let submitted = if link.takes_all() && !(idle && link.is_readable()) {
                    link.pipeline.submit_head(tag, command)
                } else {
                    link.pipeline.submit(tag, command).map(|()| value)
                };
                value = submitted.map_err(Rejected::Refused)?;
                let newest = link.pipeline.newest().ok_or(Error::Unknown)?;
                let number = match command {
                    Command::Get { .. } => link.ask_once(&self.hasher, newest, tag),
                    _ => newest,
                };
                (number, number)
            }
            What::Batch(batch) => {
                if !link.pipeline.submit_batch(tag, batch) {
                    return Err(Error::NoMemory.into());
                }
                let newest = link.pipeline.newest().ok_or(Error::Unknown)?;
                ((newest + 1).saturating_sub(batch.len() as u64), newest)
            }
        };
        link.set_busy(idle);
        fault::point();
        if let State::Attached { flight, .. } = &mut session.state {
            *flight = Some(Flight {
                link: link_key,
                first,
                last,
                since: nginx::now(),
                sent: false,
            });
        }
        if let Some(sharing) = link.sharing.as_mut().filter(|sharing| !sharing.dirty) {
            sharing.dirty = true;
            self.dirty.push(link_key);
            fault::point();
            self.turn_end().post();
        }
        Ok(value)
    }

    fn turn_end(&mut self) -> &mut Posted {
        self.turn_end.get_or_insert_with(|| {
            // SAFETY: the cycle's log lives until `renew_shared_events`.
            unsafe { Posted::new(on_turn_end, (*ngx_cycle).log) }
        })
    }

    /// Sends what was collected in this turn of the event loop.
    pub(in crate::transport) fn on_turn_end(&mut self) {
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

    /// Whether a command waits for the socket to take it.
    pub(in crate::transport) fn is_held_up(&self, flight: Flight) -> bool {
        let link = self.links.get(flight.link);
        link.is_some_and(|link| {
            let dirty = link.sharing.as_ref().is_some_and(|sharing| sharing.dirty);
            !dirty && !link.pipeline.is_sent(flight.last)
        })
    }

    /// Whether a trunk takes a further operation now.
    fn has_room(&self, trunk: TrunkKey) -> bool {
        let Some(trunk) = self.trunks.get(trunk) else {
            return false;
        };
        let (mut operations, mut size) = (0, 0);
        for link in trunk.links.iter().filter_map(|link| self.links.get(*link)) {
            operations += link.pipeline.in_flight() + link.followers();
            size += link.pipeline.unsent().len();
        }
        operations < trunk.multiplex.max_operations && size < trunk.multiplex.max_size
    }

    /// The link that takes the commands of this turn, if that is known.
    fn current_link(&self, trunk: TrunkKey) -> Option<LinkKey> {
        let current = self.trunks.get(trunk)?.current?;
        let link = self.links.get(current)?;
        (!link.is_overdue()).then_some(current)
    }

    /// Which of a trunk's links takes a batch, by index, and whether a further
    /// one should be opened.
    fn choose_link(&mut self, trunk_key: TrunkKey) -> Option<Choice> {
        let trunk = self.trunks.get_mut(trunk_key)?;
        let links = trunk.links.iter().filter_map(|link| self.links.get(*link));
        trunk.loads.clear();
        trunk.loads.extend(links.map(Link::load));
        let mut choice = choose(&trunk.loads, trunk.multiplex.connections, trunk.turn);
        // a further one is a bonus
        choice.open &= choice.take.is_none() || nginx::now() >= trunk.retry_at;
        Some(choice)
    }

    /// Whether a command that is given to a trunk will open a connection.
    pub(in crate::transport) fn opens_for_batch(&mut self, trunk: TrunkKey) -> bool {
        self.has_room(trunk)
            && self.current_link(trunk).is_none()
            && self.choose_link(trunk).is_some_and(|choice| choice.open)
    }

    /// The link that takes the commands of this turn. A further one is opened
    /// if that pays, on behalf of a session. `None`: those there are take no
    /// work, and are as many as may be, or the session is `patient` and there
    /// has to be made room first.
    fn batch_link(
        &mut self,
        trunk_key: TrunkKey,
        key: SessionKey,
        patient: bool,
    ) -> Result<Option<LinkKey>, Error> {
        if let Some(current) = self.current_link(trunk_key) {
            return Ok(Some(current));
        }
        let choice = self.choose_link(trunk_key).ok_or(Error::Closed)?;
        let trunk = self.trunks.get_mut(trunk_key).ok_or(Error::Closed)?;
        let chosen = choice.take.and_then(|at| {
            trunk.turn = at;
            trunk.links.get(at).copied()
        });
        let waits = choice.open && patient && self.lacks_room();
        if waits && chosen.is_none() {
            self.wait_for_room(Errand::Queue(trunk_key));
            return Ok(None);
        }
        let opened = if choice.open && !waits {
            let session = self.sessions.get(key).ok_or(Error::Closed)?;
            let request = session.request().ok_or(Error::Closed)?;
            let timeout = session.connect_timeout();
            Some(self.open_shared(trunk_key, request, timeout))
        } else {
            None
        };
        let taken = match (chosen, opened) {
            (Some(chosen), _) => Some(chosen),
            // to Lua it was connected
            (None, Some(opened)) => Some(opened.map_err(|_| Error::Closed)?),
            (None, None) => None,
        };
        if let Some(trunk) = self.trunks.get_mut(trunk_key) {
            trunk.current = taken;
        }
        Ok(taken)
    }

    /// Has an operation wait for room, if its session may.
    fn queue_up(
        &mut self,
        key: SessionKey,
        trunk_key: TrunkKey,
        what: What<'_>,
    ) -> Result<Begun, Rejected> {
        let room = self.has_room(trunk_key);
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let trunk = self.trunks.get(trunk_key).ok_or(Error::Closed)?;
        let most = match session.backlog {
            // it is the connections that are missing
            _ if room => trunk.multiplex.max_operations,
            backlog => backlog.unwrap_or(0),
        };
        if trunk.queue.len() >= most {
            return Err(Error::TooManyOperations.into());
        }
        let (batch, work) = match what {
            What::Command(command) => {
                let mut batch = Batch::new();
                batch.push(command).map_err(Rejected::Refused)?;
                (batch, Work::Command)
            }
            What::Batch(batch) => {
                let copy = batch.try_clone().ok_or(Error::NoMemory)?;
                (copy, Work::pipeline(batch)?)
            }
        };
        let op = self.new_op(Work::Queued(Box::new((batch, work))))?;
        if let Some(session) = self.sessions.get_mut(key) {
            session.reader = Some(op);
        }
        if let Some(trunk) = self.trunks.get_mut(trunk_key) {
            trunk.queue.push_back(key);
        }
        self.set_operation_deadline(key);
        Ok(Begun::Waiting)
    }

    /// Those who wait for room get what there is.
    pub(in crate::transport) fn serve_queue(&mut self, trunk_key: TrunkKey) {
        let queued = |trunk: &Trunk| !trunk.queue.is_empty();
        while self.trunks.get(trunk_key).is_some_and(queued) && self.has_room(trunk_key) {
            let trunk = self.trunks.get(trunk_key);
            let Some(first) = trunk.and_then(|trunk| trunk.queue.front().copied()) else {
                return;
            };
            let link = match self.batch_link(trunk_key, first, true) {
                Ok(Some(link)) => link,
                Ok(None) => return,
                Err(error) => return self.refuse_queue(trunk_key, &error),
            };
            let trunk = self.trunks.get_mut(trunk_key);
            let Some(key) = trunk.and_then(|trunk| trunk.queue.pop_front()) else {
                return;
            };
            let session = self.sessions.get_mut(key);
            let op = session.and_then(|session| session.reader.as_mut());
            if let Some(batch) = op.and_then(Op::unqueue)
                && self.put_on_link(key, link, What::Batch(&batch)).is_err()
            {
                self.finish_failed(key, &Error::Unknown);
            }
        }
    }

    /// Those who wait for room get none: no connection can be opened.
    pub(super) fn refuse_queue(&mut self, trunk_key: TrunkKey, error: &Error) {
        let trunk = self.trunks.get_mut(trunk_key);
        let queue = trunk.map(|trunk| std::mem::take(&mut trunk.queue));
        for key in queue.unwrap_or_default() {
            self.finish_failed(key, error);
        }
    }
}

impl Link {
    pub(super) fn is_overdue(&self) -> bool {
        self.sharing.as_ref().is_some_and(|sharing| sharing.overdue)
    }

    /// Operations that wait for a reply that another one asked for.
    fn followers(&self) -> usize {
        self.sharing.as_ref().map_or(0, |sharing| sharing.following)
    }

    /// Whether the socket takes what is there to be sent, as far as is known.
    fn takes_all(&self) -> bool {
        let c = self.connection.as_ptr();
        // SAFETY: the link's connection is open.
        let ready = unsafe { (*(*c).write).ready() != 0 };
        ready && !self.is_connecting()
    }

    fn load(&self) -> Load {
        if self.is_connecting() {
            Load::Opening
        } else if self.is_overdue() {
            Load::Overdue
        } else if self.pipeline.is_amid_value() || !self.takes_all() {
            Load::Busy
        } else {
            Load::Ready(self.pipeline.in_flight())
        }
    }

    /// Something is in flight that somebody waits for.
    pub(super) fn set_busy(&mut self, was_idle: bool) {
        let c = self.connection.as_ptr();
        // SAFETY: the link's connection is open.
        unsafe {
            (*c).set_idle(0);
            (*c).set_log_error(NGX_ERROR_ERR as _);
        }
        if let Some(sharing) = self.sharing.as_mut().filter(|_| was_idle) {
            sharing.progress = nginx::now();
        }
    }

    /// If the get that was just submitted is the same as one in the same
    /// unsent batch, it is taken back and its session gets the other's reply:
    /// the server will execute it after this moment, hence after every write
    /// that the session has seen completed. The number of the exchange that
    /// brings the reply.
    fn ask_once(&mut self, hasher: &impl BuildHasher, newest: u64, tag: Tag) -> u64 {
        let Link {
            pipeline, sharing, ..
        } = self;
        let Some(Sharing {
            followers,
            following,
            gets,
            ..
        }) = sharing.as_deref_mut()
        else {
            return newest;
        };
        let Some(get) = pipeline.single_get(newest) else {
            return newest;
        };
        if gets.try_reserve(1).is_err() {
            return newest;
        }
        let first = *gets.entry(hasher.hash_one(get)).or_insert(newest);
        if first == newest || pipeline.single_get(first) != Some(get) {
            return newest;
        }
        if followers.try_reserve(1).is_err() {
            return newest;
        }
        let list = followers.entry(first).or_default();
        if list.try_reserve(1).is_err() {
            return newest;
        }
        pipeline.withdraw();
        list.push(tag);
        *following += 1;
        first
    }
}

impl Sharing {
    /// Who else gets the reply to an exchange, which has come.
    pub(super) fn take_followers(&mut self, number: u64) -> Option<Vec<Tag>> {
        let followers = self.followers.remove(&number)?;
        self.following -= followers.len().min(self.following);
        Some(followers)
    }

    /// What was collected is being sent: nothing can be added to it.
    pub(super) fn close_batch(&mut self) {
        if self.gets.capacity() > GETS_KEPT {
            self.gets = Default::default();
        } else {
            self.gets.clear();
        }
    }
}
