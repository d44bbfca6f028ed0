//! Decodes received bytes to one reply of an expected kind.

use std::ops::Range;

use self::places::Search;
use super::buffers::{Buffers, MAX_SMALL};
use super::expect::{ReplyKind, Stats};
use super::limits::Limits;
use super::line::{Framing, Header, is_stat, single};
use super::line_buffer::{LineBuffer, Next};
use super::meta::Word;
use super::number::Digits;
use super::reply::{Item, Malformed, MetaItem, Reply, Value, Values, is_error};
use super::version::Server;

/// Values up to this length in bytes are copied out of the line buffer. The rest of a longer value
/// is received directly into the value's own buffer.
const SMALL_VALUE: usize = 8 * 1024;

/// Capacity in bytes of the value buffer of an idle connection.
const IDLE_VALUE: usize = 4 * 1024;

/// What separates a header from its data in [`Values`].
const LINE_END: &[u8] = b"\r\n";

/// Bytes that surely follow a value: its CRLF and `END` with CRLF. A read of the value asks for
/// them as well, which saves a read.
const BEHIND_VALUE: usize = 7;

/// Decodes one reply at a time. Between calls it keeps the received part of the current reply.
pub(super) struct Decoder {
    pub limits: Limits,
    /// Reused for values.
    pub buffers: Buffers,
    /// What the server has said of itself.
    pub server: Server,
    input: LineBuffer,
    partial: Partial,
    failure: Option<Malformed>,
}

/// The current reply so far.
#[derive(Default)]
struct Partial {
    body: Body,
    /// For a single value, the bytes are only its data.
    values: Values,
    /// Flags and cas unique of a single value.
    fields: Option<(Digits, Option<Digits>)>,
    /// Where to look for the next key in the text of keys.
    cursor: usize,
    search: Search,
    lines: Vec<Vec<u8>>,
    lines_size: usize,
    /// The item of a meta command whose value is being received.
    meta: Option<(Box<MetaItem>, Word)>,
}

/// The part of a VALUE that comes next.
#[derive(Clone, Copy, Default)]
enum Body {
    /// None of it: a line is next.
    #[default]
    Line,
    /// This many bytes of data, none of which was taken from the line buffer yet.
    Buffered(usize),
    /// Data is received directly into the values' buffer, until it has this length. The line buffer
    /// is empty.
    Direct(usize),
    /// The line end after the data.
    CrLf,
}

type Decoded = (Reply, Framing);

fn malformed(what: Malformed) -> Decoded {
    (Reply::Malformed(what), Framing::OutOfSync)
}

impl Decoder {
    pub fn new(limits: Limits) -> Self {
        Decoder {
            limits,
            buffers: Buffers::default(),
            server: Server::Unknown,
            input: LineBuffer::default(),
            partial: Partial::default(),
            failure: None,
        }
    }

    pub fn unread(&self) -> &[u8] {
        self.input.unread()
    }

    pub fn consume(&mut self, n: usize) {
        self.input.consume(n);
    }

    /// Whether every received byte was consumed.
    pub fn is_empty(&self) -> bool {
        self.input.is_empty()
    }

    /// Whether a part of the next reply was received.
    pub fn is_amid_reply(&self) -> bool {
        let Partial {
            body,
            values,
            lines,
            ..
        } = &self.partial;
        !self.input.is_empty()
            || !matches!(body, Body::Line)
            || !values.is_empty()
            || !lines.is_empty()
    }

    /// Whether a large value is being received.
    pub fn is_amid_value(&self) -> bool {
        matches!(self.partial.body, Body::Direct(_))
    }

    /// The buffer to receive into, and the maximum number of bytes; 0 if there is no memory.
    pub fn read_buf(&mut self) -> (&mut Vec<u8>, usize) {
        match self.partial.body {
            // The memory was reserved when the value was announced.
            Body::Direct(end) => {
                let data = &mut self.partial.values.bytes;
                let room = data.capacity().saturating_sub(data.len());
                let wanted = end.saturating_add(BEHIND_VALUE).saturating_sub(data.len());
                (data, wanted.min(room))
            }
            _ => self.input.room(),
        }
    }

    /// The complete error line that the unread bytes begin with, if there is one. Only meaningful
    /// between replies.
    pub fn error_line(&self) -> Option<&[u8]> {
        let unread = self.input.unread();
        let (line, _) = unread.split_at_checked(memchr::memchr(b'\n', unread)?)?;
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        (line.len() <= self.limits.max_line && is_error(line)).then_some(line)
    }

    /// The next call of [`reply`](Self::reply) returns this.
    pub fn fail(&mut self, what: Malformed) {
        self.failure = Some(what);
    }

    /// Drops the current reply.
    pub fn reset(&mut self) {
        self.partial = Partial::default();
    }

    pub fn shrink(&mut self) {
        self.input.shrink();
        // the memory reserved for the rest of a value is still needed
        if !self.is_amid_value() {
            self.partial.values.bytes.shrink_to(IDLE_VALUE);
        }
    }

