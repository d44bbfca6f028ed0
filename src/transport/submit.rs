//! Operations on a connection: commands and raw data, begun on behalf of a
//! request.

use std::ptr::NonNull;

use nginx_sys::ngx_http_request_t;

use super::Error;
use super::access::Denied;
use super::io::log_socket_error;
use super::link::Tag;
use super::op::{Begun, Op, Outcome, Slot, Status, Work};
use super::session::State;
use super::worker::{LinkKey, SessionKey, Worker};
use crate::fault;
use crate::ngx_lua::{Wait, Waiter};
use crate::protocol::{Batch, Command, RawRead, RawReader, Refused};

/// What a session is to send and to wait for.
#[derive(Clone, Copy)]
pub enum What<'a> {
    /// One command with its reply (`quit` has none).
    Command(&'a Command<'a>),
    /// An open pipeline's commands.
    Batch(&'a Batch),
}

impl What<'_> {
    /// Whether it can be sent on a shared connection.
    pub fn can_share(self) -> bool {
        match self {
            What::Command(command) => command.can_share(),
            What::Batch(batch) => batch.can_share(),
        }
    }
}

/// Why nothing was sent.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// The session cannot send.
    #[error(transparent)]
    Failed(#[from] Error),
    /// The command must not be sent.
    #[error("{}", .0.answer)]
    Refused(Refused),
}

impl Worker {
    /// Sends commands on behalf of `request`.
    ///
    /// # Errors
    ///
    /// Outer: the session belongs to another active request. Inner: all else;
    /// nothing was sent or the connection failed.
    pub fn submit(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        what: What<'_>,
    ) -> Result<Result<Begun, Rejected>, Denied> {
        fault::point();
        if what.can_share()
            && let Some(trunk) = self.attached(key, request)?
        {
            return Ok(self.submit_shared(key, trunk, what));
        }
        Ok(match self.connected(key, request)? {
            Ok(link) => self.submit_to(key, link, what),
            Err(error) => Err(not_connected(request, "send", error).into()),
        })
    }

    /// Whether `request` could send a command now. Errors as with
    /// [`Self::submit`].
    pub fn check_ready(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
    ) -> Result<Result<(), Error>, Denied> {
        if self.is_postponed(key, request) || self.attached(key, request)?.is_some() {
            return Ok(self.check_idle(key));
        }
        Ok(match self.connected(key, request)? {
            Ok(_) => self.check_idle(key),
            Err(error) => Err(not_connected(request, "send", error)),
        })
    }

    fn submit_to(
        &mut self,
        session: SessionKey,
        key: LinkKey,
        what: What<'_>,
    ) -> Result<Begun, Rejected> {
        self.check_idle(session)?;
        if let Some(line) = self.check_in_step(key)? {
            return Ok(Begun::Ready(what.answered_by(line)?));
        }
        let semaphore = self.semaphores.take().ok_or(Error::NoMemory)?;
        let link = self.links.get_mut(key).ok_or(Error::Closed)?;
        let tag = Tag { session, serial: 0 };
        let mut value = &b""[..];
        let work = match what {
            What::Command(command) => {
                // TLS encrypts from its own buffer, and what connects sends later
                let submitted = if link.tls.is_none() && !link.is_connecting() {
                    link.pipeline.submit_head(tag, command)
                } else {
                    link.pipeline.submit(tag, command).map(|()| value)
                };
                match submitted {
                    Ok(large) => value = large,
                    Err(refused) => {
                        self.semaphores.give(semaphore);
                        return Err(Rejected::Refused(refused));
                    }
                }
                link.quitting = matches!(command, Command::Quit);
                fault::point();
                Work::Command
            }
            What::Batch(batch) => match Work::pipeline(batch) {
                Ok(work) if link.pipeline.submit_batch(tag, batch) => work,
                _ => {
                    self.semaphores.give(semaphore);
                    return Err(Error::NoMemory.into());
                }
            },
        };
        let work = if link.quitting {
            // nothing comes back; it is done when it is sent
            Work::Send { bytes: 0 }
        } else {
            work
        };
        let slot = match work {
            Work::Send { .. } => Slot::Writer,
            _ => Slot::Reader,
        };
        self.start(session, key, slot, Op::new(semaphore, work), value)
            .map_err(Rejected::Failed)
    }

    /// Sends raw bytes on behalf of `request`. Errors as with [`Self::submit`].
    pub fn send(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        bytes: &[u8],
    ) -> Result<Result<Begun, Error>, Denied> {
        let link = match self.connected(key, request)? {
            Ok(link) => link,
            Err(error) => return Ok(Err(not_connected(request, "send", error))),
        };
        Ok(self.send_on(key, link, bytes))
    }

