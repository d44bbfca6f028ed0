//! For shared connections: finds exchanges by number, withdraws them, and moves them to another
//! connection.

use super::Pipeline;
use super::flight::{Exchange, Gaps, InFlight};
use crate::protocol::expect::{Expect, ReplyKind};

impl<T: Copy> Pipeline<T> {
    /// Tags of the exchanges in flight, in the order in which their replies will come.
    pub fn tags(&self) -> impl Iterator<Item = T> {
        let live = self.flights.iter().filter(|flight| flight.is_live());
        live.map(|flight| flight.tag)
    }

    /// Tag of an exchange in flight.
    pub fn tag(&self, number: u64) -> Option<T> {
        let flight = self.flights.get(self.place(number)?)?;
        flight.is_live().then_some(flight.tag)
    }

    /// Number of the exchange whose reply comes next. They are numbered in the order in which they
    /// were submitted, from 0.
    pub fn oldest(&self) -> u64 {
        self.flights.front().map_or(self.next, |first| first.number)
    }

    /// Number that the next exchange will get.
    pub fn next_number(&self) -> u64 {
        self.next
    }

    /// Number of the last exchange in flight.
    pub fn newest(&self) -> Option<u64> {
        self.flights.back().map(|last| last.number)
    }

    /// Whether the whole command of an exchange was sent.
    pub fn is_sent(&self, number: u64) -> bool {
        match self.place(number) {
            Some(at) => self.unsent_from() >= self.text_end(at),
            None => number < self.oldest(),
        }
    }

    /// Number of the first exchange whose command was not sent as a whole.
    pub fn first_unsent(&self) -> u64 {
        let sent = self.unsent_from();
        let begun = self.flights.partition_point(|flight| flight.begin <= sent);
        let mut rest = self.flights.range(begun.saturating_sub(1)..);
        let first = rest.find(|flight| flight.is_live());
        first.map_or(self.next, |flight| flight.number)
    }

    /// Whether a part of the command of an exchange in flight was sent.
    pub fn has_begun(&self, number: u64) -> bool {
        let flight = self.place(number).and_then(|at| self.flights.get(at));
        flight.is_some_and(|flight| self.unsent_from() > flight.begin)
    }

    /// Whether a part of the oldest exchange's command was sent.
    #[inline(always)]
    pub fn has_begun_oldest(&self) -> bool {
        let sent = self.unsent_from();
        self.flights.front().is_some_and(|first| sent > first.begin)
    }

    /// Number of lists of keys in flight. It may be unknown where the reply to a list ends.
    pub fn lists(&self) -> usize {
        self.lists
    }

    /// Number of bytes that are still to be sent.
    pub fn unsent_len(&self) -> usize {
        self.out.len() - self.sent - self.gaps.size
    }

    /// The key on the wire of an exchange that is a `get` (or, with `cas`, a `gets`) of one key.
    pub fn single_get(&self, number: u64) -> Option<(&[u8], bool)> {
        self.get_of(self.flights.get(self.place(number)?)?)
    }

    /// The same of the last exchange.
    #[inline(always)]
    pub fn newest_get(&self) -> Option<(&[u8], bool)> {
        self.get_of(self.flights.back()?)
    }

    #[inline(always)]
    fn get_of(&self, flight: &InFlight<T>) -> Option<(&[u8], bool)> {
        match flight.kind {
            ReplyKind::Get {
                cas,
                touches: false,
            } => Some((self.text(flight.start, flight.end)?, cas)),
            _ => None,
        }
    }

    /// Undoes the last submission, unless a part of it was sent. Nobody may know the exchange's
    /// number yet.
    pub fn take_back(&mut self) {
        let unsent = self.unsent_from();
        if self
            .flights
            .back()
            .is_some_and(|last| last.begin >= unsent && last.number + 1 == self.next)
            && let Some(flight) = self.flights.pop_back()
        {
            self.next = flight.number;
            self.lists -= usize::from(flight.kind.is_list());
            self.cut(flight.begin);
            if self.gaps.count > 0 {
                self.drop_ends();
            }
        }
    }

