//! What Lua asks for, and what comes of it.

use std::rc::Rc;

use crate::protocol::{Batch, Command, Reply};
use crate::transport::error::Error;

/// Values or replies of a large result.
const LARGE: usize = 256;

/// Which of a session's two calls. Reading and sending of raw data go on independently of each
/// other, as they do on a cosocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slot {
    /// Connects, commands with replies, raw receives.
    Reader,
    /// Raw sends.
    Writer,
}

/// The result of an operation.
#[derive(Debug)]
pub enum Outcome {
    /// The connection is established.
    Connected,
    /// TLS is established.
    Handshaken,
    /// The reply to a single command.
    Reply(Reply),
    /// The reply to a command that others have asked for as well.
    Common(Rc<Reply>),
    /// The replies to a pipeline, as many as came before it failed, if it did.
    Replies(Vec<Reply>, Option<Error>),
    /// Raw data.
    Received(Vec<u8>),
    /// A raw receive failed; what had come until then.
    Interrupted(Error, Vec<u8>),
    /// Raw data of so many bytes went out.
    Sent(usize),
    /// The operation failed.
    Failed(Error),
    /// The thread that the coroutine runs in was ended: it must not go on.
    Ended,
}

impl Outcome {
    /// Making Lua values of it takes longer than sending what waits to be sent.
    pub fn is_large(&self) -> bool {
        match self {
            Outcome::Reply(Reply::Values(values)) => values.len() >= LARGE,
            Outcome::Replies(replies, _) => replies.len() >= LARGE,
            _ => false,
        }
    }
}

/// An operation begun: either the coroutine has to yield or it has its result.
#[derive(Debug)]
pub enum Begun {
    /// The coroutine is queued; the result is fetched after it was resumed.
    Waiting,
    /// The result is there at once.
    Ready(Outcome),
}

/// How far opening a connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It is established.
    Connected,
    /// A name is being looked up, the handshake of TCP is under way, or there is no room for it
    /// yet.
    Pending,
}

/// The commands of an operation.
#[derive(Clone, Copy)]
pub enum Commands<'a> {
    /// One command with its reply (`quit` has none).
    One(&'a Command<'a>),
    /// A pipeline's.
    Batch(&'a Batch),
}

impl Commands<'_> {
    /// Whether they can be sent on a shared connection.
    pub fn can_share(self) -> bool {
        match self {
            Commands::One(command) => command.can_share(),
            Commands::Batch(batch) => batch.can_share(),
        }
    }

    /// Whether nothing comes back.
    pub fn is_quit(self) -> bool {
        matches!(self, Commands::One(Command::Quit))
    }

    /// The result if the server has sent this error line before the commands were sent, and the
    /// connection is closed.
    pub fn answered_by(self, line: Vec<u8>) -> Result<Outcome, Error> {
        let line = Reply::Line(line);
        match self {
            Commands::One(_) => Ok(Outcome::Reply(line)),
            Commands::Batch(_) => {
                let mut replies = Vec::new();
                replies.try_reserve_exact(1).map_err(|_| Error::NoMemory)?;
                replies.push(line);
                Ok(Outcome::Replies(replies, Some(Error::Closed)))
            }
        }
    }
}
