//! What a coroutine waits for, and what came of it.

use std::ptr::NonNull;
use std::rc::Rc;

use nginx_sys::ngx_http_request_t;

use super::Error;
use crate::ngx_lua::{Semaphore, Wait};
use crate::protocol::{Batch, RawRead, RawReader, Reply};

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
pub(super) enum Work {
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
    pub(super) fn pipeline(batch: &Batch) -> Result<Work, Error> {
        let mut replies = Vec::new();
        let expected = batch.len();
        match replies.try_reserve_exact(expected) {
            Ok(()) => Ok(Work::Pipeline { replies, expected }),
            Err(_) => Err(Error::NoMemory),
        }
    }
}

/// An operation that a coroutine waits for.
pub(super) struct Op {
    semaphore: Semaphore,
    /// The coroutine is queued at the semaphore.
    waits: bool,
    progress: Progress,
}

enum Progress {
    Pending(Work),
    Done(Outcome),
}

/// Whether an operation has its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Status {
    Pending,
    Done,
}

impl Op {
    pub(super) fn new(semaphore: Semaphore, work: Work) -> Op {
        Op {
            semaphore,
            waits: false,
            progress: Progress::Pending(work),
        }
    }

    pub(super) fn status(&self) -> Status {
        match self.progress {
            Progress::Pending(_) => Status::Pending,
            Progress::Done(_) => Status::Done,
        }
    }

    pub(super) fn is_connect(&self) -> bool {
        matches!(
            self.progress,
            Progress::Pending(Work::Connect)
                | Progress::Done(Outcome::Connected | Outcome::Handshaken)
        )
    }

    pub(super) fn is_raw_receive(&self) -> bool {
        matches!(self.progress, Progress::Pending(Work::Receive(_)))
    }

    pub(super) fn reads_all(&self) -> bool {
        match &self.progress {
            Progress::Pending(Work::Receive(reader)) => reader.want() == RawRead::All,
            _ => false,
        }
    }

    /// The pending work, to be carried on.
    pub(super) fn work_mut(&mut self) -> Option<&mut Work> {
        match &mut self.progress {
            Progress::Pending(work) => Some(work),
            Progress::Done(_) => None,
        }
    }

    /// The commands of an operation that waited for room, which it does no more.
    pub(super) fn unqueue(&mut self) -> Option<Batch> {
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

    /// Nobody waits (any more): the light thread was killed.
    pub(super) fn is_abandoned(&self) -> bool {
        let count = self.semaphore.count();
        match self.progress {
            Progress::Pending(_) => self.waits && count >= 0,
            Progress::Done(_) => count > 0,
        }
    }

    /// A coroutine waits for the result, or is about to fetch it.
    pub(super) fn has_waiter(&self) -> bool {
        self.waits && !self.is_abandoned()
    }

    /// # Safety
    ///
    /// As for [`Semaphore::wait`].
    pub(super) unsafe fn wait(&mut self, request: NonNull<ngx_http_request_t>) -> Wait {
        // SAFETY: by this function's contract.
        let wait = unsafe { self.semaphore.wait(request) };
        self.waits = matches!(wait, Wait::Queued);
        wait
    }

    /// Sets the result and wakes the coroutine, if it waits already.
    pub(super) fn finish(&mut self, outcome: Outcome) {
        if let Progress::Pending(_) = self.progress {
            self.progress = Progress::Done(outcome);
            if self.waits {
                self.semaphore.post();
            }
        }
    }

    /// Finishes a failed operation with what it has got so far. `writing`
    /// tells that the failure met commands that were still being sent.
    pub(super) fn fail(&mut self, error: Error, writing: bool) {
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

    pub(super) fn into_semaphore(self) -> Semaphore {
        self.semaphore
    }

    pub(super) fn into_outcome(self) -> (Outcome, Semaphore) {
        let outcome = match self.progress {
            Progress::Done(outcome) => outcome,
            Progress::Pending(_) => Outcome::Failed(Error::Closed),
        };
        (outcome, self.semaphore)
    }
}

/// What a raw read has got, complete or not.
pub(super) fn take_data(reader: &mut RawReader) -> Vec<u8> {
    std::mem::replace(reader, RawReader::new(RawRead::All)).into_data()
}
