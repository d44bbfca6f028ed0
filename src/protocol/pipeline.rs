//! One connection: bytes to send, exchanges in flight, replies in order.

use std::collections::VecDeque;

use self::flight::{Gaps, InFlight};
use super::batch::Batch;
use super::buffers::Buffers;
use super::command::Command;
use super::decoder::Decoder;
use super::encode::{encode, encode_head};
use super::expect::Expect;
use super::limits::Limits;
use super::line::Framing;
use super::refusal::{Refused, not_for_server};
use super::reply::{Malformed, Reply};
use super::version::Server;

/// Text that is not needed any more is removed from the front of the out buffer when it reaches
/// this size in bytes.
const DROP_FRONT: usize = 64 * 1024;

/// Maximum capacity in bytes of the out buffer of an idle connection.
const IDLE_OUT: usize = 4 * 1024;

/// Values up to this length in bytes are copied into the out buffer.
pub const SMALL_VALUE: usize = 8 * 1024;

/// What follows a value that is stored.
pub const VALUE_END: &[u8] = b"\r\n";

/// Number of exchanges for which an idle connection keeps room.
const IDLE_FLIGHTS: usize = 32;

/// Where to receive: at the end of `buf`, at most `max` bytes. `buf` has that capacity.
pub struct ReadBuf<'a> {
    /// To be appended to and not otherwise changed.
    pub buf: &'a mut Vec<u8>,
    /// In bytes; 0 only if memory ran out. Then nothing is to be read, and [`Pipeline::next_reply`]
    /// fails, or the pipeline [is broken](Pipeline::is_broken) if nothing is in flight.
    pub max: usize,
}

/// The two directions of a connection. `T` tells the caller whose reply it is.
///
/// Text stays in the out buffer until its reply comes, because the keys of a reply are compared
/// with it. The oldest exchange in flight determines what can be dropped.
pub struct Pipeline<T> {
    out: Vec<u8>,
    /// Position of the first byte of `out` in the stream.
    base: u64,
    /// Bytes of `out` that were sent.
    sent: usize,
    /// Neither the first nor the last was withdrawn.
    flights: VecDeque<InFlight<T>>,
    /// Number that the next exchange gets.
    next: u64,
    /// Lists among the exchanges in flight.
    lists: usize,
    gaps: Gaps,
    decoder: Decoder,
    broken: bool,
}

impl<T: Copy> Pipeline<T> {
    /// For a new connection. Allocates nothing.
    pub fn new(limits: Limits) -> Self {
        Pipeline {
            out: Vec::new(),
            base: 0,
            sent: 0,
            flights: VecDeque::new(),
            next: 0,
            lists: 0,
            gaps: Gaps::NONE,
            decoder: Decoder::new(limits),
            broken: false,
        }
    }

    /// Makes it reuse buffers of values.
    pub fn with_buffers(mut self, buffers: Buffers) -> Self {
        self.decoder.buffers = buffers;
        self
    }

    /// Sets the maximum length of values in bytes, from the next header on.
    pub fn set_max_value(&mut self, bytes: usize) {
        self.decoder.limits.max_value = bytes;
    }

    /// Queues a command. A refused command leaves the pipeline unchanged.
    pub fn submit(&mut self, tag: T, command: &Command<'_>) -> Result<(), Refused> {
        self.check_server(command)?;
        self.make_flight_room(command)?;
        let expect = encode(command, &mut self.out)?;
        self.push_in_flight(tag, expect);
        Ok(())
    }

