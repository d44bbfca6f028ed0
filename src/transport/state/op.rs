//! An operation: what is to be done, how far it is, and who waits for it.
//!
//! ```text
//!     connect:     PoolQueue ---> Resolving ---> Assigned (to the connection that is opened)
//!                                 Resolving ---> Joining (waits for a shared connection)
//!     commands:    RoomQueue ---> Assigned <---> Assigned (to another connection, if one is lost)
//!     raw data:    Assigned
//!     background:  New (as long as the queue exists)
//! ```
//!
//! Each begins as New, and may skip stages. An operation that is over is not kept: its result is
//! with those who have waited for it. If a reply to it still comes, it finds no operation and is
//! discarded.
//!
//! The operation of a background queue is never over. It stays New: its exchanges are in the
//! queue's pipeline, and it counts their replies.

use crate::nginx::Msec;
use crate::protocol::{Batch, RawRead, RawReader, Reply};
use crate::transport::connection::resolve::Resolution;
use crate::transport::connection::tls::Pending;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, PoolKey, SessionKey, SharedPoolKey};
use crate::transport::state::outcome::{Commands, Outcome, Slot};
use crate::transport::state::write_queue::Tally;
use crate::upstream::{History, Place, QueuePlace};

/// A list of waiting sessions may have so many before those that wait no more are removed.
const LEFT_KEPT: usize = 32;

/// An operation that is under way.
pub struct Op {
    pub waiters: Waiters,
    pub work: Work,
    pub stage: Stage,
}

/// Who waits for the result of an operation.
pub enum Waiters {
    /// The session that has begun it, with the call in this slot.
    One(SessionKey, Slot),
    /// Several sessions that have asked for the same, each with the call in its reader.
    Several(Box<Several>),
    /// Nobody: the writes of a background queue. They go on when the request has ended that has
    /// given them, and there is no coroutine that could be told. What comes of them is counted.
    Nobody,
}

/// Sessions that wait for the same operation.
pub struct Several {
    /// Those that do not wait any more may be among them.
    pub sessions: Vec<SessionKey>,
    /// How many wait.
    pub waiting: usize,
}

/// What is to be done, and what has come of it so far.
pub enum Work {
    /// Connecting, or a TLS handshake.
    Connect,
    /// A command with one reply.
    Command,
    /// Commands with a reply each.
    Pipeline {
        replies: Vec<Reply>,
        expected: usize,
    },
    /// Writes that nobody waits for, any number of them: what has come of them.
    Background(Tally),
    /// A raw receive.
    Receive(RawReader),
    /// A raw send.
    Send { bytes: usize },
}

/// How far an operation is.
pub enum Stage {
    /// It was begun just now.
    New,
    /// It waits for a place in a full pool.
    PoolQueue(Box<PoolQueue>),
    /// The server's name is being looked up.
    Resolving(Box<Resolving>),
    /// It waits for a shared connection to be established.
    Joining {
        shared_pool: SharedPoolKey,
        place: Place,
    },
    /// Its commands wait for room on shared connections.
    RoomQueue {
        place: QueuePlace,
        batch: Box<Batch>,
    },
    /// It was given to a connection.
    Assigned(Assignment),
}

/// A connect operation in a pool's queue.
pub struct PoolQueue {
    pub pool: PoolKey,
    pub place: Place,
    pub host: Vec<u8>,
    pub port: u16,
}

/// A connect operation whose server's name is being looked up.
pub struct Resolving {
    pub resolution: Box<Resolution>,
    pub port: u16,
    pub target: Target,
}

/// What a connection is opened for.
pub enum Target {
    /// For the session alone. The pool counts it, if there is one. Then a TLS handshake is to be
    /// done, if any.
    Private {
        pool: Option<PoolKey>,
        handshake: Option<Box<Pending>>,
    },
    /// For all that share the connections of this pool.
    Shared(SharedPoolKey),
}

/// The connection that an operation was given to, and its place there.
#[derive(Clone, Copy, Debug)]
pub struct Assignment {
    pub connection: ConnectionKey,
    /// Numbers of its first and its last exchange, if it has any: commands have.
    pub first: u64,
    pub last: u64,
    /// When it began to wait.
    pub since: Msec,
    /// `since` accounts for the time that sending took.
    pub accounted: bool,
    pub history: History,
}

impl Op {
    /// Whether it connects, or does a TLS handshake.
    pub fn is_connect(&self) -> bool {
        matches!(self.work, Work::Connect)
    }
}

impl Assignment {
    pub fn new(connection: ConnectionKey, now: Msec) -> Assignment {
        Assignment {
            connection,
            first: 0,
            last: 0,
            since: now,
            accounted: false,
            history: History::default(),
        }
    }
}