    /// The reply to a command of `kind`, whose keys are `keys`, once it is complete.
    pub fn reply(&mut self, kind: ReplyKind, keys: &[u8]) -> Option<Decoded> {
        let decoded = match self.failure.take() {
            Some(what) => malformed(what),
            None => match self.at_once(kind, keys) {
                Some(reply) => return Some((reply, Framing::InSync)),
                None => self.decode(kind, keys)?,
            },
        };
        self.finish();
        Some(decoded)
    }

    /// Prepares for the next reply. Buffers that this reply did not take are kept.
    fn finish(&mut self) {
        let partial = &mut self.partial;
        partial.body = Body::Line;
        partial.values.bytes.clear();
        partial.values.items.clear();
        partial.fields = None;
        partial.cursor = 0;
        partial.search = Search::default();
        partial.lines.clear();
        partial.lines_size = 0;
        partial.meta = None;
    }

    fn decode(&mut self, kind: ReplyKind, keys: &[u8]) -> Option<Decoded> {
        loop {
            if let ReplyKind::GetMany {
                cas, keys: most, ..
            } = kind
            {
                self.values_at_once(keys, cas, most);
            }
            match self.body() {
                Ok(true) => {}
                Ok(false) => return None,
                Err(what) => return Some(malformed(what)),
            }
            if self.partial.meta.is_some() {
                return self.meta_item();
            }
            let line = match self.input.line(self.limits.max_line) {
                Next::Line(line) => line,
                Next::Incomplete => return None,
                Next::TooLong => return Some(malformed(Malformed::LineTooLong)),
            };
            let decoded = match kind {
                ReplyKind::Get { .. } | ReplyKind::GetMany { .. } => {
                    self.retrieval(line, kind, keys)
                }
                ReplyKind::Stats(stats) => self.stats(line, stats),
                ReplyKind::Meta(asked) => self.meta(line, asked, keys),
                ReplyKind::Version | ReplyKind::MetaNoop => Some(self.about_server(line, kind)),
                _ => Some(single(kind, self.input.text(line))),
            };
            if decoded.is_some() {
                return decoded;
            }
        }
    }

    /// Takes what was received of a value. Returns whether a line is next.
    fn body(&mut self) -> Result<bool, Malformed> {
        let Decoder { input, partial, .. } = self;
        let data = &mut partial.values.bytes;
        loop {
            let unread = input.unread();
            match partial.body {
                Body::Line => return Ok(true),
                Body::Buffered(len) => {
                    if let Some(whole) = unread.get(..len) {
                        data.extend_from_slice(whole);
                        input.consume(len);
                        partial.body = Body::CrLf;
                    } else if len > SMALL_VALUE {
                        let end = data.len().saturating_add(len);
                        data.extend_from_slice(unread);
                        let n = unread.len();
                        input.consume(n);
                        partial.body = Body::Direct(end);
                    } else {
                        return Ok(false);
                    }
                }
                Body::Direct(end) => {
                    let Some(behind) = data.get(end..) else {
                        return Ok(false);
                    };
                    input.push(behind);
                    data.truncate(end);
                    partial.body = Body::CrLf;
                }
                Body::CrLf => match unread {
                    [b'\r', b'\n', ..] => {
                        input.consume(2);
                        partial.body = Body::Line;
                    }
                    [] | [b'\r'] => return Ok(false),
                    _ => return Err(Malformed::NoCrlf),
                },
            }
        }
    }

    /// A line of a `get` or `gets` reply.
    fn retrieval(&mut self, line: Range<usize>, kind: ReplyKind, keys: &[u8]) -> Option<Decoded> {
        let (cas, most) = match kind {
            ReplyKind::GetMany { cas, keys, .. } => (cas, keys),
            ReplyKind::Get { cas, .. } => (cas, 1),
            _ => (false, 1),
        };
        let text = self.input.text(line);
        let got = self.partial.values.len();
        if text == b"END" {
            return Some((self.partial.retrieved(kind), Framing::InSync));
        }
        if got >= most && text.starts_with(b"VALUE ") {
            return Some(malformed(Malformed::TooManyValues));
        }
        if let Some(header) = Header::parse(text, cas) {
            let many = matches!(kind, ReplyKind::GetMany { .. });
            let max = self.limits.max_value;
            let many = many.then_some(most);
            let announced = self
                .partial
                .announce(&header, many, keys, max, &self.buffers);
            return announced.err().map(malformed);
        }
        let is_error = is_error(text);
        if got > 0 && !is_error {
            return Some(malformed(Malformed::NoEnd));
        }
        // For one key, the error line is the reply. A proxy may send an error line for some keys of
        // a list, and go on.
        let ends = is_error && got == 0 && !kind.is_list() && !begins_end(self.input.unread());
        let framing = if ends {
            Framing::InSync
        } else {
            Framing::OutOfSync
        };
        Some((Reply::Line(text.to_vec()), framing))
    }

