//! Keys: what memcached accepts, and the escaping that makes any bytes acceptable.

use std::borrow::Cow;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode, percent_encode};

/// Longest key in bytes, counted as it is sent (memcached's KEY_MAX_LENGTH).
pub const MAX_KEY_LEN: usize = 250;

/// Bytes that `ngx.escape_uri` replaces: all but letters, digits and `-._~!*'()`.
const ESCAPED: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'*')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')');

/// Whether [`ESCAPED`] leaves the byte unchanged. This is a table, because most keys consist of
/// such bytes.
fn is_unreserved(byte: u8) -> bool {
    #[expect(clippy::indexing_slicing, reason = "evaluated at compile time")]
    const TABLE: [bool; 256] = {
        let mut table = [false; 256];
        let mut byte = 0;
        while byte < table.len() {
            table[byte] = matches!(
                byte as u8,
                b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z'
                    | b'-' | b'.' | b'_' | b'~' | b'!' | b'*' | b'\'' | b'(' | b')'
            );
            byte += 1;
        }
        table
    };
    TABLE.get(usize::from(byte)).is_some_and(|&is| is)
}

/// A key as the user gave it.
#[derive(Clone, Copy, Debug)]
pub struct Key<'a> {
    /// The bytes before escaping.
    pub bytes: &'a [u8],
    /// Whether the encoder applies [`escape_into`]; otherwise the bytes are sent as they are.
    pub escape: bool,
}

impl<'a> Key<'a> {
    /// Whether it is accepted and sent as it is, escaped or not. False for few such keys.
    pub fn is_simple(&self) -> bool {
        let len = self.bytes.len();
        (1..=MAX_KEY_LEN).contains(&len) && self.bytes.iter().all(|&byte| is_unreserved(byte))
    }

    /// The key as it is sent.
    pub fn sent(&self) -> Cow<'a, [u8]> {
        if !self.escape || self.bytes.iter().all(|&byte| is_unreserved(byte)) {
            return Cow::Borrowed(self.bytes);
        }
        let mut sent = Vec::new();
        escape_into(self.bytes, &mut sent);
        Cow::Owned(sent)
    }

    /// The keys of a list as it is sent: with a space between two.
    pub fn of_list(list: &'a [u8]) -> impl Iterator<Item = Key<'a>> {
        let words = list.split(|&byte| byte == b' ');
        words.map(|bytes| Key {
            bytes,
            escape: false,
        })
    }

    /// Length in bytes as sent.
    pub(super) fn sent_len(&self) -> usize {
        if self.escape {
            percent_encode(self.bytes, ESCAPED).map(str::len).sum()
        } else {
            self.bytes.len()
        }
    }

    /// An upper bound of [`sent_len`](Self::sent_len) for a key of a permitted length, without
    /// looking at its bytes.
    pub(super) fn max_sent_len(&self) -> usize {
        let grown = if self.escape { 3 } else { 1 };
        self.bytes.len().saturating_mul(grown).min(MAX_KEY_LEN)
    }

    /// Appends the key as it is sent.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        if self.escape {
            escape_into(self.bytes, out);
        } else {
            out.extend_from_slice(self.bytes);
        }
    }
}

/// Appends `key` with each byte outside of letters, digits and `-._~!*'()` as `%XX`, upper-case:
/// the output of `ngx.escape_uri(key)`.
pub fn escape_into(key: &[u8], out: &mut Vec<u8>) {
    if key.iter().all(|&byte| is_unreserved(byte)) {
        out.extend_from_slice(key);
        return;
    }
    for piece in percent_encode(key, ESCAPED) {
        out.extend_from_slice(piece.as_bytes());
    }
}

/// Whether unescaping leaves the text unchanged.
pub fn is_plain(text: &[u8]) -> bool {
    !text.iter().any(|&byte| byte == b'%' || byte == b'+')
}

