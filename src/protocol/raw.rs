//! Reads that bypass the protocol: `sock:receive()` of users who speak it themselves.

/// What is to be read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RawRead {
    /// A line up to LF. The LF and every CR are dropped.
    Line,
    /// This number of bytes.
    Exact(usize),
    /// All until the peer closes.
    All,
}

/// A read in progress. It takes bytes out of the buffer as they come. So each byte is examined
/// once, and the partial data is available after an error.
#[derive(Debug)]
pub struct RawReader {
    want: RawRead,
    data: Vec<u8>,
}

impl RawReader {
    /// A read that has not begun.
    pub fn new(want: RawRead) -> Self {
        RawReader {
            want,
            data: Vec::new(),
        }
    }

    /// What is to be read.
    pub fn want(&self) -> RawRead {
        self.want
    }

    /// Reserves room for what [`feed`](Self::feed) may take. False if there is no memory for it.
    #[must_use]
    pub fn make_room(&mut self, bytes: usize) -> bool {
        self.data.try_reserve(bytes).is_ok()
    }

    /// Takes bytes from the front of `buffered`. Returns their number, which the caller is to
    /// consume, and whether the read is complete. [`RawRead::All`] is complete only at the end of
    /// the stream.
    pub fn feed(&mut self, buffered: &[u8]) -> (usize, bool) {
        match self.want {
            RawRead::Line => {
                let end = memchr::memchr(b'\n', buffered);
                let line = end.map_or(buffered, |at| buffered.get(..at).unwrap_or_default());
                for piece in line.split(|&byte| byte == b'\r') {
                    self.data.extend_from_slice(piece);
                }
                (end.map_or(line.len(), |at| at + 1), end.is_some())
            }
            RawRead::Exact(len) => {
                let missing = len.saturating_sub(self.data.len());
                let part = buffered.get(..missing).unwrap_or(buffered);
                self.data.extend_from_slice(part);
                (part.len(), part.len() == missing)
            }
            RawRead::All => {
                self.data.extend_from_slice(buffered);
                (buffered.len(), false)
            }
        }
    }

    /// What was read: the result if complete, else the partial data.
    pub fn into_data(self) -> Vec<u8> {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds pieces; returns (data, bytes taken, complete).
    fn read(want: RawRead, pieces: &[&[u8]]) -> (Vec<u8>, usize, bool) {
        let mut reader = RawReader::new(want);
        let mut taken = 0;
        for piece in pieces {
            let (n, complete) = reader.feed(piece);
            taken += n;
            if complete {
                return (reader.into_data(), taken, true);
            }
            assert_eq!(n, piece.len());
        }
        (reader.into_data(), taken, false)
    }

    #[test]
    fn reads() {
        type Case<'a> = (RawRead, &'a [u8], &'a [u8], usize, bool);
        let cases: [Case<'_>; 12] = [
            (RawRead::Line, b"", b"", 0, false),
            (RawRead::Line, b"abc", b"abc", 3, false),
            (RawRead::Line, b"abc\r", b"abc", 4, false),
            (RawRead::Line, b"abc\ndef", b"abc", 4, true),
            (RawRead::Line, b"\ra\r\rbc\r\r\ndef", b"abc", 9, true),
            (RawRead::Line, b"\n", b"", 1, true),
            (RawRead::Exact(0), b"", b"", 0, true),
            (RawRead::Exact(0), b"abc", b"", 0, true),
            (RawRead::Exact(3), b"ab", b"ab", 2, false),
            (RawRead::Exact(3), b"a\r\nb", b"a\r\n", 3, true),
            (RawRead::All, b"", b"", 0, false),
            (RawRead::All, b"a\r\nb", b"a\r\nb", 4, false),
        ];
        for (want, input, data, taken, complete) in cases {
            assert_eq!(
                read(want, &[input]),
                (data.to_vec(), taken, complete),
                "{want:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn splits_do_not_matter(
            input in "[ab\r\n]{0,20}",
            len in 0usize..24,
            kind in 0..3,
        ) {
            let want = match kind {
                0 => RawRead::Line,
                1 => RawRead::Exact(len),
                _ => RawRead::All,
            };
            let whole = read(want, &[input.as_bytes()]);
            let single: Vec<&[u8]> = input.as_bytes().chunks(1).collect();
            if !single.is_empty() {
                let (data, taken, complete) = read(want, &single);
                // A read of nothing is complete before the first byte.
                prop_assert_eq!((data, taken, complete), whole);
            }
        }
    }

    #[test]
    fn what_is_wanted_stays() {
        let mut reader = RawReader::new(RawRead::Exact(2));
        reader.feed(b"a");
        assert_eq!(reader.want(), RawRead::Exact(2));
    }

    #[test]
    fn room_is_made_before() {
        let mut reader = RawReader::new(RawRead::All);
        assert!(reader.make_room(1000));
        assert!(reader.data.capacity() >= 1000);
        assert!(!reader.make_room(usize::MAX));
    }
}
