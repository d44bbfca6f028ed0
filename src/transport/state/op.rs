//! What a coroutine waits for, and what came of it.

use std::ptr::NonNull;
use std::rc::Rc;

use nginx_sys::ngx_http_request_t;

use crate::ngx_lua::{Semaphore, Wait, Waiter};
use crate::protocol::{Batch, Command, RawRead, RawReader, Reply};
use crate::transport::error::Error;

/// Values or replies of a large result.
pub const LARGE: usize = 256;

/// Which of a session's two operations. Reading and sending of raw data go on
/// independently of each other, as they do on a cosocket.
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
    /// The connection stands.
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

/// What an operation is about.
pub enum Work {
    Connect,
    Command,
    Pipeline {
        replies: Vec<Reply>,
        expected: usize,
    },
    /// Commands that wait for room on a shared connection; then they are what
    /// is within.
    Queued(Box<(Batch, Work)>),
    Receive(RawReader),
    Send {
        bytes: usize,
    },
}

impl Work {
    /// Of an open pipeline, with room for its replies.
    pub fn pipeline(batch: &Batch) -> Result<Work, Error> {
        let mut replies = Vec::new();
        let expected = batch.len();
        match replies.try_reserve_exact(expected) {
            Ok(()) => Ok(Work::Pipeline { replies, expected }),
            Err(_) => Err(Error::NoMemory),
        }
    }
}

/// An operation that a coroutine waits for.
pub struct Op {
    semaphore: Semaphore,
    waiting: Waiting,
    progress: Progress,
}

/// Who waits for the result of an operation.
enum Waiting {
    /// Nobody yet.
    Nobody,
    /// A coroutine that was queued at the semaphore.
    Coroutine(Waiter),
    /// One that must not go on, and is not queued any more.
    Ended,
}

enum Progress {
    Pending(Work),
    Done(Outcome),
}

/// Whether an operation has its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    Pending,
    Done,
}

impl Op {
    pub fn new(semaphore: Semaphore, work: Work) -> Op {
        Op {
            semaphore,
            waiting: Waiting::Nobody,
            progress: Progress::Pending(work),
        }
    }

    pub fn status(&self) -> Status {
        match self.progress {
            Progress::Pending(_) => Status::Pending,
            Progress::Done(_) => Status::Done,
        }
    }

    pub fn is_connect(&self) -> bool {
        matches!(
            self.progress,
            Progress::Pending(Work::Connect)
                | Progress::Done(Outcome::Connected | Outcome::Handshaken)
        )
    }

    pub fn is_raw_receive(&self) -> bool {
        matches!(self.progress, Progress::Pending(Work::Receive(_)))
    }

    pub fn reads_all(&self) -> bool {
        match &self.progress {
            Progress::Pending(Work::Receive(reader)) => reader.want() == RawRead::All,
            _ => false,
        }
    }

    /// The pending work, to be carried on.
    pub fn work_mut(&mut self) -> Option<&mut Work> {
        match &mut self.progress {
            Progress::Pending(work) => Some(work),
            Progress::Done(_) => None,
        }
    }

    /// The commands of an operation that waited for room, which it does no more.
    pub fn unqueue(&mut self) -> Option<Batch> {
        let Progress::Pending(work) = &mut self.progress else {
            return None;
        };
        match std::mem::replace(work, Work::Command) {
            Work::Queued(queued) => {
                let (batch, then) = *queued;
                *work = then;
                Some(batch)
            }
            other => {
                *work = other;
                None
            }
        }
    }

    /// Nobody waits (any more): the light thread was killed, or that in which
    /// the coroutine runs, or all that ran for the request.
    pub fn is_abandoned(&self) -> bool {
        let Waiting::Coroutine(waiter) = &self.waiting else {
            return matches!(self.waiting, Waiting::Ended);
        };
        if self.semaphore.is_queued() {
            // SAFETY: the operation ends with the request.
            return unsafe { !waiter.may_go_on() };
        }
        match self.progress {
            Progress::Pending(_) => true,
            Progress::Done(_) => self.semaphore.count() > 0,
        }
    }

