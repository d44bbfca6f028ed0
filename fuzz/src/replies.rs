//! Replies, parsed from a text that is there as a whole: what the decoder must come to, however it
//! got the bytes. Written from protocol.txt and docs/errors.md.

use crate::meta;

/// What a reply says. Texts of errors are those of the module.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Seen {
    Value(Hit),
    Miss,
    Values(Vec<Hit>),
    Done,
    Number(Vec<u8>),
    Version(Vec<u8>),
    Stats(Vec<Vec<u8>>),
    /// Of a meta command: the fields, sorted, and the value.
    Item(Vec<String>, Option<Vec<u8>>),
    Line(Vec<u8>),
    Bad(String),
}

/// A VALUE; the key of a single one is not reported.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Hit {
    pub key: Vec<u8>,
    pub data: Vec<u8>,
    pub flags: Vec<u8>,
    pub cas: Option<Vec<u8>>,
}

/// What was asked, as far as the reply's form depends on it.
#[derive(Clone, Debug)]
pub enum Asked {
    /// One key: at most one value, reported as such.
    Get {
        key: Vec<u8>,
        cas: bool,
    },
    /// A list of keys as sent.
    GetMany {
        keys: Vec<Vec<u8>>,
        cas: bool,
    },
    /// Commands with a reply of one line: the lines that mean success, and those that are no
    /// success but leave no doubt about where the next reply begins.
    Plain {
        done: &'static [&'static str],
        known: &'static [&'static str],
        /// Error lines that do so as well.
        errors: &'static [&'static str],
    },
    Number,
    Version,
    Meta(meta::Asked),
    MetaNoop,
    Stats {
        kind: StatsKind,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum StatsKind {
    General,
    Special,
    SizesSwitch,
}

/// Limits of a line and of a value in bytes.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub line: usize,
    pub value: usize,
}

/// A parsed reply, its length, and whether the next one can be found behind it.
pub struct Parsed {
    pub seen: Seen,
    pub len: usize,
    pub in_step: InStep,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum InStep {
    Yes,
    No,
    /// Not if END, or the beginning of it, came together with the reply.
    UnlessEnd,
}

impl From<bool> for InStep {
    fn from(in_step: bool) -> Self {
        if in_step { InStep::Yes } else { InStep::No }
    }
}

/// Whether bytes are END or the beginning of it.
pub fn begins_end(bytes: &[u8]) -> bool {
    !bytes.is_empty() && b"END\r\n".starts_with(bytes)
        || bytes.starts_with(b"END\r")
        || bytes.starts_with(b"END\n")
}

pub const ERRORS: &[&str] = &["ERROR", "CLIENT_ERROR", "SERVER_ERROR"];

/// The reply at the beginning of `text`; `None`: more of it has to come.
pub fn parse(asked: &Asked, text: &[u8], limits: Limits) -> Option<Parsed> {
    let mut cursor = Cursor { text, at: 0 };
    let (seen, in_step) = match reply(asked, &mut cursor, limits) {
        Ok(parsed) => parsed,
        Err(Stop::Incomplete) => return None,
        Err(Stop::Bad(what)) => (Seen::Bad(what), InStep::No),
    };
    let len = cursor.at;
    Some(Parsed { seen, len, in_step })
}

enum Stop {
    Incomplete,
    Bad(String),
}

fn bad<T>(what: &str) -> Result<T, Stop> {
    Err(Stop::Bad(format!("bad reply: {what}")))
}

struct Cursor<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.text[self.at..]
    }

    fn line(&mut self, max: usize) -> Result<&'a [u8], Stop> {
        let rest = self.rest();
        match rest.iter().position(|byte| *byte == b'\n') {
            None if rest.len() > max + 1 => bad("line too long"),
            None => Err(Stop::Incomplete),
            Some(end) => {
                let line = rest[..end].strip_suffix(b"\r").unwrap_or(&rest[..end]);
                if line.len() > max {
                    return bad("line too long");
                }
                self.at += end + 1;
                Ok(line)
            }
        }
    }

    fn data(&mut self, len: usize) -> Result<&'a [u8], Stop> {
        let data = self.rest().get(..len).ok_or(Stop::Incomplete)?;
        match &self.rest()[len..] {
            [b'\r', b'\n', ..] => {
                self.at += len + 2;
                Ok(data)
            }
            [] | [b'\r'] => Err(Stop::Incomplete),
            _ => bad("no CRLF after value"),
        }
    }
}

