//! Commands: onto which connection, and gets asked once.

use std::hash::BuildHasher;

use nginx_sys::{ngx_connection_log_error_e_NGX_ERROR_ERR as NGX_ERROR_ERR, ngx_cycle};

use super::{Flight, Followers, PATIENCE, Sharing};
use crate::fault;
use crate::nginx::{self, Msec, Posted};
use crate::protocol::{Command, SMALL_VALUE};
use crate::transport::Error;
use crate::transport::events::on_turn_end;
use crate::transport::link::{Link, Tag};
use crate::transport::op::{Begun, Op, Slot, Work};
use crate::transport::session::State;
use crate::transport::submit::{Rejected, What};
use crate::transport::worker::{LinkKey, SessionKey, TrunkKey, Worker};
use crate::upstream::{Choice, Demand, Load, choose};

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
        let mut link = match self.has_turn(key, trunk) {
            true => self.batch_link(trunk, Some(key), true)?,
            false => None,
        };
        if let (Some(chosen), What::Command(Command::Store { value, .. })) = (link, what)
            && value.len() > SMALL_VALUE
            && self.links.get(chosen).is_some_and(Link::takes_all)
        {
            // it may be sent at once, with all that is there
            self.end_killed(chosen);
            if !self.links.contains_key(chosen) {
                link = self.batch_link(trunk, Some(key), true)?;
            }
        }
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
    pub(super) fn put_on_link<'a>(
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
        let lists = link.pipeline.lists();
        let unsent = link.pipeline.unsent_len();
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
        if link.is_connecting() {
            link.give_time_to_connect(session.connect_timeout());
        }
        fault::point();
        if let State::Attached { trunk, flight, .. } = &mut session.state {
            let is_new = flight.is_none();
            *flight = Some(Flight {
                link: link_key,
                first,
                last,
                since: nginx::now(),
                sent: false,
                moved: false,
                again: false,
            });
            if let (Some(trunk), Some(sharing)) =
                (self.trunks.get_mut(*trunk), link.sharing.as_mut())
            {
                trunk.operations += usize::from(is_new);
                let now = link.pipeline.unsent_len();
                trunk.count_unsent(sharing.unsent, now);
                sharing.unsent = now;
                // what follows in this turn goes elsewhere, if it can
                if link.pipeline.lists() > lists || now - unsent.min(now) > SMALL_VALUE {
                    trunk.current = None;
                }
                if sharing.dirty {
                    return Ok(value);
                }
            }
        }
        self.flush_later(link_key);
        Ok(value)
    }

    /// Has a link be flushed when this turn of the event loop ends.
    pub(super) fn flush_later(&mut self, key: LinkKey) {
        let sharing = self.links.get_mut(key).and_then(|l| l.sharing.as_mut());
        if let Some(sharing) = sharing.filter(|sharing| !sharing.dirty) {
            sharing.dirty = true;
            self.dirty.push(key);
            fault::point();
            self.turn_end().post();
        }
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

    /// The link that takes the next command of this turn. A further one is
    /// opened if that pays. `None`: it has to wait; those there are take no
    /// work or, if it is patient, one that is better will stand in a moment.
    pub(super) fn batch_link(
        &mut self,
        trunk_key: TrunkKey,
        key: Option<SessionKey>,
        patient: bool,
    ) -> Result<Option<LinkKey>, Error> {
        let trunk = self.trunks.get(trunk_key).ok_or(Error::Closed)?;
        if let Some(current) = trunk.current
            && self.links.get(current).is_some_and(Link::takes_work)
        {
            return Ok(Some(current));
        }
        let eager = nginx::now() >= trunk.retry_at;
        self.choose_link(trunk_key, key, eager, patient)
    }

    /// As [`Self::batch_link`], when none was chosen yet in this turn. If it is
    /// eager, a further one may be opened though there is one.
    #[inline(never)]
    fn choose_link(
        &mut self,
        trunk_key: TrunkKey,
        key: Option<SessionKey>,
        eager: bool,
        patient: bool,
    ) -> Result<Option<LinkKey>, Error> {
        let demand = Demand {
            eager: eager && key.is_some(),
            patient,
        };
        let choice = self.choose_among(trunk_key, demand)?;
        let opened = match key {
            Some(key) if choice.open => Some(self.open_for(trunk_key, key)),
            _ => None,
        };
        let trunk = self.trunks.get_mut(trunk_key).ok_or(Error::Closed)?;
        let chosen = choice.take.and_then(|at| {
            trunk.turn = at;
            trunk.links.get(at).copied()
        });
        let taken = match (chosen, opened) {
            // a further one is a bonus
            (Some(chosen), _) => Some(chosen),
            (None, Some(Err(_))) if choice.wait => {
                return self.choose_link(trunk_key, key, false, false);
            }
            // to Lua it was connected
            (None, Some(Err(_))) => return Err(Error::Closed),
            (None, Some(Ok(opened))) => {
                let stands = !self.links.get(opened).is_some_and(Link::is_connecting);
                (stands || !choice.wait).then_some(opened)
            }
            (None, None) => None,
        };
        trunk.current = taken;
        Ok(taken)
    }

    fn choose_among(&mut self, trunk: TrunkKey, demand: Demand) -> Result<Choice, Error> {
        let trunk = self.trunks.get_mut(trunk).ok_or(Error::Closed)?;
        let links = trunk.links.iter().filter_map(|link| self.links.get(*link));
        trunk.loads.clear();
        trunk.loads.extend(links.map(Link::load));
        let wanted = trunk.connections;
        Ok(choose(&trunk.loads, wanted, trunk.turn, demand))
    }

    /// Whether the next command that is given to a trunk will open a connection.
    pub(in crate::transport) fn opens_for_batch(
        &mut self,
        key: SessionKey,
        trunk_key: TrunkKey,
    ) -> bool {
        self.has_turn(key, trunk_key) && self.opens_for_next(trunk_key)
    }

    /// As [`Self::opens_for_batch`], if there is room for the command.
    pub(super) fn opens_for_next(&mut self, trunk_key: TrunkKey) -> bool {
        let Some(trunk) = self.trunks.get(trunk_key) else {
            return false;
        };
        let current = trunk.current.and_then(|current| self.links.get(current));
        let demand = Demand {
            eager: nginx::now() >= trunk.retry_at,
            patient: true,
        };
        !current.is_some_and(Link::takes_work)
            && self
                .choose_among(trunk_key, demand)
                .is_ok_and(|choice| choice.open)
    }

    /// Opens a further connection on behalf of a session.
    pub(super) fn open_for(&mut self, trunk: TrunkKey, key: SessionKey) -> Result<LinkKey, Error> {
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let request = session.request().ok_or(Error::Closed)?;
        let timeout = session.connect_timeout();
        self.open_shared(trunk, request, timeout)
    }
}

