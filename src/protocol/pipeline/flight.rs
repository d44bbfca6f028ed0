//! Exchanges in flight.

use crate::protocol::expect::ReplyKind;

/// An exchange in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchange<T> {
    /// In the order in which the exchanges were submitted.
    pub number: u64,
    /// Tells the caller whose exchange it is.
    pub tag: T,
    /// At least a part of its command was sent.
    pub begun: bool,
    /// It changes nothing in the server, and nothing of its reply was received.
    pub repeatable: bool,
    /// It is a `get` or `gets` with several keys.
    pub is_list: bool,
}

/// A command whose reply has not come yet. Its kind is `Nothing` if it was withdrawn.
pub(super) struct InFlight<T> {
    pub tag: T,
    pub number: u64,
    pub kind: ReplyKind,
    /// Where its command begins in the stream of sent bytes. It ends where the next one begins.
    pub begin: u64,
    /// Its keys, or only its beginning, as positions in the stream of sent bytes.
    pub start: u64,
    pub end: u64,
}

impl<T> InFlight<T> {
    /// Whether it was not withdrawn.
    pub fn is_live(&self) -> bool {
        self.kind != ReplyKind::Nothing
    }
}

/// Withdrawn exchanges that were not removed yet.
pub(super) struct Gaps {
    /// A position in the stream of sent bytes; none of their text is before it.
    pub from: u64,
    /// Length of their text in bytes.
    pub size: usize,
    /// Their number.
    pub count: usize,
}

impl Gaps {
    pub const NONE: Self = Gaps {
        from: u64::MAX,
        size: 0,
        count: 0,
    };
}
