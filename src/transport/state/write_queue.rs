//! A background queue: writes to one server that nobody waits for.
//!
//! ```text
//!     Closed --- a write ---> Postponed ---> Resolving ---> Open
//!                             (until nginx has made room)
//!     any of them --- failure ---> Closed --- some time later, if writes wait ---> Postponed
//! ```
//!
//! It has one connection, so that writes stay in order. The connection's pipeline is the queue.
//! While there is no connection, its writes wait in a pipeline that a connection will be given.

use crate::nginx::Msec;
use crate::protocol::{Limits, Pipeline, Reply};
use crate::transport::connection::MAX_LINE;
use crate::transport::connection::resolve::Resolution;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, OpKey};
use crate::upstream::{Answers, Writes};

/// The first time to wait before a server that is away is tried again, in milliseconds.
const FIRST_DELAY: Msec = 50;

/// The longest such time.
const LONGEST_DELAY: Msec = 800;

/// A background queue.
pub struct WriteQueue {
    /// As it was given: an address, a name, or `unix:/path`.
    pub host: Box<[u8]>,
    pub port: u16,
    /// The `upstream` block that its server was chosen of; empty if there is none.
    pub upstream: Box<[u8]>,
    /// The server has failed before, and no answer of it was counted since.
    pub suspect: bool,
    pub writes: Writes,
    /// The operation that all its exchanges belong to. It is never over.
    pub op: OpKey,
    pub state: ConnectionState,
    /// What waits while there is no connection.
    pub waiting: Pipeline<OpKey>,
    /// What is to be sent is sent at the end of this iteration of the event loop.
    pub to_flush: bool,
    /// When its connection was established.
    pub established_at: Msec,
    /// Since when its connection has nothing to do.
    pub idle_since: Msec,
    /// No connection is opened before this time.
    pub retry_at: Msec,
    /// Connections that were lost one after the other without a reply.
    pub fruitless: u32,
}

/// How far the connection of a queue is.
pub enum ConnectionState {
    Closed,
    /// It will be opened in this iteration of the event loop.
    Postponed,
    Resolving(Box<Resolution>),
    Open(ConnectionKey),
}

/// What came of the exchanges of a queue since it was looked at last.
#[derive(Debug, Default)]
pub struct Tally {
    pub answers: Answers,
    /// The last error of the server.
    pub error: Option<String>,
}

/// Why a queue does not take a write.
#[derive(Debug, thiserror::Error)]
pub enum NotQueued {
    /// `max_operations` or `max_size` is reached.
    #[error("queue full")]
    Full,
    /// This process handles no events: `init_by_lua*`, or it ends.
    #[error("no event loop: a queue takes writes in worker processes only")]
    NoEventLoop,
    /// There are queues to so many servers already.
    #[error("too many queues: a worker has at most {MAX_QUEUES}")]
    TooMany,
    /// No server takes the key.
    #[error("no live upstreams")]
    NoneLive,
    /// The configuration has no such block.
    #[error("there is no upstream \"{0}\"")]
    NoUpstream(String),
    /// The block cannot be used by key.
    #[error("{0}")]
    Unfit(String),
    /// No memory, or the server cannot be connected to.
    #[error(transparent)]
    Failed(#[from] Error),
    /// The command must not be sent.
    #[error("{}", .0.answer)]
    Refused(crate::protocol::refusal::Refused),
}

/// How many queues a worker may have, one for each server.
pub const MAX_QUEUES: usize = 1024;

impl Tally {
    /// Counts a reply to a write.
    pub fn count(&mut self, reply: Reply) {
        let answers = &mut self.answers;
        match reply {
            Reply::Done | Reply::Number(_) => answers.done += 1,
            Reply::Line(line) if matches!(&*line, b"NOT_STORED" | b"NOT_FOUND" | b"EXISTS") => {
                answers.unmet += 1;
            }
            Reply::Line(line) => {
                answers.refused += 1;
                self.error = Some(String::from_utf8_lossy(&line).into_owned());
            }
            Reply::Malformed(malformed) => {
                answers.refused += 1;
                self.error = Some(malformed.to_string());
            }
            _ => answers.refused += 1,
        }
    }
}

impl WriteQueue {
    pub fn new(upstream: &[u8], host: &[u8], port: u16, op: OpKey) -> WriteQueue {
        WriteQueue {
            host: host.into(),
            port,
            upstream: upstream.into(),
            suspect: false,
            writes: Writes::default(),
            op,
            state: ConnectionState::Closed,
            waiting: new_pipeline(),
            to_flush: false,
            established_at: 0,
            idle_since: 0,
            retry_at: 0,
            fruitless: 0,
        }
    }

    /// Where it goes, for log lines that are about no connection.
    pub fn peer(&self) -> String {
        let host = String::from_utf8_lossy(&self.host);
        match self.port {
            0 => host.into_owned(),
            port => format!("{host}:{port}"),
        }
    }

    /// Whether another queue may take its place: it is idle, and is one to a server of an
    /// `upstream` block. Lua objects keep the numbers of all other queues.
    pub fn is_done_with(&self) -> bool {
        let idle = self.writes.is_empty() && matches!(self.state, ConnectionState::Closed);
        idle && !self.upstream.is_empty()
    }

    pub fn connection(&self) -> Option<ConnectionKey> {
        match self.state {
            ConnectionState::Open(connection) => Some(connection),
            _ => None,
        }
    }

    /// A connection was lost at `now`, of which no reply came if it was `fruitless`. The server is
    /// tried again later, or at once.
    pub fn note_loss(&mut self, now: Msec, fruitless: bool) {
        self.state = ConnectionState::Closed;
        if !fruitless {
            (self.fruitless, self.retry_at) = (0, now);
            return;
        }
        let delay = FIRST_DELAY << self.fruitless.min(8);
        self.retry_at = now.saturating_add(delay.min(LONGEST_DELAY));
        self.fruitless = self.fruitless.saturating_add(1);
    }
}

/// Replies to writes are lines.
pub fn new_pipeline() -> Pipeline<OpKey> {
    Pipeline::new(Limits {
        max_line: MAX_LINE,
        max_value: 0,
    })
}
