//! Opening a shared connection, and telling those who wait for one.

use crate::nginx::{self, Log, Msec, Request};
use crate::transport::connection::Owner;
use crate::transport::connection::address::{Address, Parsed};
use crate::transport::connection::dial::Socket;
use crate::transport::connection::resolve::{Answer, Resolution};
use crate::transport::connection::sharing::Sharing;
use crate::transport::error::Error;
use crate::transport::ids::{Asker, ConnectionKey, OpKey, SessionKey, SharedPoolKey};
use crate::transport::peer::Peer;
use crate::transport::state::op::{Resolving, Stage, Target, Work};
use crate::transport::state::outcome::{Opened, Outcome, Slot};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

impl Worker {
    /// Opens a further connection of a shared pool on behalf of `request`.
    pub fn open_shared(
        &mut self,
        shared_key: SharedPoolKey,
        request: Request,
        timeout: Msec,
    ) -> Result<ConnectionKey, Error> {
        let shared_pool = self.shared_pools.get_mut(shared_key).ok_or(Error::Closed)?;
        let address = shared_pool.address.ok_or(Error::Closed)?;
        let max_value = shared_pool.name.max_value;
        shared_pool.nodelay = request.tcp_nodelay();
        let owner = Owner::Shared(Box::new(Sharing::new(shared_key)));
        let opened =
            self.open_connection(address, Socket::of(request), owner, None, None, max_value);
        let shared_pool = self.shared_pools.get_mut(shared_key).ok_or(Error::Closed)?;
        let (key, opened) = opened.inspect_err(|_| shared_pool.usage.note_failure(nginx::now()))?;
        shared_pool.connections.push(key);
        if let Some(connection) = self.connections.get_mut(key) {
            // it may outlive the request
            connection.nginx.set_log(Log::of_cycle());
            // a worker that exits does not wait for what nobody waits for
            connection.nginx.make_cancelable();
            if opened == Opened::Pending {
                connection.nginx.start_write_timer(timeout);
            }
        }
        if opened == Opened::Connected {
            self.mark_idle(key);
        }
        Ok(key)
    }

    /// Opens a further connection on behalf of a session.
    pub fn open_for(
        &mut self,
        shared_pool: SharedPoolKey,
        key: SessionKey,
    ) -> Result<ConnectionKey, Error> {
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let request = session.request().ok_or(Error::Closed)?;
        let timeout = session.connect_timeout();
        self.open_shared(shared_pool, request, timeout)
    }

    /// Attaches a session to a shared pool at once, or has it wait for a connection.
    #[cold]
    pub fn join(
        &mut self,
        key: SessionKey,
        shared_pool: SharedPoolKey,
        request: Request,
        peer: &Peer<'_>,
    ) -> Result<Opened, Error> {
        if self.is_opening(shared_pool) {
            return self.wait_for_shared(key, shared_pool);
        }
        let joined = match Address::parse(peer.host, peer.port, request.log())? {
            Parsed::Address(address) => self.join_at(key, shared_pool, address, Msec::MAX)?,
            Parsed::Name => {
                let asker = Asker::Session(key);
                let mut resolution = Resolution::start(peer.host, asker, request.resolver())?;
                match resolution.take_answer() {
                    Some(answer) => self.join_at_answer(key, shared_pool, &answer?)?,
                    None => {
                        let stage = Stage::Resolving(Box::new(Resolving {
                            resolution,
                            port: peer.port,
                            target: Target::Shared(shared_pool),
                        }));
                        self.begin(key, Slot::Reader, Work::Connect, stage)?;
                        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
                        session.enter(State::Connecting);
                        return Ok(Opened::Pending);
                    }
                }
            }
        };
        match joined {
            Opened::Connected => Ok(Opened::Connected),
            Opened::Pending => self.wait_for_shared(key, shared_pool),
        }
    }

    /// Attaches a session to the shared pool of a server at `address`, which holds for this time.
    /// `Pending`: it has to wait for a connection.
    pub fn join_at(
        &mut self,
        key: SessionKey,
        shared_key: SharedPoolKey,
        address: Address,
        life: Msec,
    ) -> Result<Opened, Error> {
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_key) {
            shared_pool.address = Some(address);
            shared_pool.renew_after(life);
        }
        if !self.has_connection(shared_key) {
            self.open_for(shared_key, key)?;
        }
        Ok(match self.is_standing(shared_key) {
            true => {
                self.attach(key, shared_key);
                Opened::Connected
            }
            false => Opened::Pending,
        })
    }

    /// Attaches a session to a shared pool whose server's name was looked up.
    pub fn join_at_answer(
        &mut self,
        key: SessionKey,
        shared_key: SharedPoolKey,
        answer: &Answer,
    ) -> Result<Opened, Error> {
        let shared_pool = self.shared_pools.get(shared_key).ok_or(Error::Closed)?;
        let address = answer.address.with_port(shared_pool.name.port);
        self.join_at(key, shared_key, address, answer.life)
    }

    /// Those who waited for a connection have one.
    pub fn admit_joining(&mut self, shared_key: SharedPoolKey) {
        let joining: Vec<(OpKey, SessionKey)> = self.end_joining(shared_key);
        let Some(shared_pool) = self.shared_pools.get_mut(shared_key) else {
            return;
        };
        // all get the same number of reuses: the connection is new to each of them
        let reused = shared_pool.usage.attach_all(joining.len() as u64);
        for (op, key) in joining {
            if let Some(session) = self.sessions.get_mut(key) {
                session.enter(State::Shared {
                    shared_pool: shared_key,
                    reused,
                });
            }
            self.complete(op, Outcome::Connected);
        }
    }
}