    /// As [`submit`](Self::submit), but a large value to be stored is not copied: it is returned,
    /// and has to be sent right after [`unsent`](Self::unsent), followed by [`VALUE_END`]. See
    /// [`sent_with`](Self::sent_with).
    pub fn submit_head<'a>(&mut self, tag: T, command: &Command<'a>) -> Result<&'a [u8], Refused> {
        let value = command.value();
        if value.len() <= SMALL_VALUE {
            return self.submit(tag, command).map(|()| &b""[..]);
        }
        self.check_server(command)?;
        self.make_flight_room(command)?;
        let expect = encode_head(command, 0, &mut self.out)?;
        self.push_in_flight(tag, expect);
        Ok(value)
    }

    #[inline(always)]
    fn check_server(&self, command: &Command<'_>) -> Result<(), Refused> {
        let Command::Meta(meta) = command else {
            return Ok(());
        };
        match self.decoder.server.allows(meta.needs()) {
            Ok(()) => Ok(()),
            Err(unmet) => {
                // but what no server takes comes first
                encode_head(command, 0, &mut Vec::new())?;
                Err(not_for_server(command.word(), unmet))
            }
        }
    }

    /// What the server has said of itself.
    pub fn server(&self) -> Server {
        self.decoder.server
    }

    /// Unless it has said it, the server is one of which this is known.
    pub fn assume(&mut self, server: Server) {
        if self.decoder.server == Server::Unknown {
            self.decoder.server = server;
        }
    }

    fn make_flight_room(&mut self, command: &Command<'_>) -> Result<(), Refused> {
        match self.flights.try_reserve(1) {
            Ok(()) => Ok(()),
            Err(_) => Err(Refused::no_memory(command.word(), size_of::<InFlight<T>>())),
        }
    }

    /// Queues the commands of a batch; each of the replies carries `tag`. If there is no memory for
    /// them, or the server cannot do one of them, the pipeline is unchanged.
    pub fn submit_batch(&mut self, tag: T, batch: &Batch) -> Result<(), Refused> {
        batch.check(self.decoder.server)?;
        let at = self.out.len();
        if self.out.try_reserve(batch.text_len()).is_err()
            || self.flights.try_reserve(batch.len()).is_err()
        {
            return Err(Refused::no_memory("pipeline", batch.text_len()));
        }
        self.out.extend_from_slice(batch.text());
        for expect in batch.slots() {
            self.push_in_flight(tag, expect.offset_by(at));
        }
        Ok(())
    }

    fn push_in_flight(&mut self, tag: T, expect: Expect) {
        if expect.has_reply() {
            self.lists += usize::from(expect.kind.is_list());
            self.flights.push_back(InFlight {
                tag,
                number: self.next,
                kind: expect.kind,
                begin: self.base + expect.begin as u64,
                start: self.base + expect.start as u64,
                end: self.base + expect.end as u64,
            });
            self.next += 1;
        }
    }

    /// Queues bytes that are not an exchange: the user's own commands, whose replies the user takes
    /// from [`buffered`](Self::buffered). False if there is no memory for them.
    #[must_use]
    pub fn send_raw(&mut self, bytes: &[u8]) -> bool {
        let queued = self.out.try_reserve(bytes.len()).is_ok();
        if queued {
            self.out.extend_from_slice(bytes);
        }
        queued
    }

    /// What is to be sent next. It ends where commands were withdrawn, so
    /// [`close_gaps`](Self::close_gaps) has to be called before.
    pub fn unsent(&self) -> &[u8] {
        let gap = self.gaps.from.saturating_sub(self.base);
        let end = usize::try_from(gap).unwrap_or(usize::MAX);
        let end = end.min(self.out.len());
        self.out.get(self.sent..end).unwrap_or_default()
    }

    /// As many whole commands of [`unsent`](Self::unsent) as are at most `most` bytes, but at least
    /// one: what goes into one TLS record or, if a command is longer, into records of its own, see
    /// [`Record`](super::Record). If a record holds the end of a large value and a further command,
    /// memcached 1.6 does not notice that OpenSSL has buffered the rest.
    pub fn unsent_commands(&self, most: usize) -> &[u8] {
        let from = self.base + self.sent as u64;
        let mut end = None;
        let waiting = self.flights.partition_point(|flight| flight.begin <= from);
        for flight in self.flights.range(waiting..) {
            let len = flight.begin - from;
            if end.is_some() && len > most as u64 {
                break;
            }
            end = Some(len);
        }
        let unsent = self.unsent();
        let all_fits = unsent.len() <= most;
        match end.and_then(|len| usize::try_from(len).ok()) {
            Some(len) if !all_fits => unsent.get(..len).unwrap_or(unsent),
            _ => unsent,
        }
    }

    /// Notes that the first `n` bytes of [`unsent`](Self::unsent) were sent. To be called before
    /// the next call of [`next_reply`](Self::next_reply), which rejects replies to commands that
    /// were not sent.
    #[inline(always)]
    pub fn sent(&mut self, n: usize) {
        self.sent = self.sent.saturating_add(n).min(self.out.len());
        if self.base + self.sent as u64 >= self.gaps.from {
            self.close_gaps();
        }
        // text in flight is needed, except what an early reply has left behind
        if self.flights.is_empty() || self.sent >= DROP_FRONT {
            self.drop_answered();
        }
    }

    /// As [`sent`](Self::sent), if `value` and [`VALUE_END`] followed the unsent bytes. What was
    /// not sent of the two is queued. False if there is no memory for it.
    pub fn sent_with(&mut self, n: usize, value: &[u8]) -> bool {
        // Bytes that never were in the buffer have no position in the stream.
        let rest = n.saturating_sub(self.unsent().len());
        let of_end = rest.saturating_sub(value.len());
        let value = value.get(rest..).unwrap_or_default();
        let end = VALUE_END.get(of_end..).unwrap_or_default();
        let room = value.len().saturating_add(end.len());
        let queued = self.out.try_reserve(room).is_ok();
        if queued {
            self.out.extend_from_slice(value);
            self.out.extend_from_slice(end);
        }
        self.sent(n - rest);
        queued
    }

    /// Number of expected replies.
    pub fn in_flight(&self) -> usize {
        self.flights.len() - self.gaps.count
    }

    /// Whether the stream is out of sync: no reply will come, and the connection is to be closed.
    pub fn is_broken(&self) -> bool {
        self.broken
    }

    /// Whether nothing is in flight, unread or unsent, and the stream is in sync: the connection
    /// may be pooled.
    pub fn is_quiet(&self) -> bool {
        self.is_answered() && self.unsent().is_empty()
    }

    /// Whether nothing is in flight or unread, and the stream is in sync: the next reply will be to
    /// the next command. A part of a command that got its reply early may be unsent.
    pub fn is_answered(&self) -> bool {
        !self.broken && self.flights.is_empty() && self.decoder.is_empty()
    }

    /// Where to receive the next bytes: the line buffer or, within a large value, the value's own
    /// buffer, which has exactly its size.
    pub fn read_buf(&mut self) -> ReadBuf<'_> {
        let idle = self.flights.is_empty();
        if self.decoder.read_buf().1 == 0 {
            if idle {
                self.broken = true;
            } else {
                self.decoder.fail(Malformed::NoMemory);
            }
        }
        let (buf, max) = self.decoder.read_buf();
        ReadBuf { buf, max }
    }

    /// The next exchange that was received completely. To be called after each read until it
    /// returns `None`.
    pub fn next_reply(&mut self) -> Option<(T, Reply)> {
        if self.broken {
            return None;
        }
        let flight = self.flights.front()?;
        let at = |position: u64| usize::try_from(position.saturating_sub(self.base)).ok();
        let (start, end) = (at(flight.start)?, at(flight.end)?);
        let (reply, framing) = if start >= self.sent && !self.decoder.is_empty() {
            let said = self.unasked_error().map(|line| Reply::Line(line.to_vec()));
            let unsolicited = Reply::Malformed(Malformed::Unsolicited);
            (said.unwrap_or(unsolicited), Framing::OutOfSync)
        } else {
            let keys = self.out.get(start..end).unwrap_or_default();
            self.decoder.reply(flight.kind, keys)?
        };
        let tag = flight.tag;
        self.lists -= usize::from(flight.kind.is_list());
        self.flights.pop_front();
        self.broken = framing == Framing::OutOfSync;
        if self.gaps.count > 0 {
            self.drop_ends();
        }
        self.drop_answered();
        Some((tag, reply))
    }

    /// Whether a part of the next reply was received.
    pub fn is_amid_reply(&self) -> bool {
        self.decoder.is_amid_reply()
    }

    /// Whether a large value is being received.
    pub fn is_amid_value(&self) -> bool {
        self.decoder.is_amid_value()
    }

    /// Drops the exchanges in flight, whose replies nobody waits for any more. If there are any,
    /// the pipeline is broken.
    pub fn drop_in_flight(&mut self) {
        self.close_gaps();
        self.broken |= !self.flights.is_empty();
        self.flights.clear();
        self.lists = 0;
        self.decoder.reset();
        self.drop_answered();
    }

    /// Received bytes that no exchange has consumed.
    pub fn buffered(&self) -> &[u8] {
        self.decoder.unread()
    }

    /// The error line at the beginning of the [`buffered`](Self::buffered) bytes, without its line
    /// end, if it answers no command. Servers that have too many connections send one and close.
    pub fn unasked_error(&self) -> Option<&[u8]> {
        self.decoder.error_line()
    }

    /// Consumes `n` of the [`buffered`](Self::buffered) bytes.
    pub fn consume(&mut self, n: usize) {
        self.decoder.consume(n);
    }

    /// Frees memory that a connection should not keep when it gets idle for a moment.
    pub fn trim(&mut self) {
        self.drop_answered();
        if self.out.capacity() > DROP_FRONT {
            self.out.shrink_to(DROP_FRONT);
        }
    }

    /// Frees memory that an idle connection does not need.
    pub fn shrink(&mut self) {
        self.drop_answered();
        self.out.shrink_to(IDLE_OUT);
        self.flights.shrink_to(IDLE_FLIGHTS);
        self.decoder.shrink();
    }

    /// Drops text whose reply has come.
    fn drop_answered(&mut self) {
        let answered = match self.flights.front() {
            Some(flight) => usize::try_from(flight.start.saturating_sub(self.base)).unwrap_or(0),
            None => self.out.len(),
        };
        let done = answered.min(self.sent);
        if done == self.out.len() {
            self.out.clear();
        } else if done >= DROP_FRONT && done >= self.out.len() / 2 {
            self.out.drain(..done);
        } else {
            return;
        }
        self.base += done as u64;
        self.sent -= done;
    }
}

mod flight;
mod sharing;

pub use flight::Exchange;

#[cfg(test)]
mod gap_tests;
#[cfg(test)]
mod position_tests;
#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod server_tests;
#[cfg(test)]
mod sharing_tests;
#[cfg(test)]
mod tests;
