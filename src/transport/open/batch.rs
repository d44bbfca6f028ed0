//! Commands onto shared connections.

use crate::protocol::{Answer, Batch, Command, SMALL_VALUE, Server};
use crate::transport::connection::Connection;
use crate::transport::error::{Error, Rejected};
use crate::transport::ids::{ConnectionKey, OpKey, SessionKey, SharedPoolKey};
use crate::transport::state::op::{Assignment, Stage, Work};
use crate::transport::state::outcome::{Begun, Commands, Slot};
use crate::transport::state::session::Session;
use crate::transport::worker::Worker;
use crate::upstream::Demand;
use crate::{fault, nginx};

impl Worker {
    /// Appends an operation's commands to what a connection will send at the end of this iteration
    /// of the event loop. What is returned, unless empty, is a large value that belongs behind them
    /// and was left out: [`Worker::flush_with`] is to be called with it.
    #[inline(always)]
    pub fn put_on_connection<'a>(
        &mut self,
        op_key: OpKey,
        key: SessionKey,
        connection_key: ConnectionKey,
        commands: Commands<'a>,
    ) -> Result<&'a [u8], Rejected> {
        let connection = self
            .connections
            .get_mut(connection_key)
            .ok_or(Error::Closed)?;
        let idle = connection.pipeline.in_flight() == 0;
        let lists = connection.pipeline.lists();
        let unsent = connection.pipeline.unsent_len();
        let mut value = &b""[..];
        let (first, last) = match commands {
            Commands::One(command) => {
                // The peer may have closed an idle connection that is readable. A command that was
                // copied as a whole can go to another one.
                let at_once = connection.takes_all() && !(idle && connection.nginx.is_readable());
                let submitted = match at_once {
                    true => connection.pipeline.submit_head(op_key, command),
                    false => connection.pipeline.submit(op_key, command).map(|()| value),
                };
                value = submitted.map_err(Rejected::Refused)?;
                let newest = connection.pipeline.newest().ok_or(Error::Unknown)?;
                if let Command::Get { .. } = command
                    && let Some(other) = connection.equal_get(&self.hasher, newest)
                    && self.coalesce(op_key, other, key, connection_key)
                {
                    return Ok(value);
                }
                (newest, newest)
            }
            Commands::Batch(batch) => {
                let submitted = connection.pipeline.submit_batch(op_key, batch);
                submitted.map_err(Rejected::Refused)?;
                let newest = connection.pipeline.newest().ok_or(Error::Unknown)?;
                ((newest + 1).saturating_sub(batch.len() as u64), newest)
            }
        };
        fault::point();
        if let Some(op) = self.ops.get_mut(op_key) {
            op.stage = Stage::Assigned(Assignment {
                first,
                last,
                ..Assignment::new(connection_key, nginx::now())
            });
        }
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return Ok(value);
        };
        connection.mark_active(idle);
        if connection.is_connecting() {
            let timeout = self.sessions.get(key).map_or(0, Session::connect_timeout);
            connection.give_time_to_connect(timeout);
        }
        let now = connection.pipeline.unsent_len();
        let more_lists = connection.pipeline.lists() > lists;
        if let Some(sharing) = connection.sharing_mut()
            && let Some(shared_pool) = self.shared_pools.get_mut(sharing.shared_pool)
        {
            shared_pool.usage.count_in();
            let before = std::mem::replace(&mut sharing.unsent, now);
            shared_pool.usage.count_unsent(before, now);
            // what follows in this iteration goes elsewhere, if it can
            if more_lists || now - unsent.min(now) > SMALL_VALUE {
                shared_pool.current = None;
            }
            if sharing.to_flush {
                return Ok(value);
            }
        }
        self.flush_later(connection_key);
        Ok(value)
    }

    /// Has a session wait for another operation, whose get is the same, instead of its own, which
    /// was just submitted. False if there is no memory.
    #[cold]
    pub fn coalesce(
        &mut self,
        own: OpKey,
        other: OpKey,
        key: SessionKey,
        connection: ConnectionKey,
    ) -> bool {
        let (Some(op), Some(connection), Some(session)) = (
            self.ops.get_mut(other),
            self.connections.get_mut(connection),
            self.sessions.get_mut(key),
        ) else {
            return false;
        };
        let Some(call) = session.call_mut(Slot::Reader) else {
            return false;
        };
        if !op.waiters.add(key) {
            return false;
        }
        connection.pipeline.take_back();
        call.wait_for(other);
        connection.give_time_to_connect(session.connect_timeout());
        self.ops.remove(own);
        let sharing = connection.sharing().map(|sharing| sharing.shared_pool);
        if let Some(shared_pool) = sharing.and_then(|pool| self.shared_pools.get_mut(pool)) {
            shared_pool.usage.count_in();
        }
        true
    }

    /// The connection that takes the next commands of this iteration of the event loop. A further
    /// one is opened if that pays. `None`: the commands have to wait, because no connection takes
    /// work or, if `patient`, because a better one will be established in a moment.
    #[inline(always)]
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
        let eager = shared_pool.usage.is_eager(nginx::now());
        self.choose_connection(shared_key, key, eager, patient)
    }

    /// As [`Self::connection_for_batch`], when no connection was chosen yet in this iteration.
    /// `eager`: another one may be opened even if one takes work.
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
            // the other one was not needed, so it does not matter if it could not be opened
            (Some(chosen), _) => Some(chosen),
            (None, Some(Err(_))) if choice.wait => {
                return self.choose_connection(shared_key, key, false, false);
            }
            // Lua was told that the session is connected
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

    /// Has commands wait for room, if their session may, or for connections.
    pub fn queue_up(
        &mut self,
        key: SessionKey,
        shared_key: SharedPoolKey,
        commands: Commands<'_>,
    ) -> Result<Begun, Rejected> {
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let shared_pool = self.shared_pools.get(shared_key).ok_or(Error::Closed)?;
        let bounds = session.bounds;
        // the backlog bounds the operations that wait for room, apart from those in flight
        let backlog = session.backlog.unwrap_or(0);
        if !shared_pool.usage.may_queue(bounds, backlog) {
            return Err(Error::TooManyOperations.into());
        }
        let batch = match commands {
            Commands::One(command) => {
                let mut batch = Batch::new();
                batch.push(command).map_err(Rejected::Refused)?;
                batch
            }
            Commands::Batch(batch) => batch.try_clone().ok_or(Error::NoMemory)?,
        };
        if batch.is_gated() {
            let checked = batch.check(self.server_of_pool(shared_key));
            checked.map_err(Rejected::Refused)?;
        }
        let work = Work::of(commands)?;
        let op_key = self.begin(key, Slot::Reader, work, Stage::New)?;
        let shared_pool = self.shared_pools.get_mut(shared_key);
        let place = shared_pool.and_then(|shared_pool| {
            let queue = &mut shared_pool.usage.queue;
            queue.try_push_back(op_key, bounds, batch.text_len())
        });
        let (Some(place), Some(op)) = (place, self.ops.get_mut(op_key)) else {
            self.take_back(key, Slot::Reader);
            return Err(Error::NoMemory.into());
        };
        op.stage = Stage::RoomQueue {
            place,
            batch: Box::new(batch),
        };
        Ok(Begun::Waiting)
    }

    /// As [`Self::put_on_connection`], for commands that were refused there. If the reason is that
    /// the connection does not know its server's version yet, it learns the version from another
    /// connection to the same server.
    #[cold]
    pub fn put_on_knowing<'a>(
        &mut self,
        op: OpKey,
        key: SessionKey,
        connection_key: ConnectionKey,
        commands: Commands<'a>,
        rejected: Rejected,
    ) -> Result<&'a [u8], Rejected> {
        let server = match (&rejected, self.shared_pool_with(connection_key)) {
            (Rejected::Refused(refused), Some(shared_pool))
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
        self.put_on_connection(op, key, connection_key, commands)
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
