//! Commands collected before there is a connection.

use super::command::{Command, encode};
use super::expect::Expect;
use super::refusal::Refused;

/// Encoded commands with what their replies look like, in order.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    text: Vec<u8>,
    slots: Vec<Expect>,
    /// It has a command that is only for a connection of one's own.
    private: bool,
}

impl Batch {
    /// An empty batch; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a command. A refused one leaves the batch as it was.
    pub fn push(&mut self, command: &Command<'_>) -> Result<(), Refused> {
        let expect = encode(command, &mut self.text)?;
        self.private |= !command.can_share();
        if expect.has_reply() {
            self.slots.push(expect);
        }
        Ok(())
    }

    /// Number of replies to come.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no reply is to come.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether all of it may go over a connection that others use as well.
    pub fn can_share(&self) -> bool {
        !self.private
    }

    /// Length of the encoded commands in bytes.
    pub fn text_len(&self) -> usize {
        self.text.len()
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    pub(super) fn slots(&self) -> &[Expect] {
        &self.slots
    }
}
