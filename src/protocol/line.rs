//! The meaning of single reply lines.

use super::expect::ReplyKind;
use super::number::{Digits, MAX_DIGITS};
use super::reply::{Hit, Reply, is_error};

/// Whether it is known where the next reply begins.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Framing {
    /// The next byte is the first one of the next reply.
    InSync,
    /// The meaning of the next byte is unknown.
    OutOfSync,
}

/// The reply of a command that is answered by one line.
pub(super) fn single(kind: ReplyKind, line: &[u8]) -> (Reply, Framing) {
    let done = match kind {
        ReplyKind::Store { .. } => line == b"STORED",
        ReplyKind::Delete => line == b"DELETED",
        // moxi and its descendants reply STORED to a touch.
        ReplyKind::Touch => matches!(line, b"TOUCHED" | b"STORED"),
        ReplyKind::Ok => line == b"OK",
        ReplyKind::MetaNoop => line == b"MN",
        _ => false,
    };
    if done {
        return (Reply::Done, Framing::InSync);
    }
    match kind {
        ReplyKind::Arith => {
            if let Some(number) = Digits::parse(line) {
                return (Reply::Number(number), Framing::InSync);
            }
        }
        ReplyKind::Version => {
            if let Some(text @ [_, ..]) = line.strip_prefix(b"VERSION ") {
                return (Reply::Version(text.to_vec()), Framing::InSync);
            }
        }
        _ => {}
    }
    let fits = match kind {
        // The server has consumed the value before SERVER_ERROR. Before the other two errors it may
        // not have, and then reads the value as commands.
        ReplyKind::Store { cas } => {
            line == b"NOT_STORED"
                || line == b"SERVER_ERROR"
                || line.starts_with(b"SERVER_ERROR ")
                || cas && matches!(line, b"EXISTS" | b"NOT_FOUND")
        }
        ReplyKind::Delete | ReplyKind::Arith | ReplyKind::Touch => {
            line == b"NOT_FOUND" || is_error(line)
        }
        _ => is_error(line),
    };
    let framing = if fits {
        Framing::InSync
    } else {
        Framing::OutOfSync
    };
    (Reply::Line(line.to_vec()), framing)
}

/// A line `VALUE <key> <flags> <bytes>[ <cas unique>]`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Header<'a> {
    /// All that follows the word VALUE.
    pub text: &'a [u8],
    pub key: &'a [u8],
    pub flags: Digits,
    /// `None`: the number exceeds 64 bits.
    pub len: Option<u64>,
    pub cas: Option<Digits>,
}

impl<'a> Header<'a> {
    /// `None` if the line is anything but a VALUE with exactly the fields asked for.
    pub fn parse(line: &'a [u8], cas: bool) -> Option<Self> {
        let text = line.strip_prefix(b"VALUE ")?;
        let rest = text;
        let (key, rest) = rest.split_at_checked(memchr::memchr(b' ', rest)?)?;
        if key.is_empty() {
            return None;
        }
        let (flags, rest) = field(rest)?;
        let (len, rest) = field(rest)?;
        let (cas, rest) = match cas {
            true => field(rest).map(|(cas, rest)| (Some(cas), rest))?,
            false => (None, rest),
        };
        if !rest.is_empty() {
            return None;
        }
        Some(Header {
            text,
            key,
            flags: Digits::parse(flags)?,
            len: number(len),
            cas: match cas {
                Some(cas) => Some(Digits::parse(cas)?),
                None => None,
            },
        })
    }
}

/// A VALUE of this key at the beginning of `reply`, if all of it is there, and what follows its
/// data. `max_line` is the limit of the header.
pub(super) fn whole_value<'a>(
    reply: &'a [u8],
    key: &[u8],
    cas: bool,
    max_line: usize,
) -> Option<(Hit<'a>, &'a [u8])> {
    let rest = reply.strip_prefix(b"VALUE ")?;
    let (key, rest) = match rest.split_at_checked(key.len())? {
        (found, rest) if found == key => (found, rest),
        _ => return None,
    };
    let (flags, rest) = digits(rest.strip_prefix(b" ")?)?;
    let (len, rest) = small_number(rest.strip_prefix(b" ")?)?;
    let (cas, rest) = match cas {
        true => digits(rest.strip_prefix(b" ")?).map(|(cas, rest)| (Some(cas), rest))?,
        false => (None, rest),
    };
    if reply.len() - rest.len() > max_line {
        return None;
    }
    let (data, rest) = rest.strip_prefix(b"\r\n")?.split_at_checked(len)?;
    let hit = Hit {
        key,
        data,
        flags,
        cas,
    };
    Some((hit, rest.strip_prefix(b"\r\n")?))
}

