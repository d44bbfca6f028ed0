//! Commands and their encoder.

use super::check;
use super::expect::{Expect, Kind, Stats};
use super::key::{Key, MAX_KEY_LEN};
use super::number::Digits;
use super::refusal::Refused;

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
    /// `verbosity`.
    Verbosity {
        /// Unsigned.
        level: Arg<'a>,
    },
    /// `quit`: no reply, the server closes.
    Quit,
}

impl Command<'_> {
    /// Whether it may go over a connection that others use as well: it ends or
    /// changes nothing of theirs, its reply has one grammar, and no proxy is
    /// known to answer it by closing the connection.
    pub fn can_share(&self) -> bool {
        !matches!(
            self,
            Command::Quit
                | Command::Verbosity { .. }
                | Command::Stats { .. }
                | Command::FlushAll { .. }
        )
    }

    /// The command's word on the wire.
    pub fn word(&self) -> &'static str {
        match *self {
            Command::Get { cas, .. } | Command::GetMany { cas, .. } => retrieval(cas),
            Command::Store { verb, .. } => verb.word(),
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

/// Appends the command to `out`. On an error `out` is as before.
pub fn encode(command: &Command<'_>, out: &mut Vec<u8>) -> Result<Expect, Refused> {
    let value = match *command {
        Command::Store { value, .. } => value,
        _ => b"",
    };
    let expect = encode_head(command, value.len(), out)?;
    if let Command::Store { .. } = command {
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    Ok(expect)
}

/// As [`encode`], but the value of a storage command and the line end behind it are left to the
/// caller. There will be room for `value` bytes of them, and for the line end.
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
            Kind::Get { cas }
        }
        Command::GetMany { keys, cas } => {
            let mut count = 0;
            for key in keys.iter().filter(|key| !key.bytes.is_empty()) {
                line.key(*key);
                count += 1;
            }
            Kind::GetMany { cas, keys: count }
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
            Kind::Store { cas }
        }
        Command::Delete { key } => {
            line.key(key);
            Kind::Delete
        }
        Command::Arith { key, delta, .. } => {
            line.key(key);
            line.arg(delta);
            Kind::Arith
        }
        Command::Touch { key, exptime } => {
            line.key(key);
            line.arg(exptime);
            Kind::Touch
        }
        Command::FlushAll { delay } => {
            line.arg(delay);
            Kind::Ok
        }
        Command::Stats { args } => {
            line.arg(args);
            Kind::Stats(stats(args.unwrap_or_default()))
        }
        Command::Version => Kind::Version,
        Command::Verbosity { level } => {
            line.arg(level);
            Kind::Ok
        }
        Command::Quit => Kind::Nothing,
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

/// Room for a whole command, so that running out of memory is an error and not an abort.
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
        Command::GetMany { keys, .. } => keys.iter().map(|key| key.max_sent_len() + 1).sum(),
        Command::Stats { args } => args.unwrap_or_default().len(),
        _ => MAX_KEY_LEN,
    };
    let room = room.saturating_add(REST);
    out.try_reserve(room)
        .map_err(|_| Refused::no_memory(word, room))
}

/// A command line being written. Everything it is given was checked before.
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

    fn arg(&mut self, arg: Option<&[u8]>) {
        if let Some(text) = arg.filter(|text| !text.is_empty()) {
            self.out.push(b' ');
            self.out.extend_from_slice(text);
        }
    }

    fn end(self, kind: Kind) -> Expect {
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

#[cfg(test)]
mod property_tests;
#[cfg(test)]
mod tests;
