//! Commands onto shared connections: onto which one.

use crate::protocol::{Answer, Batch, Command, SMALL_VALUE, Server};
use crate::transport::connection::{Connection, Owner, Tag};
use crate::transport::error::{Error, Rejected};
use crate::transport::ids::{ConnectionKey, SessionKey, SharedPoolKey};
use crate::transport::state::op::{Begun, What, Work};
use crate::transport::state::session::{Flight, State, Waits};
use crate::transport::worker::Worker;
use crate::upstream::{Bounds, Demand};
use crate::{fault, nginx};

impl Worker {
    /// Appends commands to what a connection will send at the end of this turn. What
    /// is returned, unless empty, is a large value that belongs behind them and
    /// was left out: [`Worker::flush_shared_with`] is to be called with it.
    pub fn put_on_connection<'a>(
        &mut self,
        key: SessionKey,
        connection_key: ConnectionKey,
        what: What<'a>,
    ) -> Result<&'a [u8], Rejected> {
        let connection = self
            .connections
            .get_mut(connection_key)
            .ok_or(Error::Closed)?;
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        session.serial += 1;
        let tag = Tag {
            session: key,
            serial: session.serial,
        };
        let idle = connection.pipeline.in_flight() == 0;
        let lists = connection.pipeline.lists();
        let unsent = connection.pipeline.unsent_len();
        let mut value = &b""[..];
        let (first, last) = match what {
            What::Command(command) => {
                // one that may be closed gets nothing that could not be moved
                let submitted =
                    if connection.takes_all() && !(idle && connection.nginx.is_readable()) {
                        connection.pipeline.submit_head(tag, command)
                    } else {
                        connection.pipeline.submit(tag, command).map(|()| value)
                    };
                value = submitted.map_err(Rejected::Refused)?;
                let newest = connection.pipeline.newest().ok_or(Error::Unknown)?;
                let number = match command {
                    Command::Get { .. } => connection.coalesce_get(&self.hasher, newest, tag),
                    _ => newest,
                };
                (number, number)
            }
            What::Batch(batch) => {
                let submitted = connection.pipeline.submit_batch(tag, batch);
                submitted.map_err(Rejected::Refused)?;
                let newest = connection.pipeline.newest().ok_or(Error::Unknown)?;
                ((newest + 1).saturating_sub(batch.len() as u64), newest)
            }
        };
        connection.mark_active(idle);
        if connection.is_connecting() {
            connection.give_time_to_connect(session.connect_timeout());
        }
        fault::point();
        if let State::Shared {
            shared_pool,
            flight,
            ..
        } = &mut session.state
        {
            let is_new = flight.is_none();
            *flight = Some(Flight {
                connection: connection_key,
                first,
                last,
                since: nginx::now(),
                sent: false,
                moved: false,
                retried: false,
            });
            if let (Some(shared_pool), Some(sharing)) = (
                self.shared_pools.get_mut(*shared_pool),
                connection.sharing.as_mut(),
            ) {
                shared_pool.operations += usize::from(is_new);
                let now = connection.pipeline.unsent_len();
                shared_pool.count_unsent(sharing.unsent, now);
                sharing.unsent = now;
                // what follows in this turn goes elsewhere, if it can
                if connection.pipeline.lists() > lists || now - unsent.min(now) > SMALL_VALUE {
                    shared_pool.current = None;
                }
                if sharing.to_flush {
                    return Ok(value);
                }
            }
        }
        self.flush_later(connection_key);
        Ok(value)
    }

    /// The connection that takes the next command of this turn. A further one is
    /// opened if that pays. `None`: it has to wait; those there are take no
    /// work or, if it is patient, one that is better will stand in a moment.
    pub fn connection_for_batch(
        &mut self,
        shared_key: SharedPoolKey,
        key: Option<SessionKey>,
        patient: bool,
    ) -> Result<Option<ConnectionKey>, Error> {
        let shared_pool = self.shared_pools.get(shared_key).ok_or(Error::Closed)?;
        if let Some(current) = shared_pool.current
            && self
                .connections
                .get(current)
                .is_some_and(Connection::takes_work)
        {
            return Ok(Some(current));
        }
        let eager = nginx::now() >= shared_pool.retry_at;
        self.choose_connection(shared_key, key, eager, patient)
    }

    /// As [`Self::connection_for_batch`], when none was chosen yet in this turn. If it is
    /// eager, a further one may be opened though there is one.
    #[inline(never)]
    pub fn choose_connection(
        &mut self,
        shared_key: SharedPoolKey,
        key: Option<SessionKey>,
        eager: bool,
        patient: bool,
    ) -> Result<Option<ConnectionKey>, Error> {
        let demand = Demand {
            eager: eager && key.is_some(),
            patient,
        };
        let choice = self.choose_among(shared_key, demand)?;
        let opened = match key {
            Some(key) if choice.open => Some(self.open_for(shared_key, key)),
            _ => None,
        };
        let shared_pool = self.shared_pools.get_mut(shared_key).ok_or(Error::Closed)?;
        let chosen = choice.take.and_then(|at| {
            shared_pool.last_chosen = at;
            shared_pool.connections.get(at).copied()
        });
        let taken = match (chosen, opened) {
            // a further one is a bonus
            (Some(chosen), _) => Some(chosen),
            (None, Some(Err(_))) if choice.wait => {
                return self.choose_connection(shared_key, key, false, false);
            }
            // to Lua it was connected
            (None, Some(Err(_))) => return Err(Error::Closed),
            (None, Some(Ok(opened))) => {
                let stands = !self
                    .connections
                    .get(opened)
                    .is_some_and(Connection::is_connecting);
                (stands || !choice.wait).then_some(opened)
            }
            (None, None) => None,
        };
        shared_pool.current = taken;
        Ok(taken)
    }

    /// Has an operation wait for room, if its session may, or for connections.
    pub fn queue_up(
        &mut self,
        key: SessionKey,
        shared_key: SharedPoolKey,
        what: What<'_>,
    ) -> Result<Begun, Rejected> {
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let shared_pool = self.shared_pools.get(shared_key).ok_or(Error::Closed)?;
        let bounds = session.bounds;
        // what waits for room is bounded for itself
        let backlog = Bounds {
            operations: session.backlog.unwrap_or(0),
            ..bounds
        };
        let may_wait = backlog.allow(shared_pool.queue.len(), shared_pool.queue.size());
        if !may_wait && !shared_pool.has_room(bounds) {
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
        if batch.is_gated() {
            let checked = batch.check(self.server_of_pool(shared_key));
            checked.map_err(Rejected::Refused)?;
        }
        let size = batch.text_len();
        let op = self.new_op(Work::Queued(Box::new((batch, work))))?;
        let shared_pool = self.shared_pools.get_mut(shared_key);
        let spot =
            shared_pool.and_then(|shared_pool| shared_pool.queue.try_push_back(key, bounds, size));
        let (Some(spot), Some(session)) = (spot, self.sessions.get_mut(key)) else {
            self.semaphores.give(op.into_semaphore());
            return Err(Error::NoMemory.into());
        };
        session.reader = Some(op);
        session.waits = Some(Waits::Queued(spot));
        self.set_operation_deadline(key);
        Ok(Begun::Waiting)
    }

    /// As [`Self::put_on_connection`], for what was refused there: if that is because the connection
    /// knows nothing of its server yet, it learns what another one to the same server knows.
    #[cold]
    pub fn put_on_knowing<'a>(
        &mut self,
        key: SessionKey,
        connection_key: ConnectionKey,
        what: What<'a>,
        rejected: Rejected,
    ) -> Result<&'a [u8], Rejected> {
        let connection = self.connections.get(connection_key);
        let server = match (&rejected, connection.map(|connection| connection.owner)) {
            (Rejected::Refused(refused), Some(Owner::Shared { shared_pool, .. }))
                if refused.answer == Answer::VersionUnknown =>
            {
                self.server_of_pool(shared_pool)
            }
            _ => Server::Unknown,
        };
        match self.connections.get_mut(connection_key) {
            Some(connection) if server != Server::Unknown => connection.pipeline.assume(server),
            _ => return Err(rejected),
        }
        self.put_on_connection(key, connection_key, what)
    }

    /// What the server of a shared pool has said of itself.
    fn server_of_pool(&self, key: SharedPoolKey) -> Server {
        let connections = self.shared_pools.get(key).map(|pool| &pool.connections);
        let all = connections.into_iter().flatten();
        all.filter_map(|key| self.connections.get(*key))
            .map(|connection| connection.pipeline.server())
            .find(|server| *server != Server::Unknown)
            .unwrap_or_default()
    }

    /// Whether the next command that is given to a shared pool will open a connection.
    pub fn opens_for_batch(&mut self, key: SessionKey, shared_key: SharedPoolKey) -> bool {
        self.has_turn(key, shared_key) && self.opens_for_next(shared_key)
    }
}
