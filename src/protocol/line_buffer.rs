//! Received bytes, cut into lines without rescanning.

use std::ops::Range;

/// Capacity in bytes from the first read on. A list of a hundred small values takes one read.
const CAPACITY: usize = 16 * 1024;

/// Minimum room in bytes for a read.
const MIN_ROOM: usize = 4 * 1024;

/// A buffer that is appended to at the end and consumed from the front. `pos <= scanned <=
/// bytes.len()`.
#[derive(Default)]
pub(super) struct LineBuffer {
    bytes: Vec<u8>,
    /// First unread byte.
    pos: usize,
    /// First byte that was not searched for a line feed.
    scanned: usize,
}

/// A search for the next line.
#[derive(PartialEq, Eq, Debug)]
pub(super) enum Next {
    Incomplete,
    TooLong,
    /// Consumed; the range, without line end, is for [`LineBuffer::text`].
    Line(Range<usize>),
}

impl LineBuffer {
    pub fn unread(&self) -> &[u8] {
        self.bytes.get(self.pos..).unwrap_or_default()
    }

    pub fn is_empty(&self) -> bool {
        self.pos >= self.bytes.len()
    }

    pub fn consume(&mut self, n: usize) {
        self.pos = self.pos.saturating_add(n).min(self.bytes.len());
        self.scanned = self.scanned.max(self.pos);
    }

    /// A consumed line; valid until the next call of [`room`](Self::room) or [`push`](Self::push).
    pub fn text(&self, range: Range<usize>) -> &[u8] {
        self.bytes.get(range).unwrap_or_default()
    }

    /// Consumes the next line, of at most `max` bytes without its line end. That is LF, with or
    /// without one CR before it.
    pub fn line(&mut self, max: usize) -> Next {
        let fresh = self.bytes.get(self.scanned..).unwrap_or_default();
        let Some(at) = memchr::memchr(b'\n', fresh) else {
            self.scanned = self.bytes.len();
            // One more byte may be the CR.
            return match self.unread().len() > max.saturating_add(1) {
                true => Next::TooLong,
                false => Next::Incomplete,
            };
        };
        let line_feed = self.scanned + at;
        let mut line = self.pos..line_feed;
        if let Some(b"\r") = line_feed
            .checked_sub(1)
            .and_then(|at| self.bytes.get(at.max(self.pos)..line_feed))
        {
            line.end -= 1;
        }
        self.consume(line_feed + 1 - self.pos);
        match line.len() > max {
            true => Next::TooLong,
            false => Next::Line(line),
        }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.make_room();
        self.bytes.extend_from_slice(bytes);
    }

    /// The buffer to append to, and the maximum number of bytes; 0 if there is no memory.
    pub fn room(&mut self) -> (&mut Vec<u8>, usize) {
        self.make_room();
        let len = self.bytes.len();
        if self.bytes.capacity() - len < MIN_ROOM {
            let reserved = match CAPACITY.saturating_sub(len) {
                room @ MIN_ROOM.. => self.bytes.try_reserve_exact(room),
                _ => self.bytes.try_reserve(MIN_ROOM),
            };
            if reserved.is_err() {
                return (&mut self.bytes, 0);
            }
        }
        let room = self.bytes.capacity() - len;
        (&mut self.bytes, room)
    }

    /// Moves the unread bytes to the front if there is little room at the end. The unread rest of a
    /// protocol stream is small, so a byte is moved about once.
    fn make_room(&mut self) {
        if self.is_empty() {
            self.bytes.clear();
        } else if self.pos > 0 && self.bytes.capacity() - self.bytes.len() < MIN_ROOM {
            self.bytes.drain(..self.pos);
        } else {
            return;
        }
        self.scanned -= self.pos;
        self.pos = 0;
    }