    fn send_on(&mut self, key: SessionKey, link: LinkKey, bytes: &[u8]) -> Result<Begun, Error> {
        // a coroutine that reads does not keep another one from sending
        match self.check_idle(key) {
            Ok(()) | Err(Error::BusyReading) => {}
            Err(error) => return Err(error),
        }
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        if session.writer.is_some() {
            return Err(Error::BusyWriting);
        }
        if bytes.is_empty() {
            return Ok(Begun::Ready(Outcome::Sent(0)));
        }
        let semaphore = self.semaphores.take().ok_or(Error::NoMemory)?;
        let state = self.links.get_mut(link).ok_or(Error::Closed)?;
        if !state.pipeline.send_raw(bytes) {
            self.semaphores.give(semaphore);
            return Err(Error::NoMemory);
        }
        state.unanswered = true;
        fault::point();
        let work = Work::Send { bytes: bytes.len() };
        self.start(key, link, Slot::Writer, Op::new(semaphore, work), b"")
    }

    /// Receives raw bytes on behalf of `request`. Errors as with [`Self::submit`].
    pub fn receive(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        want: RawRead,
    ) -> Result<Result<Begun, Error>, Denied> {
        let link = match self.connected(key, request)? {
            Ok(link) => link,
            Err(error) => return Ok(Err(not_connected(request, "receive", error))),
        };
        Ok(self.receive_on(key, link, want))
    }

    fn receive_on(
        &mut self,
        key: SessionKey,
        link: LinkKey,
        want: RawRead,
    ) -> Result<Begun, Error> {
        // a coroutine that sends raw data does not keep another one from reading
        self.check_reader(key)?;
        let semaphore = self.semaphores.take().ok_or(Error::NoMemory)?;
        let work = Work::Receive(RawReader::new(want));
        self.start(key, link, Slot::Reader, Op::new(semaphore, work), b"")
    }

    /// Puts an operation under way; `value` goes behind what there is to send. If it is complete at once, its result is
    /// returned and nobody has to wait.
    fn start(
        &mut self,
        key: SessionKey,
        link: LinkKey,
        slot: Slot,
        op: Op,
        value: &[u8],
    ) -> Result<Begun, Error> {
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        session.put_op(slot, op);
        fault::point();
        self.flush_with(link, value);
        fault::point();
        self.read_if_due(link);
        self.begun(key, slot)
    }

    /// Whether the operation in a slot is over already; then its result.
    pub(super) fn begun(&mut self, key: SessionKey, slot: Slot) -> Result<Begun, Error> {
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        match session.op(slot).map(|op| op.status()) {
            Some(Status::Pending) => Ok(Begun::Waiting),
            _ => match session.take_op(slot).map(Op::into_outcome) {
                Some((outcome, semaphore)) => {
                    self.semaphores.give(semaphore);
                    match outcome {
                        Outcome::Failed(error) => Err(error),
                        outcome => Ok(Begun::Ready(outcome)),
                    }
                }
                None => Err(Error::Closed),
            },
        }
    }

    /// Makes the running coroutine, which is `waiter`, wait for the operation in
    /// `slot`.
    ///
    /// # Errors
    ///
    /// ngx_lua's text if waiting is not possible here; the connection is
    /// closed then, since nobody will take its reply.
    ///
    /// # Safety
    ///
    /// `request` is the one whose Lua code runs right now.
    pub unsafe fn wait(
        &mut self,
        key: SessionKey,
        slot: Slot,
        request: NonNull<ngx_http_request_t>,
        waiter: Waiter,
    ) -> Result<(), String> {
        // once the coroutine is queued, nothing may keep it from yielding
        self.watch_waiters();
        let session = self.sessions.get_mut(key);
        let Some(op) = session.and_then(|session| session.op(slot)) else {
            return Err(Error::Closed.to_string());
        };
        // SAFETY: by this function's contract. An operation that waits is one of
        // a session that is registered with the request.
        match unsafe { op.wait(request, waiter) } {
            Wait::Queued => Ok(()),
            Wait::Refused(text) => {
                self.disconnect(key, State::Closed);
                Err(text)
            }
            Wait::Done | Wait::Declined => {
                self.disconnect(key, State::Closed);
                Err(Error::Unknown.to_string())
            }
        }
    }
}

/// Logs the use of a closed connection, in the words of cosockets, which log
/// alerts look for.
pub fn not_connected(request: NonNull<ngx_http_request_t>, action: &str, error: Error) -> Error {
    if error == Error::Closed {
        log_socket_error(
            Some(request),
            format_args!(
                "attempt to {action} data on a closed socket: u:{0:016X}, c:{0:016X}, ft:0 eof:0",
                0
            ),
        );
    }
    error
}