    /// A line of a `stats` reply.
    fn stats(&mut self, line: Range<usize>, stats: Stats) -> Option<Decoded> {
        let text = self.input.text(line);
        let most = self.limits.max_value;
        let partial = &mut self.partial;
        let first = partial.lines.is_empty();
        let ended = match text {
            b"END" => return Some((partial.lines(), Framing::InSync)),
            b"RESET" | b"OK" => first && stats == Stats::Special,
            _ => stats == Stats::SizesSwitch && ends_sizes_switch(text),
        };
        if !ended && !is_stat(text) {
            // also for an error line: it is unknown whether END follows
            return Some((Reply::Line(text.to_vec()), Framing::OutOfSync));
        }
        partial.lines_size += text.len() + size_of::<Vec<u8>>();
        if partial.lines_size > most {
            return Some(malformed(Malformed::StatsTooLong));
        }
        let mut copy = Vec::new();
        if copy.try_reserve_exact(text.len()).is_err() || partial.lines.try_reserve(1).is_err() {
            return Some(malformed(Malformed::NoMemory));
        }
        copy.extend_from_slice(text);
        partial.lines.push(copy);
        ended.then(|| (partial.lines(), Framing::InSync))
    }
}

/// Whether these bytes may begin END.
fn begins_end(unread: &[u8]) -> bool {
    let (word, rest) = unread
        .split_at_checked(b"END".len())
        .unwrap_or((unread, b""));
    !word.is_empty() && b"END".starts_with(word) && matches!(rest, [] | [b'\r' | b'\n', ..])
}

/// memcached 1.4.27 to 1.6 answer `STAT sizes_status enabled` or `disabled`, or with `error` there
/// and a second line for the reason.
fn ends_sizes_switch(line: &[u8]) -> bool {
    match line.strip_prefix(b"STAT sizes_status ") {
        Some(status) => status != b"error",
        None => line.starts_with(b"STAT sizes_error "),
    }
}

impl Partial {
    /// Prepares for the value of a header. `many`: the number of keys, if they are a list.
    fn announce(
        &mut self,
        header: &Header<'_>,
        many: Option<usize>,
        keys: &[u8],
        max_value: usize,
        buffers: &Buffers,
    ) -> Result<(), Malformed> {
        if let Some(count) = many {
            self.cursor = self.search.find(keys, count, self.cursor, header.key)?;
        } else if header.key != keys {
            return Err(Malformed::UnexpectedKey);
        }
        let many = many.is_some();
        let head = match many {
            true => header.text.len().saturating_add(LINE_END.len()),
            false => 0,
        };
        let len = self.room_for_value(header.len, max_value, head, buffers)?;
        let Values { bytes, items } = &mut self.values;
        items.try_reserve(1).map_err(|_| Malformed::NoMemory)?;

        let key = bytes.len();
        if many {
            bytes.extend_from_slice(header.text);
            bytes.extend_from_slice(LINE_END);
        } else {
            self.fields = Some((header.flags, header.cas));
        }
        let cas = header.cas.as_ref().map(Digits::as_bytes);
        items.push(Item {
            end: bytes.len() + len,
            ..Item::new(header.key, header.flags.as_bytes(), cas, key, bytes.len())
        });
        self.body = Body::Buffered(len);
        Ok(())
    }

    /// Makes room for a value of this length, with a head before it if it is one of several.
    /// Returns the length.
    fn room_for_value(
        &mut self,
        announced: Option<u64>,
        max_value: usize,
        head: usize,
        buffers: &Buffers,
    ) -> Result<usize, Malformed> {
        let announced = announced.ok_or(Malformed::LengthOutOfRange)?;
        let len = usize::try_from(announced)
            .ok()
            .filter(|&len| len <= max_value)
            .ok_or(Malformed::ValueTooLarge {
                announced,
                limit: max_value,
            })?;
        let room = len.saturating_add(BEHIND_VALUE);
        self.take_buffers(room, buffers);
        let bytes = &mut self.values.bytes;
        match head {
            0 => bytes.try_reserve_exact(room),
            head => bytes.try_reserve(room.saturating_add(head)),
        }
        .map_err(|_| Malformed::NoMemory)?;
        Ok(len)
    }

    /// Takes buffers from the stock if it has none.
    fn take_buffers(&mut self, room: usize, buffers: &Buffers) {
        let Values { bytes, items } = &mut self.values;
        if bytes.is_empty() && room > MAX_SMALL && bytes.capacity() < room {
            let found = buffers.large(room);
            buffers.give(std::mem::replace(bytes, found.unwrap_or_default()));
        } else if bytes.capacity() == 0 {
            *bytes = buffers.small();
        }
        if items.capacity() == 0 {
            *items = buffers.items();
        }
    }

    /// The reply at END.
    fn retrieved(&mut self, kind: ReplyKind) -> Reply {
        if let ReplyKind::GetMany { .. } = kind {
            return Reply::Values(std::mem::take(&mut self.values));
        }
        match self.fields.take() {
            Some((flags, cas)) => Reply::Value(Value {
                data: std::mem::take(&mut self.values.bytes),
                flags,
                cas,
            }),
            None => Reply::Miss,
        }
    }

    fn lines(&mut self) -> Reply {
        Reply::Stats(std::mem::take(&mut self.lines))
    }
}

mod fast_path;
mod meta;
mod places;
#[cfg(test)]
mod tests;
