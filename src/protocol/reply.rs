//! Replies as the caller sees them.

use std::ops::Range;

pub use super::number::Digits;

/// What a command brought.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The one value of a `get` or `gets`.
    Value(Value),
    /// No value for a `get` or `gets`.
    Miss,
    /// The values of a `get` or `gets` with a list, maybe none.
    Values(Values),
    /// STORED, DELETED, TOUCHED, OK.
    Done,
    /// The new number of an `incr` or `decr`.
    Number(Digits),
    /// The text behind VERSION, not empty.
    Version(Vec<u8>),
    /// The lines before END; `RESET` of `stats reset` and `OK` of `stats detail`.
    Stats(Vec<Vec<u8>>),
    /// Any other single line, without its line end: the method's error. Whether the connection
    /// is still in step says [`is_broken`](super::Pipeline::is_broken).
    Line(Vec<u8>),
    /// A reply that no server should send; the pipeline is broken.
    Malformed(Malformed),
}

/// A hit.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Value {
    /// The value's bytes.
    pub data: Vec<u8>,
    /// Client flags as received.
    pub flags: Digits,
    /// The version, from `gets`.
    pub cas: Option<Digits>,
}

/// Hits of one reply, in the order received.
#[derive(Clone, Default)]
pub struct Values {
    /// Keys and data of all hits, one behind the other.
    pub(super) bytes: Vec<u8>,
    pub(super) items: Vec<Item>,
}

/// Where a hit stands in the bytes of [`Values`].
#[derive(Clone, Copy)]
pub(super) struct Item {
    pub key: usize,
    pub data: usize,
    pub end: usize,
    pub flags: Digits,
    pub cas: Option<Digits>,
}

/// One of several hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hit<'a> {
    /// The key as the server returned it, escaped if it was sent so.
    pub key: &'a [u8],
    /// The value's bytes.
    pub data: &'a [u8],
    /// Client flags as received.
    pub flags: Digits,
    /// The version, from `gets`.
    pub cas: Option<Digits>,
}

impl Values {
    /// Number of hits.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether every key was a miss.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The hits in the order received.
    pub fn iter(&self) -> impl Iterator<Item = Hit<'_>> {
        let part = |range: Range<usize>| self.bytes.get(range).unwrap_or_default();
        self.items.iter().map(move |item| Hit {
            key: part(item.key..item.data),
            data: part(item.data..item.end),
            flags: item.flags,
            cas: item.cas,
        })
    }
}

impl PartialEq for Values {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Values {}

impl std::fmt::Debug for Values {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// What is wrong with a reply that does not fit its command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Malformed {
    /// No line end within the limit.
    #[error("bad reply: line too long")]
    LineTooLong,
    /// An announced value that is not accepted.
    #[error("bad reply: value of {announced} bytes exceeds the limit of {limit}")]
    ValueTooLarge {
        /// Bytes announced.
        announced: u64,
        /// Bytes accepted.
        limit: usize,
    },
    /// An announced length beyond 64 bits.
    #[error("bad reply: value length out of range")]
    LengthOutOfRange,
    /// A value for a key that was not asked for.
    #[error("bad reply: unexpected key")]
    UnexpectedKey,
    /// The announced length does not lead to a line end.
    #[error("bad reply: no CRLF after value")]
    NoCrlf,
    /// Something else than END, or the next value of a list, behind a value.
    #[error("bad reply: no END after value")]
    NoEnd,
    /// More values than keys were asked for.
    #[error("bad reply: more values than keys")]
    TooManyValues,
    /// Statistics without an end in sight.
    #[error("bad reply: statistics too long")]
    StatsTooLong,
    /// Bytes that no command asked for.
    #[error("bad reply: unsolicited data")]
    Unsolicited,
    /// There is no memory for the reply.
    #[error("no memory for the reply")]
    NoMemory,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the keys `a`, `b`, …
    fn values(texts: &[&str]) -> Values {
        let mut values = Values::default();
        for (n, text) in texts.iter().enumerate() {
            let key = values.bytes.len();
            values.bytes.push(b'a' + n as u8);
            let data = values.bytes.len();
            values.bytes.extend_from_slice(text.as_bytes());
            values.items.push(Item {
                key,
                data,
                end: values.bytes.len(),
                flags: Digits::from(n as u64),
                cas: None,
            });
        }
        values
    }

    #[test]
    fn hits_of_a_list() {
        assert!(values(&[]).is_empty());
        let two = values(&["x", ""]);
        assert_eq!((two.len(), two.is_empty()), (2, false));
        let hits: Vec<_> = two.iter().map(|hit| (hit.key, hit.data)).collect();
        assert_eq!(hits, [(&b"a"[..], &b"x"[..]), (b"b", b"")]);
        assert_eq!(two, values(&["x", ""]));
        assert_ne!(two, values(&["x", "y"]));
        assert_ne!(two, values(&["x"]));
        assert!(format!("{two:?}").starts_with("[Hit {"));
    }
}
