//! Encodes commands.

use super::check;
use super::command::{Command, Verb};
use super::expect::{Expect, ReplyKind, Stats};
use super::key::{Key, MAX_KEY_LEN};
use super::meta::{MetaOp, Words};
use super::number::Digits;
use super::refusal::Refused;

/// Appends the command to `out`. If it is refused, `out` does not change.
pub fn encode(command: &Command<'_>, out: &mut Vec<u8>) -> Result<Expect, Refused> {
    let value = command.value();
    let expect = encode_head(command, value.len(), out)?;
    if command.stores() {
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    Ok(expect)
}

/// As [`encode`], but the value of a storage command and the line end behind it are left to the
/// caller. Room for `value` bytes and the line end is reserved.
pub(super) fn encode_head(
    command: &Command<'_>,
    value: usize,
    out: &mut Vec<u8>,
) -> Result<Expect, Refused> {
    let word = command.word();
    check::command(command, word)?;
    reserve(command, word, value, out)?;

    let mut line = Line::begin(word, out);
    let kind = match *command {
        Command::Get { key, cas } => {
            line.key(key);
            let touches = false;
            ReplyKind::Get { cas, touches }
        }
        Command::GetMany { keys, cas } => ReplyKind::GetMany {
            cas,
            touches: false,
            keys: line.keys(keys),
        },
        Command::Gat { exptime, key, cas } => {
            line.arg(exptime);
            line.key(key);
            let touches = true;
            ReplyKind::Get { cas, touches }
        }
        Command::GatMany { exptime, keys, cas } => {
            line.arg(exptime);
            ReplyKind::GetMany {
                cas,
                touches: true,
                keys: line.keys(keys),
            }
        }
        Command::Store {
            verb,
            key,
            flags,
            exptime,
            cas_unique,
            value,
        } => {
            line.key(key);
            line.arg(Some(flags));
            line.arg(Some(exptime));
            line.arg(Some(Digits::from(value.len() as u64).as_bytes()));
            let cas = verb == Verb::Cas;
            if cas {
                line.arg(cas_unique);
            }
            ReplyKind::Store { cas }
        }
        Command::Delete { key } => {
            line.key(key);
            // memcached 1.6.45 takes it for the option if it is the last word
            if key.bytes == b"noreply" {
                line.arg(Some(b"0"));
            }
            ReplyKind::Delete
        }
        Command::Arith { key, delta, .. } => {
            line.key(key);
            line.arg(delta);
            ReplyKind::Arith
        }
        Command::Touch { key, exptime } => {
            line.key(key);
            line.arg(exptime);
            ReplyKind::Touch
        }
        Command::FlushAll { delay } => {
            line.arg(delay);
            ReplyKind::Ok
        }
        Command::Stats { args } => {
            line.arg(args);
            ReplyKind::Stats(stats(args.unwrap_or_default()))
        }
        Command::Version => ReplyKind::Version,
        Command::Meta(meta) => {
            line.key(meta.key);
            if let MetaOp::Set(set) = &meta.op {
                line.arg(Some(Digits::from(set.value.len() as u64).as_bytes()));
            }
            line.opaque(meta.opaque);
            ReplyKind::Meta(meta.write_flags(&mut line))
        }
        Command::MetaNoop => ReplyKind::MetaNoop,
        Command::Verbosity { level } => {
            line.arg(level);
            ReplyKind::Ok
        }
        Command::Quit => ReplyKind::Nothing,
    };
    Ok(line.end(kind))
}

fn stats(args: &[u8]) -> Stats {
    match args.split(|&byte| byte == b' ').next() {
        None | Some(b"") => Stats::General,
        Some(b"sizes_enable" | b"sizes_disable") => Stats::SizesSwitch,
        Some(_) => Stats::Special,
    }
}

/// Reserves room for a whole command, so that running out of memory is an error and not an abort.
fn reserve(
    command: &Command<'_>,
    word: &str,
    value: usize,
    out: &mut Vec<u8>,
) -> Result<(), Refused> {
    // Word, spaces, numbers and line ends; integers are at most 128 bytes each.
    const REST: usize = 512;
    let room = match command {
        Command::Store { .. } => MAX_KEY_LEN.saturating_add(value),
        Command::Meta(_) => MAX_KEY_LEN.saturating_add(value),
        Command::GetMany { keys, .. } | Command::GatMany { keys, .. } => {
            keys.iter().map(|key| key.max_sent_len() + 1).sum()
        }
        Command::Stats { args } => args.unwrap_or_default().len(),
        _ => MAX_KEY_LEN,
    };
    let room = room.saturating_add(REST);
    out.try_reserve(room)
        .map_err(|_| Refused::no_memory(word, room))
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// A command line that is being written. Its words were checked before.
struct Line<'o> {
    out: &'o mut Vec<u8>,
    begin: usize,
    keys: Option<(usize, usize)>,
}

impl<'o> Line<'o> {
    fn begin(word: &str, out: &'o mut Vec<u8>) -> Self {
        let begin = out.len();
        out.extend_from_slice(word.as_bytes());
        Line {
            out,
            begin,
            keys: None,
        }
    }

    fn key(&mut self, key: Key<'_>) {
        self.out.push(b' ');
        let start = self.out.len();
        key.write(self.out);
        let first = self.keys.map_or(start, |(first, _)| first);
        self.keys = Some((first, self.out.len()));
    }

    /// Writes the keys that are not empty. Returns their number.
    fn keys(&mut self, keys: &[Key<'_>]) -> usize {
        let mut count = 0;
        for key in keys.iter().filter(|key| !key.bytes.is_empty()) {
            self.key(*key);
            count += 1;
        }
        count
    }

    /// Writes an opaque. It is taken for the last key, so that what the reply repeats can be
    /// compared with it.
    fn opaque(&mut self, opaque: u32) {
        let mut text = [b'O'; 9];
        let digits = HEX.len().ilog2();
        for (at, byte) in text.iter_mut().skip(1).rev().enumerate() {
            let digit = opaque >> (at as u32 * digits) & 15;
            *byte = HEX.get(digit as usize).copied().unwrap_or_default();
        }
        self.out.push(b' ');
        self.out.extend_from_slice(&text);
        self.keys = self.keys.map(|(first, _)| (first, self.out.len()));
    }

    fn arg(&mut self, arg: Option<&[u8]>) {
        if let Some(text) = arg.filter(|text| !text.is_empty()) {
            self.out.push(b' ');
            self.out.extend_from_slice(text);
        }
    }

    fn end(self, kind: ReplyKind) -> Expect {
        self.out.extend_from_slice(b"\r\n");
        let (start, end) = self.keys.unwrap_or((self.begin, self.begin));
        Expect {
            kind,
            begin: self.begin,
            start,
            end,
        }
    }
}

impl Words for Line<'_> {
    fn flag(&mut self, letter: u8, text: &[u8]) {
        self.out.push(b' ');
        self.out.push(letter);
        self.out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
