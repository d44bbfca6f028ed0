//! The shared connections to one server.

use std::rc::Rc;

use slotmap::SlotMap;

use crate::nginx::{self, Msec};
use crate::transport::connection::Connection;
use crate::transport::connection::address::Address;
use crate::transport::connection::resolve::Resolution;
use crate::transport::ids::{ConnectionKey, SessionKey, SharedPoolKey};
use crate::transport::peer::{Peer, PoolName};
use crate::transport::state::session::{Session, State};
use crate::upstream::{Bounds, Line, Load, Queue};

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
    pub usual: Option<bool>,
    /// The server's, as it was last looked up.
    pub address: Option<Address>,
    /// When its name may be looked up again.
    pub renew_at: Msec,
    /// It is.
    pub renewal: Option<Box<Resolution>>,
    pub connections: Vec<ConnectionKey>,
    /// Index of the connection that was chosen last.
    pub last_chosen: usize,
    /// The connection that takes the commands of this turn of the event loop.
    pub current: Option<ConnectionKey>,
    /// Sessions that wait for a connection, longest waiting first.
    pub joining: Line<SessionKey>,
    /// Sessions whose operation waits for room.
    pub queue: Queue<SessionKey>,
    /// How many operations were given to connections and are not over.
    pub operations: usize,
    /// Bytes that connections have still to send.
    pub unsent: usize,
    /// Sessions that are attached, joining, or looking the name up.
    pub users: usize,
    /// How many sessions the present connections have served.
    pub sessions_served: u64,
    /// They are known to be used without TLS: the server has answered there, a
    /// session was kept alive, or went on without on a connection of its own.
    /// Before, they count as new to all sessions, so that whoever asks for TLS
    /// on new connections does not go on without.
    pub known_plaintext: bool,
    /// Most connections that were asked for.
    pub wanted: usize,
    pub nodelay: bool,
    /// How long a connection may be idle; 0: for ever.
    pub keepalive: Msec,
    /// A session was kept alive, which settles the size of a pool.
    pub kept_alive: bool,
    /// No further connection is opened on speculation before.
    pub retry_at: Msec,
    /// The server is spoken to by TLS, on connections of one's own.
    pub tls: bool,
    /// Kept for its memory.
    pub loads: Vec<Load>,
}

impl SharedPool {
    /// Whether a further operation with these bounds may wait for the server.
    /// All that waits counts, wherever it does.
    pub fn has_room(&self, bounds: Bounds) -> bool {
        let operations = self.operations + self.queue.len();
        bounds.allow(operations, self.unsent.saturating_add(self.queue.size()))
    }

    /// The session that is the next one to be served of those that wait for
    /// room, if there is room for one.
    pub fn next_in_queue(&self) -> Option<SessionKey> {
        self.queue.first(self.operations, self.unsent).copied()
    }

    /// An operation that was given to a connection is over.
    pub fn count_out(&mut self, operations: usize) {
        debug_assert!(operations <= self.operations);
        self.operations = self.operations.saturating_sub(operations);
    }

    /// A connection has so many bytes to send, and had so many before.
    pub fn count_unsent(&mut self, before: usize, now: usize) {
        debug_assert!(before <= self.unsent);
        self.unsent = self.unsent.saturating_sub(before).saturating_add(now);
    }
}

impl SharedPool {
    pub fn is_for(&self, peer: &Peer<'_>, max_value: usize) -> bool {
        let named = match peer.pool {
            PoolName::Given(name) => *self.name.pool == *name,
            PoolName::Usual { with_port } => self.usual == Some(with_port),
        };
        named
            && *self.name.host == *peer.host
            && self.name.port == peer.port
            && self.name.max_value == max_value
    }

    /// Whether a connection stands that takes work.
    pub fn is_standing(&self, connections: &SlotMap<ConnectionKey, Connection>) -> bool {
        let mut connections = self
            .connections
            .iter()
            .filter_map(|connection| connections.get(*connection));
        connections.any(|connection| !connection.is_connecting() && connection.takes_work())
    }

    /// Whether sessions are attached at once: so that they can be served, or as
    /// there are too many connections for another.
    pub fn takes(&self, all: &SlotMap<ConnectionKey, Connection>, wanted: usize) -> bool {
        self.is_standing(all) || self.connections.len() >= 2 * wanted
    }

    pub fn attach(&mut self, key: SharedPoolKey, session: &mut Session) {
        session.enter(State::Shared {
            shared_pool: key,
            reused: if self.known_plaintext {
                self.sessions_served
            } else {
                0
            },
            flight: None,
        });
        self.sessions_served += 1;
    }
}

/// Least time between two look-ups of one name, in milliseconds.
pub const MIN_LIFE: Msec = 1000;

impl SharedPool {
    /// What was learned of the address holds for this time.
    pub fn renew_after(&mut self, life: Msec) {
        self.renew_at = nginx::now().saturating_add(life.max(MIN_LIFE));
    }
}

/// Most time that connections are idle if nobody uses them and nobody asked for them
/// to be kept, in milliseconds.
pub const UNASKED_IDLE: Msec = 300;

impl SharedPool {
    /// Nobody uses it, and code that always closes expects nothing to stay.
    pub fn is_unused(&self) -> bool {
        self.users == 0 && !self.kept_alive
    }

    /// How long a connection may be idle; 0: for ever.
    pub fn idle_limit(&self) -> Msec {
        match self.keepalive {
            0 if self.is_unused() => UNASKED_IDLE,
            limit if self.is_unused() => limit.min(UNASKED_IDLE),
            limit => limit,
        }
    }
}
