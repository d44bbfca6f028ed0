//! What is in flight.

use crate::protocol::expect::Kind;

/// An exchange in flight.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Exchange<T> {
    /// In the order in which the exchanges were submitted.
    pub number: u64,
    /// Whose it is.
    pub tag: T,
    /// Some of its command was sent, or all.
    pub begun: bool,
    /// It changes nothing in the server, and nothing of its reply was received.
    pub repeatable: bool,
    /// It is a `get` or `gets` with several keys.
    pub is_list: bool,
}

/// A command whose reply did not come yet; of kind `Nothing`: one that was withdrawn.
pub(super) struct Flight<T> {
    pub tag: T,
    pub number: u64,
    pub kind: Kind,
    /// Where its command begins in the stream of sent bytes. It ends where the next one begins.
    pub begin: u64,
    /// Its keys, or only its beginning, as positions in the stream of sent bytes.
    pub start: u64,
    pub end: u64,
}

impl<T> Flight<T> {
    /// It was not withdrawn.
    pub fn is_live(&self) -> bool {
        self.kind != Kind::Nothing
    }
}

/// What was withdrawn and is still there.
pub(super) struct Gaps {
    /// Its text begins in the stream of sent bytes not before this position.
    pub from: u64,
    /// Bytes of text.
    pub size: usize,
    /// Exchanges.
    pub count: usize,
}

impl Gaps {
    pub const NONE: Self = Gaps {
        from: u64::MAX,
        size: 0,
        count: 0,
    };
}
