//! Opening a connection, whoever it is for.

use crate::conf::LocConf;
use crate::fault;
use crate::transport::connection::address::Address;
use crate::transport::connection::dial::{Socket, dial};
use crate::transport::connection::tls::Pending;
use crate::transport::connection::{Owner, Phase, Private};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, PoolKey, SessionKey};
use crate::transport::state::outcome::Opened;
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

impl Worker {
    /// Opens a connection. `Connected`: it is established, or the `handshake` of TLS can be done
    /// now.
    pub fn open_connection(
        &mut self,
        mut address: Address,
        socket: Socket,
        owner: Owner,
        pool: Option<PoolKey>,
        handshake: Option<Box<Pending>>,
        max_value: usize,
    ) -> Result<(ConnectionKey, Opened), Error> {
        self.connections
            .try_reserve(1)
            .map_err(|_| Error::NoMemory)?;
        let (nginx, connecting) = dial(&mut address, socket.log)?;
        let phase = match connecting || handshake.is_some() {
            true => Phase::Connecting(handshake),
            false => Phase::Established,
        };
        let key = self.new_connection(nginx, address, owner, phase, pool, max_value);
        fault::point();
        if connecting {
            return Ok((key, Opened::Pending));
        }
        let connection = self.connections.get_mut(key).ok_or(Error::Closed)?;
        match connection.nginx.arm_established(socket.nodelay) {
            Ok(()) => Ok((key, Opened::Connected)),
            Err(error) => {
                self.connections.remove(key);
                Err(error)
            }
        }
    }

    /// Opens a private connection for a session.
    pub fn open_address(
        &mut self,
        key: SessionKey,
        address: Address,
        pool: Option<PoolKey>,
        handshake: Option<Box<Pending>>,
    ) -> Result<(ConnectionKey, Opened), Error> {
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let request = session.request().ok_or(Error::Closed)?;
        let owner = Owner::Session(Private::new(key));
        let max_value = LocConf::of(request).max_value_size();
        let opened = self.open_connection(
            address,
            Socket::of(request),
            owner,
            pool,
            handshake,
            max_value,
        )?;
        if let Some(session) = self.sessions.get_mut(key) {
            session.enter(State::Private(opened.0));
        }
        fault::point();
        Ok(opened)
    }
}