fn first_word(line: &[u8]) -> &[u8] {
    line.split(|byte| *byte == b' ').next().unwrap_or(line)
}

fn is_one_of(text: &[u8], words: &[&str]) -> bool {
    words.iter().any(|word| word.as_bytes() == text)
}

fn reply(asked: &Asked, cursor: &mut Cursor<'_>, limits: Limits) -> Result<(Seen, InStep), Stop> {
    let retrieved = |keys: &[Vec<u8>], (seen, error): (Seen, bool)| match error {
        true if keys.len() == 1 => (seen, InStep::UnlessEnd),
        // a proxy may go on
        _ => (seen, InStep::No),
    };
    let (seen, in_step) = match asked {
        Asked::Get { key, cas } => match values(std::slice::from_ref(key), *cas, cursor, limits)? {
            Ok(mut hits) => (hits.pop().map_or(Seen::Miss, Seen::Value), true),
            Err(line) => return Ok(retrieved(std::slice::from_ref(key), line)),
        },
        Asked::GetMany { keys, cas } => match values(keys, *cas, cursor, limits)? {
            Ok(hits) => (Seen::Values(hits), true),
            Err(line) => return Ok(retrieved(keys, line)),
        },
        Asked::Stats { kind } => stats(*kind, cursor, limits)?,
        Asked::Plain {
            done,
            known,
            errors,
        } => {
            let line = cursor.line(limits.line)?;
            if is_one_of(line, done) {
                return Ok((Seen::Done, InStep::Yes));
            }
            let in_step = is_one_of(line, known) || is_one_of(first_word(line), errors);
            (Seen::Line(line.to_vec()), in_step)
        }
        Asked::Number => {
            let line = cursor.line(limits.line)?;
            if is_number(line) {
                return Ok((Seen::Number(line.to_vec()), InStep::Yes));
            }
            let in_step = line == b"NOT_FOUND" || is_one_of(first_word(line), ERRORS);
            (Seen::Line(line.to_vec()), in_step)
        }
        Asked::Meta(asked) => meta_reply(asked, cursor, limits)?,
        Asked::MetaNoop => {
            let line = cursor.line(limits.line)?;
            // what an error tells is known then
            match line == b"MN" || is_one_of(first_word(line), ERRORS) {
                true => (Seen::Done, true),
                false => (Seen::Line(line.to_vec()), false),
            }
        }
        Asked::Version => {
            let line = cursor.line(limits.line)?;
            match line.strip_prefix(b"VERSION ") {
                Some(version) if !version.is_empty() => (Seen::Version(version.into()), true),
                _ => {
                    let in_step = is_one_of(first_word(line), ERRORS);
                    (Seen::Line(line.to_vec()), in_step)
                }
            }
        }
    };
    Ok((seen, in_step.into()))
}

fn meta_reply(
    asked: &meta::Asked,
    cursor: &mut Cursor<'_>,
    limits: Limits,
) -> Result<(Seen, bool), Stop> {
    let line = cursor.line(limits.line)?;
    let word = first_word(line);
    if is_one_of(word, ERRORS) {
        let in_step = asked.verb != "ms" || word == b"SERVER_ERROR";
        return Ok((Seen::Line(line.to_vec()), in_step));
    }
    match meta::line(asked, line) {
        meta::Line::Item(fields) => Ok((Seen::Item(fields, None), true)),
        meta::Line::Miss => Ok((Seen::Miss, true)),
        meta::Line::Other(text) => Ok((Seen::Line(text.into()), true)),
        meta::Line::Bad(what) => bad(what),
        meta::Line::Value(len, _) if len > limits.value as u64 => bad(&format!(
            "value of {len} bytes exceeds the limit of {}",
            limits.value
        )),
        meta::Line::Value(len, fields) => {
            let data = cursor.data(len as usize)?.to_vec();
            if asked.verb == "ma" && !is_number(&data) {
                return bad("value is not a number");
            }
            Ok((Seen::Item(fields, Some(data)), true))
        }
    }
}