impl Waiters {
    /// Sessions that wait, and some that may not any more.
    pub fn sessions(&self) -> &[SessionKey] {
        match self {
            Waiters::One(session, _) => std::slice::from_ref(session),
            Waiters::Several(several) => &several.sessions,
            Waiters::Nobody => &[],
        }
    }

    /// Adds a session. False if there is no memory.
    pub fn add(&mut self, session: SessionKey) -> bool {
        let several = match self {
            Waiters::Several(several) => several,
            Waiters::Nobody => return false,
            Waiters::One(first, _) => {
                let mut sessions = Vec::new();
                if sessions.try_reserve(2).is_err() {
                    return false;
                }
                sessions.push(*first);
                *self = Waiters::Several(Box::new(Several {
                    sessions,
                    waiting: 1,
                }));
                return self.add(session);
            }
        };
        let added = several.sessions.try_reserve(1).is_ok();
        if added {
            several.sessions.push(session);
            several.waiting += 1;
        }
        added
    }

    /// One session waits no more. Whether others do.
    pub fn leave(&mut self, still_waits: impl FnMut(&SessionKey) -> bool) -> bool {
        let Waiters::Several(several) = self else {
            return false;
        };
        several.waiting = several.waiting.saturating_sub(1);
        if several.sessions.len() > LEFT_KEPT.max(2 * several.waiting) {
            several.sessions.retain(still_waits);
        }
        several.waiting > 0
    }
}

impl Work {
    /// The work of these commands. For a pipeline, reserves room for its replies.
    #[inline(always)]
    pub fn of(commands: Commands<'_>) -> Result<Work, Error> {
        let batch = match commands {
            // nothing comes back: it is done when it is sent
            Commands::One(_) if commands.is_quit() => return Ok(Work::Send { bytes: 0 }),
            Commands::One(_) => return Ok(Work::Command),
            Commands::Batch(batch) => batch,
        };
        let mut replies = Vec::new();
        let expected = batch.len();
        match replies.try_reserve_exact(expected) {
            Ok(()) => Ok(Work::Pipeline { replies, expected }),
            Err(_) => Err(Error::NoMemory),
        }
    }

    /// Which of a session's calls it is.
    pub fn slot(&self) -> Slot {
        match self {
            Work::Send { .. } => Slot::Writer,
            _ => Slot::Reader,
        }
    }

    /// Whether it is a raw read of all that comes until the peer closes.
    pub fn reads_all(&self) -> bool {
        matches!(self, Work::Receive(reader) if reader.want() == RawRead::All)
    }

    /// Adds a reply. The result, if this was the last one.
    #[inline(always)]
    pub fn accept(&mut self, reply: Reply) -> Option<Outcome> {
        match self {
            Work::Command => Some(Outcome::Reply(reply)),
            Work::Pipeline { replies, expected } => {
                replies.push(reply);
                let complete = replies.len() == *expected;
                complete.then(|| Outcome::Replies(std::mem::take(replies), None))
            }
            Work::Background(tally) => {
                tally.count(reply);
                None
            }
            Work::Connect | Work::Receive(_) | Work::Send { .. } => None,
        }
    }

    /// The result if it fails now, with what has come so far. `writing` tells that the failure met
    /// commands that were still being sent.
    pub fn fail(&mut self, error: Error, writing: bool) -> Outcome {
        match self {
            Work::Pipeline { replies, .. } if !(writing && replies.is_empty()) => {
                Outcome::Replies(std::mem::take(replies), Some(error))
            }
            Work::Receive(reader) => {
                let want = reader.want();
                let data = take_data(reader);
                match (want, error) {
                    (RawRead::All, Error::Closed) => Outcome::Received(data),
                    (_, error) => Outcome::Interrupted(error, data),
                }
            }
            _ => Outcome::Failed(error),
        }
    }

    /// The result if the connection fails with `error`.
    pub fn fail_with(&mut self, error: &Error, writing: bool) -> Outcome {
        let begun = matches!(self, Work::Pipeline { replies, .. } if !replies.is_empty());
        match error {
            Error::Said(_) if begun => self.fail(Error::Closed, writing),
            // in place of its reply, or of the first of them
            Error::Said(line) => match self.accept(Reply::Line(line.to_vec())) {
                Some(outcome) => outcome,
                None => self.fail(Error::Closed, false),
            },
            error => self.fail(error.clone(), writing),
        }
    }
}

/// What a raw read has got, complete or not.
pub fn take_data(reader: &mut RawReader) -> Vec<u8> {
    std::mem::replace(reader, RawReader::new(RawRead::All)).into_data()
}
