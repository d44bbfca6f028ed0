//! Commands onto shared connections: onto which one.

use crate::protocol::{Batch, Command, SMALL_VALUE};
use crate::transport::error::{Error, Rejected};
use crate::transport::ids::{LinkKey, SessionKey, TrunkKey};
use crate::transport::link::{Link, Tag};
use crate::transport::state::op::{Begun, What, Work};
use crate::transport::state::session::{Flight, State, Waits};
use crate::transport::worker::Worker;
use crate::upstream::{Bounds, Demand};
use crate::{fault, nginx};

impl Worker {
    /// Appends commands to what a link will send at the end of this turn. What
    /// is returned, unless empty, is a large value that belongs behind them and
    /// was left out: [`Worker::flush_shared_with`] is to be called with it.
    pub fn put_on_link<'a>(
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

    /// The link that takes the next command of this turn. A further one is
    /// opened if that pays. `None`: it has to wait; those there are take no
    /// work or, if it is patient, one that is better will stand in a moment.
    pub fn batch_link(
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
    pub fn choose_link(
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

    /// Has an operation wait for room, if its session may, or for connections.
    pub fn queue_up(
        &mut self,
        key: SessionKey,
        trunk_key: TrunkKey,
        what: What<'_>,
    ) -> Result<Begun, Rejected> {
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let trunk = self.trunks.get(trunk_key).ok_or(Error::Closed)?;
        let bounds = session.bounds;
        // what waits for room is bounded for itself
        let backlog = Bounds {
            operations: session.backlog.unwrap_or(0),
            ..bounds
        };
        let may_wait = backlog.allow(trunk.queue.len(), trunk.queue.size());
        if !may_wait && !trunk.has_room(bounds) {
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
        let size = batch.text_len();
        let op = self.new_op(Work::Queued(Box::new((batch, work))))?;
        let trunk = self.trunks.get_mut(trunk_key);
        let spot = trunk.and_then(|trunk| trunk.queue.try_push_back(key, bounds, size));
        let (Some(spot), Some(session)) = (spot, self.sessions.get_mut(key)) else {
            self.semaphores.give(op.into_semaphore());
            return Err(Error::NoMemory.into());
        };
        session.reader = Some(op);
        session.waits = Some(Waits::Queued(spot));
        self.set_operation_deadline(key);
        Ok(Begun::Waiting)
    }

    /// Whether the next command that is given to a trunk will open a connection.
    pub fn opens_for_batch(&mut self, key: SessionKey, trunk_key: TrunkKey) -> bool {
        self.has_turn(key, trunk_key) && self.opens_for_next(trunk_key)
    }
}