impl Link {
    /// Whether it may be given commands: its oldest reply is not overdue, and
    /// it does not ask again what others have lost.
    pub(super) fn takes_work(&self) -> bool {
        let sharing = self.sharing.as_ref();
        sharing.is_some_and(|sharing| !sharing.overdue && sharing.again.is_none())
    }

    /// Whether the socket takes what is there to be sent, as far as is known.
    fn takes_all(&self) -> bool {
        let c = self.connection.as_ptr();
        // SAFETY: the link's connection is open.
        let ready = unsafe { (*(*c).write).ready() != 0 };
        ready && !self.is_connecting()
    }

    fn load(&self) -> Load {
        let Some(sharing) = self.sharing.as_ref() else {
            return Load::Overdue;
        };
        let slow = |since: Msec| nginx::now() > since.saturating_add(PATIENCE);
        if self.is_connecting() {
            return match slow(sharing.opened) {
                true => Load::Stalled,
                false => Load::Opening,
            };
        }
        if !self.takes_work() {
            return Load::Overdue;
        }
        let busy = self.pipeline.is_amid_value() || !self.takes_all();
        if busy && slow(sharing.progress.max(sharing.held.written)) {
            Load::Stalled
        } else if self.pipeline.lists() > 0 {
            Load::Listed
        } else if busy {
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
            followers, gets, ..
        }) = sharing.as_deref_mut()
        else {
            return newest;
        };
        let Some(get) = pipeline.newest_get() else {
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
        let all = followers.entry(first).or_insert(Followers::NONE);
        if all.tags.try_reserve(1).is_err() {
            return newest;
        }
        pipeline.take_back();
        all.tags.push(tag);
        all.waiting += 1;
        first
    }
}

impl Followers {
    /// Of one who asks for himself.
    const NONE: Followers = Followers {
        tags: Vec::new(),
        waiting: 1,
    };
}

impl Sharing {
    /// Who else gets the reply to an exchange, which has come.
    pub(super) fn take_followers(&mut self, number: u64) -> Option<Vec<Tag>> {
        Some(self.followers.remove(&number)?.tags)
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