/// The digits at the beginning of `text`, if they are 1 to [`MAX_DIGITS`], and what follows.
fn digits(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let most = text.iter().take(MAX_DIGITS + 1);
    let len = most.take_while(|byte| byte.is_ascii_digit()).count();
    (1..=MAX_DIGITS)
        .contains(&len)
        .then(|| text.split_at_checked(len))?
}

/// The number at the beginning of `text`, if it has 1 to 8 digits, and what follows.
fn small_number(text: &[u8]) -> Option<(usize, &[u8])> {
    let mut number = 0;
    for (at, byte) in text.iter().take(9).enumerate() {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return (at > 0).then_some((number, text.get(at..)?));
        }
        number = number * 10 + usize::from(digit);
    }
    None
}

/// A space and the digits behind it, and what follows.
fn field(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let text = text.strip_prefix(b" ")?;
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    match len {
        0 => None,
        len => text.split_at_checked(len),
    }
}

/// The number of these digits, unless it is beyond 64 bits.
fn number(digits: &[u8]) -> Option<u64> {
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = u64::from(digit.wrapping_sub(b'0'));
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Whether the line may occur in a `stats` reply before its END.
pub(super) fn is_stat(line: &[u8]) -> bool {
    let word = line.split(|&byte| byte == b' ').next().unwrap_or_default();
    // ITEM: stats cachedump; PREFIX: stats detail dump.
    matches!(word, b"STAT" | b"ITEM" | b"PREFIX")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The short way's view of a text, with a header of at most 20 bytes: data, flags, cas and
    /// rest.
    fn whole(text: &str, cas: bool) -> Option<(String, String, String, String)> {
        let shown = |bytes: &[u8]| bytes.escape_ascii().to_string();
        let (hit, rest) = whole_value(text.as_bytes(), b"ab", cas, 20)?;
        assert_eq!(hit.key, b"ab");
        Some((
            shown(hit.data),
            shown(hit.flags),
            shown(hit.cas.unwrap_or_default()),
            shown(rest),
        ))
    }

    #[test]
    fn a_whole_value_is_seen_at_once() {
        for (text, cas, data, flags, unique, rest) in [
            ("VALUE ab 5 3\r\nxyz\r\nEND", false, "xyz", "5", "", "END"),
            ("VALUE ab 007 0\r\n\r\n", false, "", "007", "", ""),
            ("VALUE ab 5 1 9\r\nx\r\nV", true, "x", "5", "9", "V"),
            (
                "VALUE ab 123456789 1\r\nx\r\n",
                false,
                "x",
                "123456789",
                "",
                "",
            ),
        ] {
            let want = [data, flags, unique, rest].map(str::to_owned);
            assert_eq!(whole(text, cas), Some(want.into()), "{text:?}");
        }
    }

    #[test]
    fn what_is_not_a_whole_value_is_left_to_the_long_way() {
        for (text, cas) in [
            ("VALUE ab 5 3\r\nxyz\r", false),
            ("VALUE ab 5 3\r\nxy", false),
            ("VALUE ab 5 3\nxyz\r\n", false),
            ("VALUE ab 5 3\r\nxyzz\r\n", false),
            ("VALUE ac 5 3\r\nxyz\r\n", false),
            ("VALUE abc 5 3\r\nxyz\r\n", false),
            ("VALUE ab 5 3 9\r\nxyz\r\n", false),
            ("VALUE ab 5 3\r\nxyz\r\n", true),
            ("VALUE ab 5 3 x\r\nxyz\r\n", true),
            ("VALUE ab  3\r\nxyz\r\n", false),
            ("VALUE ab 5 -3\r\nxyz\r\n", false),
            ("VALUE ab 1234567890 1\r\nx\r\n", false),
            ("END\r\n", false),
            ("", false),
        ] {
            assert_eq!(whole(text, cas), None, "{text:?}");
        }
    }

    #[test]
    fn fields_have_up_to_twenty_digits() {
        for (text, first, rest) in [("7", "7", ""), ("007 x", "007", " x"), ("1a2", "1", "a2")] {
            let found = digits(text.as_bytes());
            assert_eq!(found, Some((first.as_bytes(), rest.as_bytes())));
        }
        for bad in ["", " 1", "-1", "123456789012345678901"] {
            assert_eq!(digits(bad.as_bytes()), None, "{bad}");
        }
        assert!(digits(b"12345678901234567890x").is_some());
    }

    #[test]
    fn small_numbers_have_up_to_eight_digits() {
        for (text, found) in [
            ("0 ", Some((0, " "))),
            ("9\r", Some((9, "\r"))),
            ("12345678/", Some((12_345_678, "/"))),
            ("00000017:", Some((17, ":"))),
            ("123456789 ", None),
            ("12345678", None),
            ("7", None),
            (" ", None),
            ("", None),
        ] {
            let found = found.map(|(number, rest)| (number, rest.as_bytes()));
            assert_eq!(small_number(text.as_bytes()), found, "{text:?}");
        }
    }
}
