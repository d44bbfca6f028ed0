//! Connections that many sessions share, with the commands of each turn of
//! the event loop sent together.
//!
//! | file | subject |
//! |---|---|
//! | `connect` | sessions are attached |
//! | `open` | connections are opened for them |
//! | `leave` | they end their use, or go on with a connection of their own |
//! | `submit` | commands: onto which connection, and gets asked once |
//! | `queue` | how many commands, and those that wait for room |
//! | `io` | bytes out and in |
//! | `over` | operations that are over: what was not sent is not sent any more |
//! | `loss` | connections that fail: who loses what |
//! | `rescue` | what goes to another connection then |
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
mod over;
mod queue;
mod rescue;
mod submit;
mod watch;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use super::address::Address;
use super::error::Error;
use super::link::Tag;
use super::worker::{LinkKey, SessionKey};
use crate::conf::Multiplex;
use crate::nginx::Msec;
use crate::upstream::{Line, Load, Place};

/// How long something that keeps a link may last before the link is given no
/// more work, if there is another, in milliseconds.
const PATIENCE: Msec = 100;

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
    /// Index of the link that was chosen last.
    turn: usize,
    /// The link that takes the commands of this turn of the event loop.
    current: Option<LinkKey>,
    /// Sessions that wait for a connection, longest waiting first.
    joining: Line<SessionKey>,
    /// Sessions whose operation waits for room, longest waiting first.
    queue: Line<SessionKey>,
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
    followers: HashMap<u64, Followers, foldhash::fast::RandomState>,
    /// How many of them wait.
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
    /// It asks again what another link has lost, and takes nothing else until
    /// that is answered.
    again: Option<Again>,
    /// When it was begun to be opened.
    opened: Msec,
    /// The reply to the first exchange, if it was an error line.
    words: Option<Rc<[u8]>>,
    /// When bytes were received last, or the first command was given to it.
    progress: Msec,
    /// Since when nothing is in flight.
    idle_since: Msec,
    /// The last time that the socket did not take all at once.
    held: Held,
}

/// How what was lost is asked again: first one exchange at a time, so that one
/// that ends the connection harms no other, and later a few.
struct Again {
    /// With which it was lost.
    error: Error,
    /// Number of the first exchange that has to wait until those before it are
    /// answered.
    until: u64,
    /// How many connections were lost before this one, each of which has
    /// answered nothing.
    fruitless: u32,
}

/// Who gets the reply to a get that another one asked for.
#[derive(Default)]
struct Followers {
    tags: Vec<Tag>,
    /// How many still wait, the one who asked included.
    waiting: usize,
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
    /// It was on another link, which could not send it.
    moved: bool,
    /// It was asked on another link, which was lost.
    again: bool,
}

/// What a session waits for, and where.
#[derive(Clone, Copy)]
pub(super) enum Waits {
    /// For a connection.
    Joining(Place),
    /// For room, with its operation.
    Queued(Place),
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
