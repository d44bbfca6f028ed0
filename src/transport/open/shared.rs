//! Opening a shared connection, and telling those who wait for one.

use crate::nginx::{self, Log, Msec, Request};
use crate::transport::connection::Owner;
use crate::transport::connection::address::{Address, Parsed};
use crate::transport::connection::dial::dial;
use crate::transport::connection::resolve::{Answer, Resolution};
use crate::transport::connection::sharing::Sharing;
use crate::transport::error::Error;
use crate::transport::ids::{Asker, ConnectionKey, SessionKey, SharedPoolKey};
use crate::transport::peer::Peer;
use crate::transport::state::op::{Opened, Outcome, Work};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

/// How long no further connection is tried after one that failed, in
/// milliseconds.
pub const RETRY_DELAY: Msec = 1000;

impl Worker {
    /// Opens a further connection of a shared pool on behalf of `request`.
    pub fn open_shared(
        &mut self,
        shared_key: SharedPoolKey,
        request: Request,
        timeout: Msec,
    ) -> Result<ConnectionKey, Error> {
        self.connections
            .try_reserve(1)
            .map_err(|_| Error::NoMemory)?;
        let shared_pool = self.shared_pools.get_mut(shared_key).ok_or(Error::Closed)?;
        let mut address = shared_pool.address.ok_or(Error::Closed)?;
        let max_value = shared_pool.name.max_value;
        shared_pool.nodelay = request.tcp_nodelay();
        let (opened, connecting) = dial(&mut address, request).inspect_err(|_| {
            shared_pool.retry_at = nginx::now().saturating_add(RETRY_DELAY);
        })?;
        let nodelay = shared_pool.nodelay;
        let owner = Owner::Shared {
            shared_pool: shared_key,
            connecting,
        };
        let key = self.new_connection(opened, address, owner, None, max_value);
        let connection = self.connections.get_mut(key).ok_or(Error::Closed)?;
        connection.nginx.set_log(Log::of_cycle());
        // a worker that exits does not wait for what nobody waits for
        connection.nginx.make_cancelable();
        let armed = match connecting {
            true => {
                connection.nginx.start_write_timer(timeout);
                Ok(())
            }
            false => connection.nginx.arm_established(nodelay),
        };
        connection.sharing = Some(Box::new(Sharing {
            opened: nginx::now(),
            ..Sharing::default()
        }));
        if let Err(error) = armed {
            self.connections.remove(key);
            return Err(error);
        }
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_key) {
            shared_pool.connections.push(key);
        }
        if !connecting {
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

    /// Attaches a session when there is a connection.
    #[cold]
    pub fn join(
        &mut self,
        key: SessionKey,
        shared_pool: SharedPoolKey,
        request: Request,
        peer: &Peer<'_>,
    ) -> Result<Opened, Error> {
        if self.is_opening(shared_pool) {
            self.wait_for_connection(key, shared_pool)?;
            return self.wait_for_shared(key);
        }
        match Address::parse(peer.host, peer.port, request)? {
            Parsed::Address(address) => match self.join_at(key, shared_pool, address, Msec::MAX)? {
                Opened::Connected => Ok(Opened::Connected),
                Opened::Pending => self.wait_for_shared(key),
            },
            Parsed::Name => {
                let asker = Asker::Session(key);
                let mut resolution = Resolution::start(peer.host, asker, request)?;
                if let Some(answer) = resolution.take_answer() {
                    return match self.join_at_answer(key, shared_pool, &answer?)? {
                        Opened::Connected => Ok(Opened::Connected),
                        Opened::Pending => self.wait_for_shared(key),
                    };
                }
                let op = self.new_op(Work::Connect)?;
                let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
                session.reader = Some(op);
                session.state = State::Resolving {
                    resolution,
                    port: peer.port,
                    pool: None,
                    handshake: None,
                    shared_pool: Some(shared_pool),
                };
                Ok(Opened::Pending)
            }
        }
    }

    /// Attaches a session to the shared pool of a server at `address`, which holds
    /// for this time.
    pub fn join_at(
        &mut self,
        key: SessionKey,
        shared_pool: SharedPoolKey,
        address: Address,
        life: Msec,
    ) -> Result<Opened, Error> {
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_pool) {
            shared_pool.address = Some(address);
            shared_pool.renew_after(life);
        }
        if !self.has_connection(shared_pool) {
            let session = self.sessions.get(key).ok_or(Error::Closed)?;
            let request = session.request().ok_or(Error::Closed)?;
            let timeout = session.connect_timeout();
            self.open_shared(shared_pool, request, timeout)?;
        }
        if self.is_standing(shared_pool) {
            self.attach(key, shared_pool);
            return Ok(Opened::Connected);
        }
        self.wait_for_connection(key, shared_pool)?;
        Ok(Opened::Pending)
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
        let joining = self.end_joining(shared_key);
        let many = joining.len() as u64;
        for key in joining {
            self.attach(key, shared_key);
            if let Some(shared_pool) = self.shared_pools.get_mut(shared_key) {
                // the connection is as new to each of them
                shared_pool.sessions_served -= 1;
            }
            self.finish_reader(key, Outcome::Connected);
        }
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_key) {
            shared_pool.sessions_served += many;
        }
    }
}
