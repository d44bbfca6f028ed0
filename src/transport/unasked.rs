//! What a server says without being asked, or says and closes.

use nginx_sys::NGX_LOG_INFO;

use super::Error;
use super::link::Link;
use super::op::Outcome;
use super::open::MAX_LINE;
use super::session::State;
use super::submit::What;
use super::worker::{LinkKey, Worker};
use crate::nginx;
use crate::protocol::Reply;

/// Bytes read at most from a connection that fails.
const READ_AT_ONCE: usize = 1024 * 1024;

/// Bytes of unsolicited data that are logged.
const LOGGED: usize = 64;

impl What<'_> {
    /// The result where the server has said this instead of waiting for it,
    /// and the connection is closed.
    pub(super) fn answered_by(self, line: Vec<u8>) -> Result<Outcome, Error> {
        let line = Reply::Line(line);
        match self {
            What::Command(_) => Ok(Outcome::Reply(line)),
            What::Batch(_) => {
                let mut replies = Vec::new();
                replies.try_reserve_exact(1).map_err(|_| Error::NoMemory)?;
                replies.push(line);
                Ok(Outcome::Replies(replies, Some(Error::Closed)))
            }
        }
    }
}

impl Worker {
    /// Before a command is sent there must be nothing that could be taken for
    /// its reply, and the connection must be open. What is returned is an error
    /// line that the server has sent; then the connection is closed.
    pub(super) fn check_in_step(&mut self, key: LinkKey) -> Result<Option<Vec<u8>>, Error> {
        let link = self.links.get_mut(key).ok_or(Error::Closed)?;
        if link.quitting {
            return Err(Error::Closed);
        }
        let error = if !link.pipeline.is_answered() {
            Some(Error::Unsolicited)
        } else if link.is_readable() {
            link.receive_unasked()
        } else {
            None
        };
        match error {
            None => Ok(None),
            Some(error) => self.fail_unasked(key, error),
        }
    }

    #[cold]
    fn fail_unasked(&mut self, key: LinkKey, error: Error) -> Result<Option<Vec<u8>>, Error> {
        let mut said = None;
        if let Some(link) = self.links.get(key)
            && error == Error::Unsolicited
        {
            // what answers raw data is for whoever sent that
            let own = link.pipeline.in_flight() == 0 && !link.unanswered;
            let line = link.pipeline.unasked_error().filter(|_| own);
            said = line.map(<[u8]>::to_vec);
            if said.is_none() {
                link.log_unsolicited();
            }
        }
        self.fail(key, error.clone(), State::Broken { reused: 0 });
        match said {
            None => Err(error),
            said => Ok(said),
        }
    }

    /// Nothing can be sent any more, as one learns before the read event comes.
    /// What the server has said before goes to whoever waits for it first.
    #[cold]
    pub(super) fn fail_writing(&mut self, key: LinkKey, error: Error) {
        let mut read = 0;
        while read < READ_AT_ONCE
            && self.pending_reader(key).is_some()
            && let Some(link) = self.links.get_mut(key)
            && link.peek().is_ok_and(|n| n > 0)
        {
            link.assume_readable();
            match link.receive() {
                Some(Ok(n @ 1..)) => read += n,
                _ => break,
            }
            self.deliver(key);
        }
        self.fail(key, error, State::Broken { reused: 0 });
    }
}

impl Link {
    /// Has the next read ask the socket, as if an event had said that there is something.
    pub(super) fn assume_readable(&mut self) {
        // SAFETY: the link's connection is open.
        unsafe {
            let read = (*self.connection.as_ptr()).read;
            (*read).set_ready(1);
            (*read).available = -1;
        }
    }

    /// What a look at the socket shows, which nginx does not hear of: how many
    /// bytes, one at most, 0 at the end of the stream, or an errno.
    pub(super) fn peek(&self) -> Result<usize, i32> {
        let mut byte = 0u8;
        // SAFETY: the link's connection is open; one byte is peeked at most.
        let n = unsafe {
            let fd = (*self.connection.as_ptr()).fd;
            libc::recv(fd, (&raw mut byte).cast(), 1, libc::MSG_PEEK)
        };
        usize::try_from(n).map_err(|_| nginx::last_errno())
    }

    /// Receives what was sent though nobody has asked for anything: the error
    /// that it is, or that was met.
    #[cold]
    fn receive_unasked(&mut self) -> Option<Error> {
        let mut error = None;
        loop {
            match self.receive() {
                None => break,
                Some(Ok(0)) => {
                    error.get_or_insert(Error::Closed);
                    break;
                }
                Some(Ok(_)) => {
                    error = Some(Error::Unsolicited);
                    if self.pipeline.buffered().len() > MAX_LINE || !self.is_readable() {
                        break;
                    }
                }
                Some(Err(met)) => {
                    error.get_or_insert(met);
                    break;
                }
            }
        }
        error
    }

    /// The error that the unread bytes are, for a command that was not sent.
    pub(super) fn unasked(&self) -> Error {
        match self.pipeline.unasked_error() {
            Some(line) => Error::Said(line.into()),
            None => {
                self.log_unsolicited();
                Error::Unsolicited
            }
        }
    }

    /// Writes down what came though nobody has asked for anything.
    #[cold]
    pub(super) fn log_unsolicited(&self) {
        let bytes = self.pipeline.buffered();
        let shown = bytes.get(..LOGGED).unwrap_or(bytes);
        // SAFETY: the link's connection is open and has a log.
        unsafe {
            nginx::log(
                NGX_LOG_INFO,
                (*self.connection.as_ptr()).log,
                0,
                format_args!(
                    "lua memcached unsolicited data: \"{}\"{}",
                    shown.escape_ascii(),
                    if shown.len() < bytes.len() { "..." } else { "" },
                ),
            );
        }
    }
}