    /// A coroutine waits for the result, or is about to fetch it.
    pub fn has_waiter(&self) -> bool {
        matches!(self.waiting, Waiting::Coroutine(_)) && !self.is_abandoned()
    }

    /// Makes the running coroutine wait.
    ///
    /// # Safety
    ///
    /// As for [`Semaphore::wait`]; the operation ends with `request`.
    #[inline(always)]
    pub unsafe fn wait(&mut self, request: NonNull<ngx_http_request_t>, waiter: Waiter) -> Wait {
        // SAFETY: by this function's contract.
        let wait = unsafe { self.semaphore.wait(request) };
        if let Wait::Queued = wait {
            self.waiting = Waiting::Coroutine(waiter);
        }
        wait
    }

    /// Sets the result and wakes the coroutine, if it waits already.
    pub fn finish(&mut self, outcome: Outcome) {
        if let Progress::Pending(_) = self.progress {
            self.progress = Progress::Done(outcome);
            if let Waiting::Coroutine(waiter) = &self.waiting {
                // SAFETY: the operation ends with the request.
                match unsafe { waiter.may_go_on() } {
                    true => self.semaphore.post(),
                    false => self.leave(),
                }
            }
        }
    }

    /// Nothing of the coroutine stays in a queue or in nginx's timers.
    fn leave(&mut self) {
        if let Waiting::Coroutine(waiter) = std::mem::replace(&mut self.waiting, Waiting::Ended)
            && self.semaphore.is_queued()
        {
            // SAFETY: the operation ends with the request.
            unsafe { waiter.coroutine().stop_waiting() };
        }
    }

    /// Finishes a failed operation with what it has got so far. `writing`
    /// tells that the failure met commands that were still being sent.
    pub fn fail(&mut self, error: Error, writing: bool) {
        let Some(work) = self.work_mut() else { return };
        let outcome = match work {
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
        };
        self.finish(outcome);
    }

    /// Ends it: nobody waits any more.
    pub fn into_semaphore(mut self) -> Semaphore {
        self.leave();
        self.semaphore
    }

    /// Ends it for whoever was woken to fetch the result, or has not waited.
    #[inline(always)]
    pub fn into_outcome(self) -> (Outcome, Semaphore) {
        let outcome = match self.progress {
            Progress::Done(outcome) => outcome,
            Progress::Pending(_) => Outcome::Failed(Error::Closed),
        };
        (outcome, self.semaphore)
    }

    /// Whether it has its result, and the coroutine that was woken may go on.
    #[inline(always)]
    pub fn has_result(&self) -> bool {
        matches!(self.progress, Progress::Done(_))
            && match &self.waiting {
                // SAFETY: the operation ends with the request.
                Waiting::Coroutine(waiter) => unsafe { waiter.may_go_on() },
                Waiting::Nobody => true,
                Waiting::Ended => false,
            }
    }
}

/// What a raw read has got, complete or not.
pub fn take_data(reader: &mut RawReader) -> Vec<u8> {
    std::mem::replace(reader, RawReader::new(RawRead::All)).into_data()
}

/// Adds a reply to the operation that waits for it.
pub fn accept(op: &mut Op, reply: Reply) {
    match op.work_mut() {
        Some(Work::Command) => op.finish(Outcome::Reply(reply)),
        Some(Work::Pipeline { replies, expected }) => {
            replies.push(reply);
            if replies.len() == *expected {
                let replies = std::mem::take(replies);
                op.finish(Outcome::Replies(replies, None));
            }
        }
        _ => {}
    }
}

/// How far opening a connection has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// It stands.
    Connected,
    /// A name is being looked up, the handshake of TCP is under way, or there
    /// is no room for it yet.
    Pending,
}

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

impl What<'_> {
    /// The result where the server has said this instead of waiting for it,
    /// and the connection is closed.
    pub fn answered_by(self, line: Vec<u8>) -> Result<Outcome, Error> {
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
