//! Connections that many sessions share, with the commands of each turn of
//! the event loop sent together.
//!
//! | file | subject |
//! |---|---|
//! | `connect` | sessions are attached |
//! | `open` | connections are opened for them |
//! | `leave` | they end their use, or go on with a connection of their own |
//! | `submit` | commands: onto which connection, how many, and gets asked once |
//! | `io` | bytes out and in |
//! | `loss` | connections that fail |
//! | `watch` | connections that are idle or overdue |
//! | `deadline` | timeouts of those who wait |
//!
//! A trunk has the connections to one server. Sessions are attached to the
//! trunk, not to a connection: each batch of commands goes to the next one. A
//! reply finds its operation by a [`Tag`](super::link::Tag); if that is over,
//! nobody is found and the reply is discarded.

mod connect;
mod deadline;
mod io;
mod leave;
mod loss;
mod open;
mod submit;
mod watch;

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use super::address::Address;
use super::link::Tag;
use super::worker::{LinkKey, SessionKey};
use crate::conf::Multiplex;
use crate::nginx::Msec;
use crate::upstream::Load;

pub(super) use loss::Moved;

/// What a trunk is found by: sessions that say the same share it.
#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct TrunkName {
    /// Name of the pool.
    pool: Rc<[u8]>,
    host: Rc<[u8]>,
    port: u16,
    /// Longest value that is accepted, in bytes.
    max_value: usize,
}

/// The shared connections to a server.
pub(super) struct Trunk {
    name: TrunkName,
    /// The pool's name is the host, with a port if this is true.
    usual: Option<bool>,
    /// The server's, as it was last looked up.
    address: Option<Address>,
    links: Vec<LinkKey>,
    /// Index of the link that took the last batch.
    turn: usize,
    /// The link that takes the commands of this turn of the event loop.
    current: Option<LinkKey>,
    /// Sessions that wait for a connection, longest waiting first.
    joining: Vec<SessionKey>,
    /// Sessions whose operation waits for room, longest waiting first.
    queue: VecDeque<SessionKey>,
    /// Sessions that are attached, joining, or looking the name up.
    users: usize,
    /// How many sessions the present connections have served.
    served: u64,
    /// They are known to be used without TLS: the server has answered there, a
    /// session was kept alive, or went on without on a connection of its own.
    /// Before, they count as new to all sessions, so that whoever asks for TLS
    /// on new connections does not go on without.
    plain: bool,
    /// As last asked for.
    multiplex: Multiplex,
    nodelay: bool,
    /// How long a connection may be idle; 0: for ever.
    keepalive: Msec,
    /// A session was kept alive, which settles the size of a pool.
    kept: bool,
    /// No further connection is opened on speculation before.
    retry_at: Msec,
    /// The server is spoken to by TLS, on connections of one's own.
    tls: bool,
    /// Kept for its memory.
    loads: Vec<Load>,
}

/// What a shared link has beside its pipeline.
#[derive(Default)]
pub(super) struct Sharing {
    /// Who else gets the reply to an exchange, by its number.
    followers: HashMap<u64, Vec<Tag>, foldhash::fast::RandomState>,
    /// How many these are.
    following: usize,
    /// The unsent gets of one key: hashes of the keys, and numbers.
    gets: HashMap<u64, u64, BuildHasherDefault<HashedKey>>,
    /// Among the links to be flushed when the turn ends.
    dirty: bool,
    /// Its oldest reply should have come: it takes no new work.
    overdue: bool,
    /// Behind the last exchange whose operation timed out, by number: once older replies have
    /// come, the link is overdue until the reply to that one comes, too.
    late: u64,
    /// Opened for commands that another link could not send; what this one
    /// cannot send fails.
    last_resort: bool,
    /// When bytes were received last, or the first command was given to it.
    progress: Msec,
    /// Since when nothing is in flight.
    idle_since: Msec,
    /// The last time that the socket did not take all at once.
    held: Held,
}

/// Commands that the socket took bit by bit.
#[derive(Default)]
struct Held {
    /// Number of the first exchange that had to wait.
    from: u64,
    /// They still do.
    now: bool,
    /// When the socket last took something of them.
    written: Msec,
}

/// Where an operation is under way.
#[derive(Clone, Copy)]
pub(super) struct Flight {
    link: LinkKey,
    /// Numbers of its first and its last exchange.
    first: u64,
    last: u64,
    since: Msec,
    /// `since` accounts for the time that sending took.
    sent: bool,
}

/// For keys that are hashes already.
#[derive(Default)]
struct HashedKey(u64);

impl Hasher for HashedKey {
    fn write(&mut self, _: &[u8]) {}

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
