//! Replies as the caller sees them.

use std::ops::Range;

pub use super::number::Digits;

/// The reply to a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Reply {
    /// The one value of a `get` or `gets`.
    Value(Value),
    /// No value for a `get` or `gets`.
    Miss,
    /// The values of a `get` or `gets` with a list; may be empty.
    Values(Values),
    /// STORED, DELETED, TOUCHED, OK.
    Done,
    /// The new number of an `incr` or `decr`.
    Number(Digits),
    /// The item of a meta command that succeeded: of what was asked for, what it has.
    Meta(Box<MetaItem>),
    /// The text after VERSION, not empty.
    Version(Vec<u8>),
    /// The lines before END; `RESET` of `stats reset` and `OK` of `stats detail`.
    Stats(Vec<Vec<u8>>),
    /// Any other single line, without its line end: the method's error.
    /// [`is_broken`](super::Pipeline::is_broken) says whether the connection is still in sync.
    Line(Vec<u8>),
    /// A reply that no server should send; the pipeline is broken.
    Malformed(Malformed),
}

impl Reply {
    /// Whether it is ERROR, CLIENT_ERROR or SERVER_ERROR, alone or followed by a text.
    pub fn is_error(&self) -> bool {
        matches!(self, Reply::Line(line) if is_error(line))
    }
}

/// ERROR, CLIENT_ERROR or SERVER_ERROR, alone or followed by a text.
pub(super) fn is_error(line: &[u8]) -> bool {
    let word = line.split(|&byte| byte == b' ').next().unwrap_or_default();
    matches!(word, b"ERROR" | b"CLIENT_ERROR" | b"SERVER_ERROR")
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

/// An item as the reply to a meta command describes it. What was not asked for is not there.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct MetaItem {
    /// The value's bytes.
    pub value: Option<Vec<u8>>,
    /// Client flags as received.
    pub flags: Option<Digits>,
    /// The version.
    pub cas: Option<Digits>,
    /// Seconds that remain; -1: it does not expire, 0: it is about to.
    pub ttl: Option<i32>,
    /// The value's length in bytes.
    pub size: Option<u64>,
    /// It was read before.
    pub hit: Option<bool>,
    /// Seconds since the last access.
    pub last_access: Option<u64>,
    /// This client is to make a new value.
    pub won: bool,
    /// The value is out of date.
    pub stale: bool,
    /// Another client is to make a new value.
    pub lost: bool,
}

/// The hits of one reply, in the order received.
#[derive(Clone, Default)]
pub struct Values {
    /// For each hit what follows the word `VALUE`: `<key> <flags> <bytes>[ <cas unique>]`, CRLF and
    /// the data. Bytes between hits are ignored.
    pub(super) bytes: Vec<u8>,
    pub(super) items: Vec<Item>,
}

/// The position of a hit in the bytes of [`Values`].
#[derive(Clone, Copy)]
pub(super) struct Item {
    /// First byte of the key. The flags follow after a space.
    pub key: usize,
    /// First byte of the data; the cas unique, if there is one, ends at the CRLF before it.
    pub data: usize,
    pub end: usize,
    /// Lengths in bytes. They are parts of a line; numbers have at most 20 digits.
    pub key_len: u32,
    pub flags_len: u8,
    /// 0 if there is none.
    pub cas_len: u8,
}

/// One of several hits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hit<'a> {
    /// The key as the server returned it, escaped if it was sent so.
    pub key: &'a [u8],
    /// The value's bytes.
    pub data: &'a [u8],
    /// Client flags as received: 1 to 20 digits.
    pub flags: &'a [u8],
    /// The version, from `gets`: 1 to 20 digits.
    pub cas: Option<&'a [u8]>,
}

impl Item {
    /// The position of a hit with these fields and no data. Its key begins at `key`; its data will
    /// begin at `data`.
    pub fn new(name: &[u8], flags: &[u8], cas: Option<&[u8]>, key: usize, data: usize) -> Self {
        Item {
            key,
            data,
            end: data,
            key_len: name.len() as u32,
            flags_len: flags.len() as u8,
            cas_len: cas.map_or(0, <[u8]>::len) as u8,
        }
    }
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
        self.items.iter().map(move |item| {
            let key_end = item.key + item.key_len as usize;
            let flags = key_end + 1;
            let head_end = item.data.saturating_sub(b"\r\n".len());
            let cas_len = usize::from(item.cas_len);
            let cas = head_end.saturating_sub(cas_len)..head_end;
            Hit {
                key: part(item.key..key_end),
                data: part(item.data..item.end),
                flags: part(flags..flags + usize::from(item.flags_len)),
                cas: (cas_len > 0).then(|| part(cas)),
            }
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
    /// There is no line end after the announced length.
    #[error("bad reply: no CRLF after value")]
    NoCrlf,
    /// Something else than END, or the next value of a list, after a value.
    #[error("bad reply: no END after value")]
    NoEnd,
    /// A meta command's reply to another command.
    #[error("bad reply: unexpected opaque")]
    UnexpectedOpaque,
    /// A meta command's reply without a flag that was asked for, or with others.
    #[error("bad reply: unexpected flags")]
    UnexpectedFlags,
    /// A line that is no reply to a meta command.
    #[error("bad reply: unexpected line")]
    UnexpectedLine,
    /// Something else than a number for a meta command that counts.
    #[error("bad reply: value is not a number")]
    NoNumber,
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
            let head = format!("{} {n} {} 1{n}\r\n", char::from(b'a' + n as u8), text.len());
            values.bytes.extend_from_slice(head.as_bytes());
            let data = values.bytes.len();
            values.bytes.extend_from_slice(text.as_bytes());
            values.items.push(Item {
                key,
                data,
                end: values.bytes.len(),
                key_len: 1,
                flags_len: 1,
                cas_len: if n == 0 { 0 } else { 2 },
            });
        }
        values
    }

    #[test]
    fn error_lines() {
        for text in [
            "ERROR",
            "CLIENT_ERROR",
            "SERVER_ERROR out of memory",
            "ERROR  ",
        ] {
            assert!(Reply::Line(text.into()).is_error(), "{text}");
        }
        for text in [
            "",
            "NOT_FOUND",
            "ERRORS",
            "error",
            " ERROR",
            "a SERVER_ERROR",
        ] {
            assert!(!Reply::Line(text.into()).is_error(), "{text}");
        }
        assert!(!Reply::Done.is_error());
    }

    #[test]
    fn hits_of_a_list() {
        assert!(values(&[]).is_empty());
        let two = values(&["x", ""]);
        assert_eq!((two.len(), two.is_empty()), (2, false));
        let hits: Vec<_> = two.iter().map(|hit| (hit.key, hit.data)).collect();
        assert_eq!(hits, [(&b"a"[..], &b"x"[..]), (b"b", b"")]);
        let fields: Vec<_> = two.iter().map(|hit| (hit.flags, hit.cas)).collect();
        assert_eq!(fields, [(&b"0"[..], None), (b"1", Some(&b"11"[..]))]);
        assert_eq!(two, values(&["x", ""]));
        assert_ne!(two, values(&["x", "y"]));
        assert_ne!(two, values(&["x"]));
        assert!(format!("{two:?}").starts_with("[Hit {"));
    }
}
