//! The shared connections to one server.

use std::rc::Rc;

use slotmap::SlotMap;

use crate::nginx::{self, Msec};
use crate::transport::ids::{LinkKey, SessionKey, TrunkKey};
use crate::transport::link::Link;
use crate::transport::link::address::Address;
use crate::transport::link::resolve::Resolution;
use crate::transport::peer::{Peer, PoolName};
use crate::transport::state::session::{Session, State};
use crate::upstream::{Bounds, Line, Load, Queue};

/// What a trunk is found by: sessions that say the same share it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct TrunkName {
    /// Name of the pool.
    pub pool: Rc<[u8]>,
    pub host: Rc<[u8]>,
    pub port: u16,
    /// Longest value that is accepted, in bytes.
    pub max_value: usize,
}

/// The shared connections to a server.
pub struct Trunk {
    pub name: TrunkName,
    /// The pool's name is the host, with a port if this is true.
    pub usual: Option<bool>,
    /// The server's, as it was last looked up.
    pub address: Option<Address>,
    /// When its name may be looked up again.
    pub renew_at: Msec,
    /// It is.
    pub renewal: Option<Box<Resolution>>,
    pub links: Vec<LinkKey>,
    /// Index of the link that was chosen last.
    pub turn: usize,
    /// The link that takes the commands of this turn of the event loop.
    pub current: Option<LinkKey>,
    /// Sessions that wait for a connection, longest waiting first.
    pub joining: Line<SessionKey>,
    /// Sessions whose operation waits for room.
    pub queue: Queue<SessionKey>,
    /// How many operations were given to links and are not over.
    pub operations: usize,
    /// Bytes that links have still to send.
    pub unsent: usize,
    /// Sessions that are attached, joining, or looking the name up.
    pub users: usize,
    /// How many sessions the present connections have served.
    pub served: u64,
    /// They are known to be used without TLS: the server has answered there, a
    /// session was kept alive, or went on without on a connection of its own.
    /// Before, they count as new to all sessions, so that whoever asks for TLS
    /// on new connections does not go on without.
    pub plain: bool,
    /// Most connections that were asked for.
    pub connections: usize,
    pub nodelay: bool,
    /// How long a connection may be idle; 0: for ever.
    pub keepalive: Msec,
    /// A session was kept alive, which settles the size of a pool.
    pub kept: bool,
    /// No further connection is opened on speculation before.
    pub retry_at: Msec,
    /// The server is spoken to by TLS, on connections of one's own.
    pub tls: bool,
    /// Kept for its memory.
    pub loads: Vec<Load>,
}

impl Trunk {
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

    /// An operation that was given to a link is over.
    pub fn count_out(&mut self, operations: usize) {
        debug_assert!(operations <= self.operations);
        self.operations = self.operations.saturating_sub(operations);
    }

    /// A link has so many bytes to send, and had so many before.
    pub fn count_unsent(&mut self, before: usize, now: usize) {
        debug_assert!(before <= self.unsent);
        self.unsent = self.unsent.saturating_sub(before).saturating_add(now);
    }
}

impl Trunk {
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

    /// Whether a link stands that takes work.
    pub fn is_standing(&self, links: &SlotMap<LinkKey, Link>) -> bool {
        let mut links = self.links.iter().filter_map(|link| links.get(*link));
        links.any(|link| !link.is_connecting() && link.takes_work())
    }

    /// Whether sessions are attached at once: so that they can be served, or as
    /// there are too many links for another.
    pub fn takes(&self, links: &SlotMap<LinkKey, Link>, connections: usize) -> bool {
        self.is_standing(links) || self.links.len() >= 2 * connections
    }

    pub fn attach(&mut self, key: TrunkKey, session: &mut Session) {
        session.enter(State::Attached {
            trunk: key,
            reused: if self.plain { self.served } else { 0 },
            flight: None,
        });
        self.served += 1;
    }
}

/// Least time between two look-ups of one name, in milliseconds.
pub const MIN_LIFE: Msec = 1000;

impl Trunk {
    /// What was learned of the address holds for this time.
    pub fn renew_after(&mut self, life: Msec) {
        self.renew_at = nginx::now().saturating_add(life.max(MIN_LIFE));
    }
}

/// Most time that links are idle if nobody uses them and nobody asked for them
/// to be kept, in milliseconds.
pub const UNASKED_IDLE: Msec = 300;

impl Trunk {
    /// Nobody uses it, and code that always closes expects nothing to stay.
    pub fn is_left(&self) -> bool {
        self.users == 0 && !self.kept
    }

    /// How long a connection may be idle; 0: for ever.
    pub fn idle_limit(&self) -> Msec {
        match self.keepalive {
            0 if self.is_left() => UNASKED_IDLE,
            limit if self.is_left() => limit.min(UNASKED_IDLE),
            limit => limit,
        }
    }
}
