//! A part of a batch, for one of several servers.

use super::{Batch, Gated};
use crate::protocol::expect::{Expect, ReplyKind};
use crate::protocol::meta::Word;
use crate::protocol::number::Digits;

/// What is sent in the place of an exptime.
pub type Bound<'a> = &'a dyn Fn(i64) -> i64;

/// Bytes by which a line may grow: two numbers of 64 bits, and a flag.
const GROWTH: usize = 64;

impl Batch {
    /// The key of each command that has a reply, as it is sent; of a list the first. `None`: it has
    /// no key.
    pub fn keys(&self) -> impl Iterator<Item = Option<&[u8]>> + Clone {
        self.slots.iter().map(|slot| {
            let keys = self.text.get(slot.start..slot.end).unwrap_or_default();
            let first = keys.split(|byte| *byte == b' ').next();
            first.filter(|key| !key.is_empty())
        })
    }

    /// The commands to which these of the expected replies are, in ascending order. With `bound`,
    /// each expiry that they set is changed. `None` if there is no memory.
    pub fn part(&self, slots: &[usize], bound: Option<Bound<'_>>) -> Option<Batch> {
        let mut part = Batch::new();
        let mut gated = self.gated.iter().peekable();
        part.slots.try_reserve_exact(slots.len()).ok()?;
        for slot in slots {
            let Some(expect) = self.slots.get(*slot) else {
                continue;
            };
            let (line, value) = self.command(expect);
            let room = line.len().saturating_add(value.len());
            part.text.try_reserve(room.saturating_add(GROWTH)).ok()?;
            let begin = part.text.len();
            match bound {
                None => part.text.extend_from_slice(line),
                Some(bound) => write_bounded(line, expect.kind, bound, &mut part.text),
            }
            let end = part.text.len();
            let behind_expiry = touches(expect.kind);
            let moved = |at: usize| {
                let at = at.saturating_sub(expect.begin);
                match behind_expiry {
                    // they are as far from the end as before
                    true => end.saturating_sub(line.len().saturating_sub(at)),
                    false => begin.saturating_add(at),
                }
            };
            part.slots.push(Expect {
                kind: expect.kind,
                begin,
                start: moved(expect.start),
                end: moved(expect.end),
            });
            part.text.extend_from_slice(value);
            part.private |= matches!(expect.kind, ReplyKind::Stats(_) | ReplyKind::Ok);
            while gated.next_if(|known| known.slot < *slot).is_some() {}
            if let Some(known) = gated.next_if(|known| known.slot == *slot) {
                part.gated.try_reserve(1).ok()?;
                part.gated.push(Gated {
                    slot: part.slots.len() - 1,
                    text: begin..part.text.len(),
                    needs: known.needs,
                });
            }
        }
        Some(part)
    }

    /// The text of a command: its line, and the value behind it.
    fn command(&self, expect: &Expect) -> (&[u8], &[u8]) {
        let text = self.text.get(expect.begin..).unwrap_or_default();
        let len = memchr::memchr(b'\n', text).map_or(text.len(), |end| end + 1);
        let (line, rest) = text.split_at(len);
        // which of its words is the length of the value
        let at = match expect.kind {
            ReplyKind::Store { .. } => 4,
            ReplyKind::Meta(asked) if asked.verb == Word::Set => 2,
            _ => return (line, b""),
        };
        let size = words(line).nth(at).and_then(Digits::parse);
        let size = size.and_then(|size| size.number()).unwrap_or_default() as usize;
        let end = b"\r\n".len().saturating_add(size);
        (line, rest.get(..end).unwrap_or(rest))
    }
}

/// The words of a line.
fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let line = line.strip_suffix(b"\r\n").unwrap_or(line);
    line.split(|byte| *byte == b' ')
}

/// Whether it is `gat`, whose expiry is before its keys.
fn touches(kind: ReplyKind) -> bool {
    matches!(
        kind,
        ReplyKind::Get { touches: true, .. } | ReplyKind::GetMany { touches: true, .. }
    )
}

/// Writes a line with its expiry changed. A meta command that says none gets one: without, the item
/// would never expire.
fn write_bounded(line: &[u8], kind: ReplyKind, bound: Bound<'_>, out: &mut Vec<u8>) {
    // which word is an exptime, or from which on the flags may have one
    let (exptime, flags) = match kind {
        kind if touches(kind) => (Some(1), None),
        ReplyKind::Touch => (Some(2), None),
        ReplyKind::Store { .. } => (Some(3), None),
        ReplyKind::Meta(asked) if asked.verb == Word::Set => (None, Some(4)),
        ReplyKind::Meta(_) => (None, Some(3)),
        _ => return out.extend_from_slice(line),
    };
    // append and prepend keep the expiry that there is
    let says = |word: &[u8]| word.starts_with(b"T") || matches!(word, b"MA" | b"MP");
    let adds = flags == Some(4) && !words(line).skip(4).any(says);
    for (at, word) in words(line).enumerate() {
        if at > 0 {
            out.push(b' ');
        }
        let is_flag = flags.is_some_and(|flags| at >= flags);
        match word {
            [letter @ (b'T' | b'N'), number @ ..] if is_flag => {
                out.push(*letter);
                write_number(number, bound, out);
            }
            number if exptime == Some(at) => write_number(number, bound, out),
            word => out.extend_from_slice(word),
        }
        if adds && at == 3 {
            out.extend_from_slice(b" T");
            write_number(b"0", bound, out);
        }
    }
    out.extend_from_slice(b"\r\n");
}

fn write_number(text: &[u8], bound: Bound<'_>, out: &mut Vec<u8>) {
    let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    match number.map(|number: i64| (number, bound(number))) {
        Some((number, bounded)) if bounded != number => {
            if bounded < 0 {
                out.push(b'-');
            }
            out.extend_from_slice(Digits::from(bounded.unsigned_abs()).as_bytes());
        }
        _ => out.extend_from_slice(text),
    }
}

#[cfg(test)]
mod tests;