    /// Withdraws an exchange before any of it is sent: it will not be sent, and no reply is
    /// expected. The others keep their numbers. False if a part of it was sent, or if it is not in
    /// flight. Not to be used together with raw bytes.
    ///
    /// A withdrawn exchange is only marked. It is removed when it is the first or the last one,
    /// when half of all exchanges are withdrawn, or by [`close_gaps`](Self::close_gaps). So
    /// withdrawing is cheap, however many exchanges there are.
    pub fn withdraw(&mut self, number: u64) -> bool {
        let unsent = self.unsent_from();
        let Some(at) = self.place(number) else {
            return false;
        };
        let end = self.text_end(at);
        let Some(flight) = self.flights.get_mut(at) else {
            return false;
        };
        if !flight.is_live() || flight.begin < unsent {
            return false;
        }
        self.lists -= usize::from(flight.kind.is_list());
        flight.kind = ReplyKind::Nothing;
        self.gaps.from = self.gaps.from.min(flight.begin);
        self.gaps.size += (end - flight.begin) as usize;
        self.gaps.count += 1;
        self.drop_ends();
        let unsent = self.out.len() - self.sent;
        if 2 * self.gaps.count > self.flights.len() || 2 * self.gaps.size > unsent {
            self.close_gaps();
        }
        self.drop_answered();
        true
    }

    /// Removes withdrawn exchanges at either end.
    pub(super) fn drop_ends(&mut self) {
        while let Some(last) = self.flights.back()
            && !last.is_live()
        {
            let begin = last.begin;
            self.forget_gap(begin, self.base + self.out.len() as u64);
            self.cut(begin);
            self.flights.pop_back();
        }
        while let Some(first) = self.flights.front()
            && !first.is_live()
        {
            if first.begin > self.unsent_from() {
                // the rest of a command that got its reply early precedes it
                return self.close_gaps();
            }
            let end = self.text_end(0);
            self.forget_gap(first.begin, end);
            self.sent = (end - self.base) as usize;
            self.flights.pop_front();
        }
        if self.gaps.count == 0 {
            self.gaps = Gaps::NONE;
        } else {
            self.gaps.from = self.gaps.from.max(self.unsent_from());
        }
    }

    fn forget_gap(&mut self, begin: u64, end: u64) {
        self.gaps.size -= (end - begin) as usize;
        self.gaps.count -= 1;
    }

    /// Removes withdrawn exchanges with their text.
    #[inline(always)]
    pub fn close_gaps(&mut self) {
        if self.gaps.count > 0 {
            self.close_all_gaps();
        }
    }

    #[cold]
    fn close_all_gaps(&mut self) {
        let first = self
            .flights
            .partition_point(|flight| flight.begin < self.gaps.from);
        let (mut kept, mut to) = (first, None);
        for at in first..self.flights.len() {
            let end = self.text_end(at);
            let Some(flight) = self.flights.get_mut(at) else {
                break;
            };
            let begin = flight.begin;
            let new = to.unwrap_or(begin);
            to = Some(new);
            if !flight.is_live() {
                continue;
            }
            let shift = begin - new;
            flight.begin -= shift;
            flight.start -= shift;
            flight.end -= shift;
            if shift > 0 {
                let (from, till) = ((begin - self.base) as usize, (end - self.base) as usize);
                self.out.copy_within(from..till, (new - self.base) as usize);
            }
            to = Some(new + (end - begin));
            self.flights.swap(kept, at);
            kept += 1;
        }
        if let Some(end) = to {
            self.cut(end);
        }
        self.flights.truncate(kept);
        self.gaps = Gaps::NONE;
    }

    /// The part of [`unsent`](Self::unsent) that precedes an exchange.
    pub fn unsent_before(&self, number: u64) -> &[u8] {
        let before = self
            .flights
            .partition_point(|flight| flight.number < number);
        let unsent = self.unsent();
        match self.flights.get(before) {
            None => unsent,
            Some(flight) => {
                let len = flight.begin.saturating_sub(self.unsent_from());
                let len = usize::try_from(len).unwrap_or(usize::MAX);
                unsent.get(..len).unwrap_or(unsent)
            }
        }
    }