/// Up to twenty digits: an unsigned number of 64 bits has no more.
fn is_number(text: &[u8]) -> bool {
    (1..=20).contains(&text.len()) && text.iter().all(u8::is_ascii_digit)
}

/// Values up to END, or else the line that stood there instead; whether that is an error line in
/// the place of all values.
fn values(
    keys: &[Vec<u8>],
    cas: bool,
    cursor: &mut Cursor<'_>,
    limits: Limits,
) -> Result<Result<Vec<Hit>, (Seen, bool)>, Stop> {
    let mut hits: Vec<Hit> = Vec::new();
    loop {
        let line = cursor.line(limits.line)?;
        if line == b"END" {
            return Ok(Ok(hits));
        }
        if line.starts_with(b"VALUE ") && hits.len() >= keys.len() {
            return bad("more values than keys");
        }
        let words: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
        let (key, flags, len, unique) = match (words[..].as_ref(), cas) {
            ([b"VALUE", key, flags, len], false) => (*key, *flags, *len, None),
            ([b"VALUE", key, flags, len, unique], true) => (*key, *flags, *len, Some(*unique)),
            _ => return other_than_value(line, &hits),
        };
        let is_header = !key.is_empty()
            && is_number(flags)
            && unique.is_none_or(is_number)
            && !len.is_empty()
            && len.iter().all(u8::is_ascii_digit);
        if !is_header {
            return other_than_value(line, &hits);
        }
        if !keys.iter().any(|asked| asked == key) {
            return bad("unexpected key");
        }
        let Some(len) = std::str::from_utf8(len)
            .ok()
            .and_then(|len| len.parse().ok())
        else {
            return bad("value length out of range");
        };
        let announced: u64 = len;
        if announced > limits.value as u64 {
            return bad(&format!(
                "value of {announced} bytes exceeds the limit of {}",
                limits.value
            ));
        }
        hits.push(Hit {
            key: key.to_vec(),
            data: cursor.data(announced as usize)?.to_vec(),
            flags: flags.to_vec(),
            cas: unique.map(<[u8]>::to_vec),
        });
    }
}

fn other_than_value(line: &[u8], hits: &[Hit]) -> Result<Result<Vec<Hit>, (Seen, bool)>, Stop> {
    let is_error = is_one_of(first_word(line), ERRORS);
    match (is_error, hits.is_empty()) {
        (true, first) => Ok(Err((Seen::Line(line.to_vec()), first))),
        (false, true) => Ok(Err((Seen::Line(line.to_vec()), false))),
        (false, false) => bad("no END after value"),
    }
}

fn stats(kind: StatsKind, cursor: &mut Cursor<'_>, limits: Limits) -> Result<(Seen, bool), Stop> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    let mut size = 0;
    loop {
        let line = cursor.line(limits.line)?;
        if line == b"END" {
            return Ok((Seen::Stats(lines), true));
        }
        let first = lines.is_empty();
        let is_word = first && matches!(line, b"RESET" | b"OK") && kind == StatsKind::Special;
        let is_stat = is_one_of(first_word(line), &["STAT", "ITEM", "PREFIX"]);
        if !is_word && !is_stat {
            return Ok((Seen::Line(line.to_vec()), false));
        }
        size += line.len() + size_of::<Vec<u8>>();
        if size > limits.value {
            return bad("statistics too long");
        }
        lines.push(line.to_vec());
        let switched = kind == StatsKind::SizesSwitch
            && (line.starts_with(b"STAT sizes_error ")
                || line.starts_with(b"STAT sizes_status ") && line != b"STAT sizes_status error");
        if is_word || switched {
            return Ok((Seen::Stats(lines), true));
        }
    }
}
