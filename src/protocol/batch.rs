//! Commands collected before there is a connection.

use super::command::Command;
use super::encode::encode;
use super::expect::Expect;
use super::refusal::Refused;

/// Encoded commands and the replies to expect, in order.
#[derive(Debug, Default)]
pub struct Batch {
    text: Vec<u8>,
    slots: Vec<Expect>,
    /// It has a command that must not go over a shared connection.
    private: bool,
}

impl Batch {
    /// An empty batch; allocates nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a command. A refused one leaves the batch as it was.
    pub fn push(&mut self, command: &Command<'_>) -> Result<(), Refused> {
        if self.slots.try_reserve(1).is_err() {
            return Err(Refused::no_memory(command.word(), size_of::<Expect>()));
        }
        let expect = encode(command, &mut self.text)?;
        self.private |= !command.can_share();
        if expect.has_reply() {
            self.slots.push(expect);
        }
        Ok(())
    }

    /// A copy. `None` if there is no memory for it.
    pub fn try_clone(&self) -> Option<Self> {
        let mut copy = Self::new();
        copy.text.try_reserve_exact(self.text.len()).ok()?;
        copy.slots.try_reserve_exact(self.slots.len()).ok()?;
        copy.text.extend_from_slice(&self.text);
        copy.slots.extend_from_slice(&self.slots);
        copy.private = self.private;
        Some(copy)
    }

    /// Number of expected replies.
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// Whether no reply is expected.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Whether all commands may go over a shared connection.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_private_command_makes_a_batch_private() {
        let mut batch = Batch::new();
        assert!(batch.can_share());
        assert!(batch.push(&Command::Version).is_ok());
        assert!(batch.can_share());
        // a refused one is not in it
        assert!(batch.push(&Command::Verbosity { level: None }).is_err());
        assert!(batch.can_share());
        assert!(batch.push(&Command::Quit).is_ok());
        assert!(!batch.can_share());
        assert!(batch.push(&Command::Version).is_ok());
        assert!(!batch.can_share());
    }

    #[test]
    fn a_copy_has_all_of_it() {
        let mut batch = Batch::new();
        assert!(batch.push(&Command::Version).is_ok());
        assert!(batch.push(&Command::Quit).is_ok());
        let copy = batch.try_clone().unwrap();
        assert_eq!((copy.text(), copy.slots()), (batch.text(), batch.slots()));
        assert!(!copy.can_share() && Batch::new().try_clone().unwrap().can_share());
    }
}
