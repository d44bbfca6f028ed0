//! Commands collected before there is a connection.
//!
//! | file | subject |
//! |---|---|
//! | `part` | a part of them, for one of several servers |

mod part;

pub use part::Bound;

use std::ops::Range;

use super::command::Command;
use super::encode::encode;
use super::expect::Expect;
use super::refusal::{Refused, not_for_server};
use super::version::{Needs, Server};

/// Encoded commands and the replies to expect, in order.
#[derive(Debug, Default)]
pub struct Batch {
    text: Vec<u8>,
    slots: Vec<Expect>,
    /// Those that not every server has, in order.
    gated: Vec<Gated>,
    /// It has a command that must not go over a shared connection.
    private: bool,
}

/// A command that not every server has.
#[derive(Clone, Debug)]
struct Gated {
    /// Which of the expected replies is the one to it.
    slot: usize,
    /// Where it is in the text.
    text: Range<usize>,
    needs: Needs,
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
        if self.gated.try_reserve(1).is_err() {
            return Err(Refused::no_memory(command.word(), size_of::<Gated>()));
        }
        let begin = self.text.len();
        let expect = encode(command, &mut self.text)?;
        if let Command::Meta(meta) = command {
            self.gated.push(Gated {
                slot: self.slots.len(),
                text: begin..self.text.len(),
                needs: meta.needs(),
            });
        }
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
        copy.gated.try_reserve_exact(self.gated.len()).ok()?;
        copy.text.extend_from_slice(&self.text);
        copy.slots.extend_from_slice(&self.slots);
        copy.gated.extend_from_slice(&self.gated);
        copy.private = self.private;
        Some(copy)
    }

    /// Whether the server can do all of it.
    pub fn check(&self, server: Server) -> Result<(), Refused> {
        let refused = |answer| not_for_server("pipeline", answer);
        self.gated
            .iter()
            .try_for_each(|gated| server.allows(gated.needs))
            .map_err(refused)
    }

    /// Whether it matters what the server can do.
    pub fn is_gated(&self) -> bool {
        !self.gated.is_empty()
    }

    /// Takes out what the server cannot do. Tells which of the expected replies each was, in order,
    /// and what is answered instead.
    pub fn drop_unsupported(&mut self, server: Server, mut tell: impl FnMut(usize, Refused)) {
        // what stays moves down by what is gone before it
        let (mut text_gone, mut slots_gone) = (0, 0);
        let (mut text_from, mut slots_from) = (0, 0);
        let mut gated = std::mem::take(&mut self.gated);
        gated.retain_mut(|command| match server.allows(command.needs) {
            Ok(()) => {
                command.slot -= slots_gone;
                command.text.start -= text_gone;
                command.text.end -= text_gone;
                true
            }
            Err(unmet) => {
                tell(command.slot, not_for_server("pipeline", unmet));
                self.move_down(text_from..command.text.start, text_gone);
                self.move_slots_down(slots_from..command.slot, slots_gone, text_gone);
                (text_from, slots_from) = (command.text.end, command.slot + 1);
                text_gone += command.text.len();
                slots_gone += 1;
                false
            }
        });
        self.gated = gated;
        self.move_down(text_from..self.text.len(), text_gone);
        self.move_slots_down(slots_from..self.slots.len(), slots_gone, text_gone);
        self.text.truncate(self.text.len() - text_gone);
        self.slots.truncate(self.slots.len() - slots_gone);
    }

    fn move_down(&mut self, text: Range<usize>, by: usize) {
        let to = text.start - by;
        self.text.copy_within(text, to);
    }

    fn move_slots_down(&mut self, slots: Range<usize>, by: usize, text: usize) {
        for at in slots {
            if let Some(slot) = self.slots.get(at).copied()
                && let Some(to) = self.slots.get_mut(at - by)
            {
                *to = slot.offset_back(text);
            }
        }
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

    use crate::protocol::{Key, Meta, MetaDelete, MetaGet, MetaOp, Version};

    fn version(patch: u16) -> Server {
        Server::Memcached(Version::new(1, 6, patch))
    }

    fn before(server: Server, patch: u16) -> bool {
        matches!(server, Server::Memcached(is) if is < Version::new(1, 6, patch))
    }

    /// A `mg`, or a `md` that is not for old servers.
    fn meta(opaque: u32, newer: bool) -> Meta<'static> {
        let delete = MetaDelete {
            drop_value: true,
            ..MetaDelete::default()
        };
        Meta {
            key: Key {
                bytes: b"k",
                escape: true,
            },
            opaque,
            op: match newer {
                true => MetaOp::Delete(delete),
                false => MetaOp::Get(MetaGet::default()),
            },
            bad: None,
        }
    }

    /// `v`: version, `q`: quit, which has no reply, `g`: mg, `d`: a newer md.
    fn batch(commands: &str) -> Batch {
        let mut batch = Batch::new();
        for (at, command) in (1..).zip(commands.chars()) {
            let meta = meta(at, command == 'd');
            let command = match command {
                'v' => Command::Version,
                'q' => Command::Quit,
                _ => Command::Meta(&meta),
            };
            batch.push(&command).unwrap();
        }
        batch
    }

    /// What is in a batch: for each reply that is expected, what was sent for it.
    fn shown(batch: &Batch) -> String {
        let text = |from: usize, to: usize| batch.text[from..to].escape_ascii().to_string();
        let all = batch.slots.iter().map(|slot| text(slot.start, slot.end));
        let gated = batch.gated.iter().map(|gated| {
            let text = text(gated.text.start, gated.text.end);
            format!("{}: {text}", gated.slot)
        });
        let all: Vec<_> = all.chain(gated).collect();
        format!("{}; {}", text(0, batch.text.len()), all.join(", "))
    }

    #[test]
    fn what_a_server_cannot_do_is_taken_out() {
        for (commands, server, gone, left) in [
            ("gvd", version(27), "", "gvd"),
            ("gvd", version(18), "2", "gv"),
            ("dgv", version(18), "0", "gv"),
            ("vdgd", version(18), "1,3", "vg"),
            ("ddd", version(18), "0,1,2", ""),
            ("vqdqvdg", version(18), "1,3", "vqqvg"),
            ("vgd", version(9), "1,2", "v"),
            ("v", version(9), "", "v"),
            ("", version(9), "", ""),
        ] {
            let mut batch = batch(commands);
            let mut told = Vec::new();
            batch.drop_unsupported(server, |slot, answer| told.push((slot, answer.to_string())));
            let slots: Vec<_> = told.iter().map(|(slot, _)| slot.to_string()).collect();
            assert_eq!(slots.join(","), gone, "{commands}");
            assert!(
                told.iter()
                    .all(|(_, answer)| answer.starts_with("not supported by memcached 1.6."))
            );
            // as if the others had never been there, but for their opaques
            let mut want = Batch::new();
            let kept = (1..).zip(commands.chars());
            for (at, command) in kept.filter(|(_, command)| {
                !(*command == 'd' && before(server, 27)
                    || *command != 'v' && *command != 'q' && before(server, 10))
            }) {
                let meta = meta(at, command == 'd');
                let command = match command {
                    'v' => Command::Version,
                    'q' => Command::Quit,
                    _ => Command::Meta(&meta),
                };
                want.push(&command).unwrap();
            }
            assert_eq!(shown(&batch), shown(&want), "{commands}");
            assert_eq!(batch.slots, want.slots, "{commands}");
            assert_eq!(batch.len(), left.replace('q', "").len());
            assert!(batch.check(server).is_ok());
        }
    }

    #[test]
    fn a_batch_is_checked_for_its_server() {
        let answer = |batch: &Batch, server| batch.check(server).map_err(|no| no.to_string());
        let unknown = Err("the version of the server is unknown".to_owned());
        assert_eq!(answer(&batch("vq"), Server::Unknown), Ok(()));
        assert_eq!(answer(&batch("vg"), Server::Unknown), unknown);
        assert_eq!(answer(&batch("vg"), version(18)), Ok(()));
        let refused = Err("not supported by memcached 1.6.18: drop_value".to_owned());
        assert_eq!(answer(&batch("vgd"), version(18)), refused);
        assert_eq!(
            batch("d").check(version(18)).unwrap_err().why,
            "pipeline: not supported by memcached 1.6.18: drop_value"
        );
        assert!(!batch("vq").is_gated() && batch("vg").is_gated());
        let copy = batch("vgd").try_clone().unwrap();
        assert_eq!(shown(&copy), shown(&batch("vgd")));
    }
}
