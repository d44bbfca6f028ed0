//! Replies to meta commands, and what servers say of themselves.

use std::ops::Range;

use super::super::line::single;
use super::super::meta::reply::{Head, head};
use super::super::meta::{Asked, Word};
use super::{Decoded, Decoder, Framing, Malformed, Reply, ReplyKind, is_error, malformed};

impl Decoder {
    /// A line of a meta command's reply. `sent`: what was sent, from the key to the opaque.
    pub(super) fn meta(
        &mut self,
        line: Range<usize>,
        asked: Asked,
        sent: &[u8],
    ) -> Option<Decoded> {
        let text = self.input.text(line);
        if is_error(text) {
            // with other errors, the server may take the value for commands
            let in_sync = asked.verb != Word::Set || text.starts_with(b"SERVER_ERROR");
            let framing = if in_sync {
                Framing::InSync
            } else {
                Framing::OutOfSync
            };
            return Some((Reply::Line(text.to_vec()), framing));
        }
        let (len, item) = match head(text, asked, sent) {
            Ok(Head::Whole(reply)) => return Some((reply, Framing::InSync)),
            Ok(Head::Value(len, item)) => (len.number(), item),
            Ok(Head::Endless) => return Some(malformed(Malformed::LengthOutOfRange)),
            Err(what) => return Some(malformed(what)),
        };
        let most = self.limits.max_value;
        let room = self.partial.room_for_value(len, most, 0, &self.buffers);
        match room {
            Ok(len) => {
                self.partial.meta = Some((Box::new(item), asked.verb));
                self.partial.body = super::Body::Buffered(len);
                None
            }
            Err(what) => Some(malformed(what)),
        }
    }

    /// The reply to a meta command whose value was received.
    pub(super) fn meta_item(&mut self) -> Option<Decoded> {
        let (mut item, verb) = self.partial.meta.take()?;
        let data = std::mem::take(&mut self.partial.values.bytes);
        if verb == Word::Arith && super::Digits::parse(&data).is_none() {
            return Some(malformed(Malformed::NoNumber));
        }
        item.value = Some(data);
        Some((Reply::Meta(item), Framing::InSync))
    }

    /// The reply to `version` or `mn`, which tells what the server can do.
    pub(super) fn about_server(&mut self, line: Range<usize>, kind: ReplyKind) -> Decoded {
        let text = self.input.text(line);
        let decoded = single(kind, text);
        match (kind, &decoded.0) {
            (_, Reply::Version(version)) => self.server = self.server.with_version(version),
            (ReplyKind::MetaNoop, Reply::Done) => self.server = self.server.with_meta(true),
            (ReplyKind::MetaNoop, Reply::Line(line)) if is_error(line) => {
                self.server = self.server.with_meta(false);
                // what it says is known now
                return (Reply::Done, Framing::InSync);
            }
            _ => {}
        }
        decoded
    }
}