/// Appends the output of `ngx.unescape_uri(text)`: `%XX` becomes its byte, `+` a space, and a `%`
/// without two hexadecimal digits behind it stays.
pub fn unescape_into(text: &[u8], out: &mut Vec<u8>) {
    if is_plain(text) {
        out.extend_from_slice(text);
        return;
    }
    for (i, piece) in text.split(|&byte| byte == b'+').enumerate() {
        if i > 0 {
            out.push(b' ');
        }
        out.extend(percent_decode(piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn escaped(key: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        escape_into(key, &mut out);
        out
    }

    fn unescaped(text: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        unescape_into(text, &mut out);
        out
    }

    #[test]
    fn a_key_as_it_is_sent() {
        let sent = |bytes: &'static [u8], escape| Key { bytes, escape }.sent();
        assert!(matches!(sent(b"a-b", true), Cow::Borrowed(b"a-b")));
        assert!(matches!(sent(b"a%20b", false), Cow::Borrowed(b"a%20b")));
        assert_eq!(&*sent(b"a b", true), b"a%20b");
    }

    #[test]
    fn the_keys_of_a_list() {
        let keys: Vec<_> = Key::of_list(b"a b%20c d").collect();
        assert!(keys.iter().all(|key| !key.escape));
        let bytes: Vec<_> = keys.iter().map(|key| key.bytes).collect();
        assert_eq!(bytes, [&b"a"[..], b"b%20c", b"d"]);
    }

    /// The bit map of reserved bytes that nginx's Lua module uses for URI components.
    const RESERVED: [u32; 8] = [
        0xffff_ffff,
        0xfc00_987d,
        0x7800_0001,
        0xb800_0001,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
        0xffff_ffff,
    ];

    #[test]
    fn every_byte_is_escaped_as_the_bit_map_says() {
        for byte in 0..=255u8 {
            let reserved = RESERVED[usize::from(byte >> 5)] >> (byte & 31) & 1 == 1;
            let want = if reserved {
                format!("%{byte:02X}").into_bytes()
            } else {
                vec![byte]
            };
            assert_eq!(escaped(&[byte]), want, "byte {byte}");
            assert_eq!(is_unreserved(byte), !reserved, "byte {byte}");
            let key = Key {
                bytes: &[byte],
                escape: true,
            };
            assert_eq!(key.sent_len(), want.len());
        }
    }

    #[test]
    fn unescaping() {
        for (text, want) in [
            ("", ""),
            ("abc", "abc"),
            ("a+b", "a b"),
            ("++", "  "),
            ("%41%62%6a%4A", "AbjJ"),
            ("%", "%"),
            ("%4", "%4"),
            ("%4g1", "%4g1"),
            ("%%41", "%A"),
            ("%+1", "% 1"),
            ("%4+", "%4 "),
            ("%2B%20", "+ "),
            ("a?b%3Fc", "a?b?c"),
        ] {
            assert_eq!(unescaped(text.as_bytes()), want.as_bytes(), "{text}");
        }
    }

    /// Byte by byte, as an independent statement of the rule.
    fn model(text: &[u8]) -> Vec<u8> {
        let hex = |at: usize| text.get(at).and_then(|&b| char::from(b).to_digit(16));
        let mut out = Vec::new();
        let mut at = 0;
        while at < text.len() {
            match (text[at], hex(at + 1), hex(at + 2)) {
                (b'%', Some(high), Some(low)) => {
                    out.push((high * 16 + low) as u8);
                    at += 3;
                    continue;
                }
                (b'+', ..) => out.push(b' '),
                (byte, ..) => out.push(byte),
            }
            at += 1;
        }
        out
    }

    proptest! {
        #[test]
        fn unescaping_follows_the_model(text in "[%+0-9a-gA-G \u{80}]{0,24}") {
            prop_assert_eq!(unescaped(text.as_bytes()), model(text.as_bytes()));
        }

        #[test]
        fn escaping_is_undone_by_unescaping(key in proptest::collection::vec(any::<u8>(), 0..80)) {
            let text = escaped(&key);
            prop_assert!(text.iter().all(|&b| b > 0x20 && b < 0x7f));
            prop_assert_eq!(unescaped(&text), key);
        }
    }

    #[test]
    fn simple_keys_are_sent_as_they_are() {
        let longest = [b'k'; MAX_KEY_LEN];
        let longer = [b'k'; MAX_KEY_LEN + 1];
        for (bytes, simple) in [
            (&b""[..], false),
            (b"a", true),
            (b"AZaz09-._~!*'()", true),
            (b"a b", false),
            (b"a%b", false),
            (b"a/b", false),
            (b"\xc3\xa4", false),
            (&longest, true),
            (&longer, false),
        ] {
            for escape in [false, true] {
                assert_eq!(Key { bytes, escape }.is_simple(), simple, "{bytes:?}");
            }
        }
    }

    #[test]
    fn what_unescaping_leaves_is_plain() {
        for (text, plain) in [("", true), ("a-b", true), ("a+b", false), ("%41", false)] {
            assert_eq!(is_plain(text.as_bytes()), plain, "{text}");
        }
    }

    #[test]
    fn lengths_as_sent_and_their_bound() {
        let long = [b' '; 100];
        for (bytes, escape, len, bound) in [
            (&b""[..], true, 0, 0),
            (b"a b", true, 5, 9),
            (b"a b", false, 3, 3),
            (&long[..84], true, 252, 250),
            (&long, false, 100, 100),
        ] {
            let key = Key { bytes, escape };
            assert_eq!((key.sent_len(), key.max_sent_len()), (len, bound));
        }
    }
}
