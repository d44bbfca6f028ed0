//! Commands and their arguments.

use super::key::Key;
use super::meta::{Meta, MetaOp};

/// Storage commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verb {
    /// Store.
    Set,
    /// Store if the key is absent.
    Add,
    /// Store if the key is present.
    Replace,
    /// Add to the end of a present value.
    Append,
    /// Add to the beginning of a present value.
    Prepend,
    /// Store if nobody else did since the `cas unique` was read.
    Cas,
}

impl Verb {
    fn word(self) -> &'static str {
        match self {
            Verb::Set => "set",
            Verb::Add => "add",
            Verb::Replace => "replace",
            Verb::Append => "append",
            Verb::Prepend => "prepend",
            Verb::Cas => "cas",
        }
    }
}

/// Arithmetic commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arith {
    /// Add; wraps at 64 bits.
    Incr,
    /// Subtract; stops at 0.
    Decr,
}

/// An argument as the user gave it; `None` is Lua's nil.
pub type Arg<'a> = Option<&'a [u8]>;

/// Keys of one retrieval. Empty keys are misses and are not sent.
pub type KeyList<'a> = &'a [Key<'a>];

/// One command, its arguments as text.
#[derive(Clone, Copy, Debug)]
pub enum Command<'a> {
    /// `get` or `gets` with one key.
    Get {
        /// The key.
        key: Key<'a>,
        /// Whether it is `gets`.
        cas: bool,
    },
    /// `get` or `gets` with several keys.
    GetMany {
        /// The keys.
        keys: KeyList<'a>,
        /// Whether it is `gets`.
        cas: bool,
    },
    /// `gat` or `gats` with one key.
    Gat {
        /// Signed, 64 bits, in seconds.
        exptime: Arg<'a>,
        /// The key.
        key: Key<'a>,
        /// Whether it is `gats`.
        cas: bool,
    },
    /// `gat` or `gats` with several keys.
    GatMany {
        /// Signed, 64 bits, in seconds.
        exptime: Arg<'a>,
        /// The keys.
        keys: KeyList<'a>,
        /// Whether it is `gats`.
        cas: bool,
    },
    /// A storage command.
    Store {
        /// Which one.
        verb: Verb,
        /// The key.
        key: Key<'a>,
        /// Unsigned, 32 bits.
        flags: &'a [u8],
        /// Signed, 64 bits, in seconds.
        exptime: &'a [u8],
        /// Unsigned, 64 bits; only read for `cas`.
        cas_unique: Arg<'a>,
        /// Any bytes.
        value: &'a [u8],
    },
    /// `delete`.
    Delete {
        /// The key.
        key: Key<'a>,
    },
    /// `incr` or `decr`.
    Arith {
        /// Which one.
        op: Arith,
        /// The key.
        key: Key<'a>,
        /// Unsigned, 64 bits.
        delta: Arg<'a>,
    },
    /// `touch`.
    Touch {
        /// The key.
        key: Key<'a>,
        /// Signed, 64 bits, in seconds.
        exptime: Arg<'a>,
    },
    /// `flush_all`.
    FlushAll {
        /// Signed, 64 bits, in seconds; nil or empty for at once.
        delay: Arg<'a>,
    },
    /// `stats`.
    Stats {
        /// Words separated by single spaces; nil or empty for the general statistics.
        args: Arg<'a>,
    },
    /// `version`.
    Version,
    /// A meta command.
    Meta(&'a Meta<'a>),
    /// `mn`: asks whether the server has meta commands.
    MetaNoop,
    /// `verbosity`.
    Verbosity {
        /// Unsigned.
        level: Arg<'a>,
    },
    /// `quit`: no reply, the server closes.
    Quit,
}

impl<'a> Command<'a> {
    /// Whether it may go over a shared connection: it does not close the connection or change its
    /// state, its reply has one grammar, and no proxy is known to close the connection in reply.
    pub fn can_share(&self) -> bool {
        !matches!(
            self,
            Command::Quit
                | Command::Verbosity { .. }
                | Command::Stats { .. }
                | Command::FlushAll { .. }
        )
    }

    /// Whether the default transform is applied to its keys.
    pub fn escapes(&self) -> bool {
        match self {
            Command::Get { key, .. }
            | Command::Gat { key, .. }
            | Command::Store { key, .. }
            | Command::Delete { key }
            | Command::Arith { key, .. }
            | Command::Touch { key, .. } => key.escape,
            Command::GetMany { keys, .. } | Command::GatMany { keys, .. } => {
                keys.first().is_some_and(|key| key.escape)
            }
            Command::Meta(meta) => meta.key.escape,
            _ => false,
        }
    }

    /// Whether a value follows its line.
    pub(super) fn stores(&self) -> bool {
        match self {
            Command::Store { .. } => true,
            Command::Meta(meta) => matches!(meta.op, MetaOp::Set(_)),
            _ => false,
        }
    }

    /// The value to be stored.
    pub fn value(&self) -> &'a [u8] {
        match self {
            Command::Store { value, .. } => value,
            Command::Meta(meta) => meta.value(),
            _ => b"",
        }
    }

    /// The command's word on the wire.
    pub fn word(&self) -> &'static str {
        match *self {
            Command::Get { cas, .. } | Command::GetMany { cas, .. } => retrieval(cas),
            Command::Gat { cas, .. } | Command::GatMany { cas, .. } => match cas {
                true => "gats",
                false => "gat",
            },
            Command::Store { verb, .. } => verb.word(),
            Command::Meta(meta) => meta.word(),
            Command::MetaNoop => "mn",
            Command::Delete { .. } => "delete",
            Command::Arith {
                op: Arith::Incr, ..
            } => "incr",
            Command::Arith {
                op: Arith::Decr, ..
            } => "decr",
            Command::Touch { .. } => "touch",
            Command::FlushAll { .. } => "flush_all",
            Command::Stats { .. } => "stats",
            Command::Version => "version",
            Command::Verbosity { .. } => "verbosity",
            Command::Quit => "quit",
        }
    }
}

pub(super) fn retrieval(cas: bool) -> &'static str {
    if cas { "gets" } else { "get" }
}
