//! The shared connections to one server.

use std::rc::Rc;

use slotmap::SlotMap;

use crate::nginx::{self, Msec};
use crate::transport::connection::Connection;
use crate::transport::connection::address::Address;
use crate::transport::connection::resolve::Resolution;
use crate::transport::ids::{ConnectionKey, OpKey, SharedPoolKey};
use crate::transport::peer::{Peer, PoolName};
use crate::transport::state::session::{Session, State};
use crate::upstream::{Load, Usage};

/// What a shared pool is found by: sessions that say the same share it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SharedPoolName {
    /// Name of the pool.
    pub pool: Rc<[u8]>,
    pub host: Rc<[u8]>,
    pub port: u16,
    /// Longest value that is accepted, in bytes.
    pub max_value: usize,
}

/// The shared connections to a server.
pub struct SharedPool {
    pub name: SharedPoolName,
    /// The pool's name is the host, with a port if this is true.
    pub default_name: Option<bool>,
    /// The server's, as it was last looked up.
    pub address: Option<Address>,
    /// When the server's name may be looked up again.
    pub renew_at: Msec,
    /// The look-up, while the name is looked up again.
    pub renewal: Option<Box<Resolution>>,
    pub connections: Vec<ConnectionKey>,
    /// Index of the connection that was chosen last.
    pub last_chosen: usize,
    /// The connection that takes the commands of this iteration of the event loop.
    pub current: Option<ConnectionKey>,
    pub usage: Usage<OpKey>,
    pub nodelay: bool,
    /// The server is spoken to by TLS, on private connections.
    pub tls: bool,
    /// Kept for its memory.
    pub loads: Vec<Load>,
}

/// Least time between two look-ups of one name, in milliseconds.
const MIN_LIFE: Msec = 1000;

impl SharedPool {
    pub fn is_for(&self, peer: &Peer<'_>, max_value: usize) -> bool {
        let named = match peer.pool {
            PoolName::Given(name) => *self.name.pool == *name,
            PoolName::Default { with_port } => self.default_name == Some(with_port),
        };
        named
            && *self.name.host == *peer.host
            && self.name.port == peer.port
            && self.name.max_value == max_value
    }

    /// Whether there is an established connection that takes commands.
    pub fn is_standing(&self, connections: &SlotMap<ConnectionKey, Connection>) -> bool {
        let mut connections = self
            .connections
            .iter()
            .filter_map(|connection| connections.get(*connection));
        connections.any(|connection| !connection.is_connecting() && connection.takes_work())
    }

    /// Whether sessions are attached at once: a connection takes commands, or there are too many
    /// connections to open another.
    pub fn takes(&self, all: &SlotMap<ConnectionKey, Connection>, wanted: usize) -> bool {
        self.is_standing(all) || self.connections.len() >= 2 * wanted
    }

    pub fn attach(&mut self, key: SharedPoolKey, session: &mut Session) {
        session.enter(State::Shared {
            shared_pool: key,
            reused: self.usage.attach(),
        });
    }

    /// The server's address is valid for this time.
    pub fn renew_after(&mut self, life: Msec) {
        self.renew_at = nginx::now().saturating_add(life.max(MIN_LIFE));
    }
}
