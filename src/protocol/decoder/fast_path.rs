//! The fast path, for replies that were received completely and look as usual.

use super::super::line::whole_value;
use super::super::reply::Hit;
use super::{Body, Decoder, Digits, Item, Limits, Partial, Reply, ReplyKind, SMALL_VALUE, Value};

impl Decoder {
    /// The reply, if it is a usual one that is small and complete. Anything else takes the slow
    /// path, which gives the same result for these replies.
    pub(super) fn at_once(&mut self, kind: ReplyKind, keys: &[u8]) -> Option<Reply> {
        let Body::Line = self.partial.body else {
            return None;
        };
        let unread = self.input.unread();
        let (reply, len) = match kind {
            ReplyKind::Get { .. } if unread.starts_with(b"END\r\n") => {
                if !self.partial.values.items.is_empty() {
                    return None;
                }
                (Reply::Miss, b"END\r\n".len())
            }
            ReplyKind::Get { cas, .. } if self.partial.values.items.is_empty() => {
                let (hit, rest) = small_value(unread, keys, cas, self.limits)?;
                let rest = rest.strip_prefix(b"END\r\n")?;
                let mut data = self.buffers.small();
                data.try_reserve(hit.data.len()).ok()?;
                data.extend_from_slice(hit.data);
                let flags = Digits::parse(hit.flags)?;
                let cas = match hit.cas {
                    Some(cas) => Some(Digits::parse(cas)?),
                    None => None,
                };
                let value = Value { data, flags, cas };
                (Reply::Value(value), unread.len() - rest.len())
            }
            ReplyKind::Store { .. } if unread.starts_with(b"STORED\r\n") => {
                (Reply::Done, b"STORED\r\n".len())
            }
            _ => return None,
        };
        self.input.consume(len);
        Some(reply)
    }

    /// As [`at_once`](Self::at_once), for the values of a list while they come in the order of the
    /// keys.
    pub(super) fn values_at_once(&mut self, keys: &[u8], cas: bool, most: usize) -> Option<()> {
        let Body::Line = self.partial.body else {
            return None;
        };
        self.partial.take_buffers(0, &self.buffers);
        let Partial { values, cursor, .. } = &mut self.partial;
        let unread = self.input.unread();
        // All of it may turn out to be values.
        values.bytes.try_reserve(unread.len()).ok()?;
        let base = values.bytes.len();
        let mut rest = unread;
        while values.items.len() < most {
            let Some(asked) = keys.get(*cursor..) else {
                break;
            };
            let len = asked.iter().take_while(|&&byte| byte != b' ').count();
            let key = asked.get(..len).unwrap_or_default();
            let Some((hit, behind)) = small_value(rest, key, cas, self.limits) else {
                break;
            };
            if values.items.try_reserve(1).is_err() {
                break;
            }
            let begin = base + (unread.len() - rest.len());
            let end = base + (unread.len() - behind.len());
            let data = end - b"\r\n".len() - hit.data.len();
            let key = begin + b"VALUE ".len();
            values.items.push(Item {
                end: data + hit.data.len(),
                ..Item::new(hit.key, hit.flags, hit.cas, key, data)
            });
            *cursor += len + 1;
            rest = behind;
        }
        let taken = unread.len() - rest.len();
        values
            .bytes
            .extend_from_slice(unread.get(..taken).unwrap_or_default());
        self.input.consume(taken);
        Some(())
    }
}

/// [`whole_value`], unless it is large or exceeds the limits.
fn small_value<'a>(
    reply: &'a [u8],
    key: &[u8],
    cas: bool,
    limits: Limits,
) -> Option<(Hit<'a>, &'a [u8])> {
    let found = whole_value(reply, key, cas, limits.max_line)?;
    (found.0.data.len() <= SMALL_VALUE.min(limits.max_value)).then_some(found)
}
