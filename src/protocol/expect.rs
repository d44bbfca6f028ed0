//! What the encoder records for the decoder.

use super::command::retrieval;
use super::meta::Asked;

/// The reply a command asks for, and where the command's keys stand in the encoded text.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Expect {
    pub(super) kind: ReplyKind,
    /// First byte of the command in the buffer given to `encode`.
    pub(super) begin: usize,
    /// First byte of the keys in the buffer given to `encode`; without keys, of the command.
    pub(super) start: usize,
    /// The position after the last byte of the keys, which are separated by single spaces.
    pub(super) end: usize,
}

impl Expect {
    /// Whether the server replies at all. It does not reply to `quit`.
    pub fn has_reply(&self) -> bool {
        self.kind != ReplyKind::Nothing
    }

    /// The same for a text that begins `by` bytes later.
    pub(super) fn offset_by(self, by: usize) -> Self {
        Expect {
            begin: self.begin.saturating_add(by),
            start: self.start.saturating_add(by),
            end: self.end.saturating_add(by),
            ..self
        }
    }

    /// The same for a text that begins `by` bytes earlier.
    pub(super) fn offset_back(self, by: usize) -> Self {
        Expect {
            begin: self.begin.saturating_sub(by),
            start: self.start.saturating_sub(by),
            end: self.end.saturating_sub(by),
            ..self
        }
    }
}

/// Replies by their grammar.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum ReplyKind {
    /// One VALUE at most, then END. `cas`: the VALUE has the field. `touches`: it changes the
    /// expiry.
    Get { cas: bool, touches: bool },
    /// Up to `keys` VALUEs, then END.
    GetMany {
        cas: bool,
        touches: bool,
        keys: usize,
    },
    /// STORED, NOT_STORED; for the verb `cas` also EXISTS, NOT_FOUND.
    Store { cas: bool },
    /// DELETED, NOT_FOUND.
    Delete,
    /// A number, NOT_FOUND.
    Arith,
    /// TOUCHED, STORED, NOT_FOUND.
    Touch,
    /// OK.
    Ok,
    /// VERSION and a text.
    Version,
    /// A line of a meta command, and its value.
    Meta(Asked),
    /// MN.
    MetaNoop,
    /// Lines and END.
    Stats(Stats),
    /// No reply.
    Nothing,
}

impl ReplyKind {
    /// The command's word, if it is one that reads values and changes nothing.
    pub fn retrieval(self) -> Option<&'static str> {
        match self {
            ReplyKind::Get {
                cas,
                touches: false,
            }
            | ReplyKind::GetMany {
                cas,
                touches: false,
                ..
            } => Some(retrieval(cas)),
            _ => None,
        }
    }

    /// Whether several keys are requested. The reply of a proxy may go on after an error line.
    pub fn is_list(self) -> bool {
        matches!(self, ReplyKind::GetMany { keys: 2.., .. })
    }
}

/// How a `stats` reply ends.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Stats {
    /// Without arguments: at END.
    General,
    /// At END; `reset` at a first line RESET, `detail on` at a first line OK. memcached accepts
    /// abbreviations of some of these words, so the arguments alone do not tell.
    Special,
    /// `sizes_enable`, `sizes_disable`: at the status line, without END.
    SizesSwitch,
}
