//! Bytes that a server sends without being asked, or before it closes the connection.

use std::rc::Rc;

use nginx_sys::NGX_LOG_INFO;

use crate::protocol::{Malformed, Reply};
use crate::transport::connection::{Connection, MAX_LINE, Owner};
use crate::transport::error::Error;

/// Bytes of unsolicited data that are logged.
pub const LOGGED: usize = 64;

impl Connection {
    /// Receives bytes that nobody has asked for. Returns the error that they are, or that the
    /// socket met; `None` if nothing was there.
    #[cold]
    pub fn receive_unasked(&mut self) -> Option<Error> {
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
                    if self.pipeline.buffered().len() > MAX_LINE || !self.nginx.is_readable() {
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

    /// The error of a command that was not sent because of unread bytes: the server's error line,
    /// if they are one.
    pub fn unasked(&self) -> Error {
        match self.pipeline.unasked_error() {
            Some(line) => Error::Said(line.into()),
            None => {
                self.log_unsolicited();
                Error::Unsolicited
            }
        }
    }

    /// Logs bytes that nobody has asked for.
    #[cold]
    pub fn log_unsolicited(&self) {
        let bytes = self.pipeline.buffered();
        let shown = bytes.get(..LOGGED).unwrap_or(bytes);
        self.nginx.log().write(
            NGX_LOG_INFO,
            0,
            format_args!(
                "lua memcached unsolicited data: \"{}\"{}",
                shown.escape_ascii(),
                if shown.len() < bytes.len() { "..." } else { "" },
            ),
        );
    }
}

impl Connection {
    /// Whether bytes have come before any command was sent that they could answer. Only for
    /// connections whose unsent commands can go to another one: shared ones, and those of queues.
    #[inline(always)]
    pub fn has_unasked(&self) -> bool {
        let pipeline = &self.pipeline;
        matches!(self.owner, Owner::Shared(_) | Owner::Queue(_))
            && pipeline.in_flight() > 0
            && !pipeline.has_begun_oldest()
            && !pipeline.is_broken()
            && !pipeline.buffered().is_empty()
    }

    /// Notes an error line, or bytes that are no reply. `first`: it is the first reply on a shared
    /// connection.
    #[inline(always)]
    pub fn note_words(&mut self, first: bool, reply: &Reply) {
        if let Reply::Line(_) | Reply::Malformed(Malformed::Unsolicited) = reply {
            self.note_error(first, reply);
        }
    }

    #[cold]
    fn note_error(&mut self, first: bool, reply: &Reply) {
        match reply {
            Reply::Line(line) if reply.is_error() => {
                // with its first line, a server may refuse to serve the connection
                if let Some(sharing) = self.sharing_mut().filter(|_| first) {
                    sharing.first_error_line = Some(line.as_slice().into());
                }
            }
            Reply::Malformed(_) => self.log_unsolicited(),
            _ => {}
        }
    }

    /// Why the server refuses to serve this connection: it has sent one error line, and closed. The
    /// line is the reply to all commands.
    pub fn refusal(&self) -> Option<Rc<[u8]>> {
        let sharing = self.sharing()?;
        let line = sharing.first_error_line.as_ref()?;
        let only = self.pipeline.oldest() == 1;
        let closed = !matches!(self.nginx.peek(), Ok(1..) | Err(libc::EAGAIN));
        (only && closed && self.pipeline.buffered().is_empty()).then(|| line.clone())
    }
}