    /// Frees memory beyond what a connection usually needs.
    pub fn shrink(&mut self) {
        self.make_room();
        self.bytes.shrink_to(CAPACITY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holding(bytes: &[u8]) -> LineBuffer {
        let mut buffer = LineBuffer::default();
        buffer.room().0.extend_from_slice(bytes);
        buffer
    }

    #[test]
    fn a_line_ends_at_lf_and_loses_one_cr() {
        for (bytes, line, rest) in [
            ("a\r\nb", "a", "b"),
            ("a\nb", "a", "b"),
            ("\r\n", "", ""),
            ("\n", "", ""),
            ("a\r\r\n", "a\r", ""),
            ("a\rb\n\n", "a\rb", "\n"),
        ] {
            let mut buffer = holding(bytes.as_bytes());
            let Next::Line(range) = buffer.line(8) else {
                panic!("no line in {bytes:?}");
            };
            assert_eq!(buffer.text(range), line.as_bytes());
            assert_eq!(buffer.unread(), rest.as_bytes());
        }
    }

    #[test]
    fn a_consumed_cr_is_no_part_of_the_next_line_end() {
        let mut buffer = holding(b"\r\nx");
        buffer.consume(1);
        assert_eq!(buffer.line(8), Next::Line(1..1));
        assert_eq!(buffer.unread(), b"x");
    }

    #[test]
    fn no_byte_is_searched_twice() {
        let mut buffer = holding(b"first\nsec");
        assert_eq!(buffer.line(8), Next::Line(0..5));
        assert_eq!(buffer.line(8), Next::Incomplete);
        assert_eq!(buffer.scanned, 9);
        // Nor after the bytes have moved.
        let room = buffer.room().1;
        buffer.bytes.extend_from_slice(&vec![b'x'; room - 1]);
        assert_eq!(buffer.line(1 << 20), Next::Incomplete);
        let unread = buffer.unread().len();
        assert!(buffer.room().1 >= MIN_ROOM);
        assert_eq!((buffer.pos, buffer.scanned), (0, unread));
    }

    #[test]
    fn room_is_made_once() {
        let mut buffer = holding(b"x\n");
        assert_eq!(buffer.bytes.capacity(), CAPACITY);
        for _ in 0..10_000 {
            assert!(matches!(buffer.line(8), Next::Line(_)));
            buffer.room().0.extend_from_slice(b"some\n");
        }
        assert_eq!(buffer.bytes.capacity(), CAPACITY);
    }

    #[test]
    fn a_line_may_have_the_limit_and_no_byte_more() {
        for (bytes, found) in [
            (&b"12345678"[..], Next::Incomplete),
            (b"12345678\r", Next::Incomplete),
            (b"123456789", Next::Incomplete),
            (b"1234567890", Next::TooLong),
            (b"12345678\n", Next::Line(0..8)),
            (b"12345678\r\n", Next::Line(0..8)),
            (b"123456789\n", Next::TooLong),
            (b"12345678\r\r\n", Next::TooLong),
        ] {
            assert_eq!(holding(bytes).line(8), found, "{bytes:?}");
        }
    }

    #[test]
    fn there_is_room_for_4_kib_at_least() {
        let mut buffer = LineBuffer::default();
        let (bytes, room) = buffer.room();
        assert_eq!((bytes.capacity(), room), (16 * 1024, 16 * 1024));
        buffer.push(&[b'x'; 12 * 1024]);
        assert_eq!(buffer.room().1, 4 * 1024);
        assert_eq!(buffer.bytes.capacity(), 16 * 1024);
        buffer.push(b"x");
        let (bytes, room) = buffer.room();
        assert!(bytes.capacity() > 16 * 1024);
        assert_eq!(room, bytes.capacity() - (12 * 1024 + 1));
        assert!(room >= 4 * 1024);
    }

    #[test]
    fn bytes_move_when_room_is_short_and_not_before() {
        let mut buffer = holding(&[b'x'; 12 * 1024]);
        buffer.consume(10);
        assert_eq!(buffer.room().1, 4 * 1024);
        assert_eq!((buffer.pos, buffer.bytes.len()), (10, 12 * 1024));
        buffer.push(b"yz");
        assert_eq!(buffer.room().1, 4 * 1024 + 8);
        assert_eq!((buffer.pos, buffer.bytes.len()), (0, 12 * 1024 - 8));
        assert!(buffer.unread().ends_with(b"xyz"));
        assert_eq!(buffer.bytes.capacity(), 16 * 1024);
    }
}