    /// The exchanges in flight, in order.
    pub fn exchanges(&self) -> impl Iterator<Item = Exchange<T>> {
        let (sent, oldest) = (self.unsent_from(), self.oldest());
        let received = !self.broken && self.decoder.is_amid_reply();
        let live = self.flights.iter().filter(|flight| flight.is_live());
        live.map(move |flight| {
            let untouched = flight.number != oldest || !received;
            Exchange {
                number: flight.number,
                tag: flight.tag,
                begun: flight.begin < sent,
                repeatable: untouched && flight.kind.retrieval().is_some(),
                is_list: flight.kind.is_list(),
            }
        })
    }

    /// The exchanges of which a part is still to be sent: numbers and tags, in order.
    pub fn still_to_send(&self) -> impl Iterator<Item = (u64, T)> {
        let sent = self.unsent_from();
        let from = match self.has_begun_oldest() {
            // mostly, nothing of what is in flight was sent before the commands of an event loop
            // iteration are
            false => 0,
            true => {
                let whole = self.flights.partition_point(|flight| flight.begin < sent);
                // the end of the last command that has begun may be unsent
                match whole.checked_sub(1) {
                    Some(last) if self.text_end(last) > sent => last,
                    _ => whole,
                }
            }
        };
        let rest = self.flights.iter().skip(from);
        let live = rest.filter(|flight| flight.is_live());
        live.map(|flight| (flight.number, flight.tag))
    }

    /// Submits an exchange again that is in flight in the pipeline of another connection. Nothing
    /// of it may have been sent, or it only reads. Returns its number in this pipeline. `None` if
    /// it cannot be repeated, or if there is no memory.
    pub fn adopt(&mut self, tag: T, other: &Self, number: u64) -> Option<u64> {
        let at = other.place(number)?;
        let flight = other.flights.get(at)?;
        let begin = self.out.len();
        self.flights.try_reserve(1).ok()?;
        let (start, end) = match flight.kind.retrieval() {
            // only the keys are surely still in the buffer
            Some(word) => {
                let keys = other.text(flight.start, flight.end)?;
                let text = keys.len().saturating_add(b" \r\n".len());
                let room = text.saturating_add(word.len());
                self.out.try_reserve(room).ok()?;
                self.out.extend_from_slice(word.as_bytes());
                self.out.push(b' ');
                let start = self.out.len();
                self.out.extend_from_slice(keys);
                self.out.extend_from_slice(b"\r\n");
                (start, start + keys.len())
            }
            // what one server does, another one may misunderstand
            None if matches!(flight.kind, ReplyKind::Meta(_))
                && self.server() != other.server() =>
            {
                return None;
            }
            None if flight.begin < other.unsent_from() || !flight.is_live() => return None,
            None => {
                let command = other.text(flight.begin, other.text_end(at))?;
                self.out.try_reserve(command.len()).ok()?;
                self.out.extend_from_slice(command);
                let moved = |position: u64| begin + (position - flight.begin) as usize;
                (moved(flight.start), moved(flight.end))
            }
        };
        self.push_in_flight(
            tag,
            Expect {
                kind: flight.kind,
                begin,
                start,
                end,
            },
        );
        self.newest()
    }

    /// The index of an exchange in the queue.
    fn place(&self, number: u64) -> Option<usize> {
        let guess = usize::try_from(number.checked_sub(self.oldest())?).ok()?;
        match self.flights.get(guess) {
            Some(flight) if flight.number == number => Some(guess),
            // some before it were removed
            _ => self
                .flights
                .binary_search_by_key(&number, |flight| flight.number)
                .ok(),
        }
    }

    /// Position in the stream of the first byte that was not sent.
    #[inline(always)]
    fn unsent_from(&self) -> u64 {
        self.base + self.sent as u64
    }

    /// Position in the stream after the command of the exchange at this index of the queue.
    fn text_end(&self, at: usize) -> u64 {
        let behind = self.flights.get(at + 1);
        behind.map_or(self.base + self.out.len() as u64, |flight| flight.begin)
    }

    /// The text between two positions, if it is still in the buffer.
    fn text(&self, from: u64, to: u64) -> Option<&[u8]> {
        let place = |at: u64| usize::try_from(at.checked_sub(self.base)?).ok();
        self.out.get(place(from)?..place(to)?)
    }

    /// Drops the text from a position on.
    fn cut(&mut self, from: u64) {
        let len = from.saturating_sub(self.base);
        self.out
            .truncate(usize::try_from(len).unwrap_or(usize::MAX));
    }
}
