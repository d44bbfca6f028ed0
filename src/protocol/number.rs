//! Decimal text: arguments that memcached parses as integers, and numbers in replies.

use std::str::{FromStr, from_utf8};

/// Most digits of an unsigned 64-bit integer.
pub const MAX_DIGITS: usize = 20;

/// Longest integer argument in bytes. memcached reads leading zeros without end, but closes the
/// connection at a command line of 2048 bytes.
const MAX_INTEGER_LEN: usize = 128;

/// Decimal digits kept as text, because Lua gets numbers of replies as strings. 1 to 20 bytes, held
/// inline.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Digits {
    len: u8,
    text: [u8; MAX_DIGITS],
}

impl Digits {
    /// `None` unless `text` is 1 to 20 ASCII digits.
    pub fn parse(text: &[u8]) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_DIGITS {
            return None;
        }
        let mut digits = Digits {
            len: text.len() as u8,
            text: [b'0'; MAX_DIGITS],
        };
        for (to, from) in digits.text.iter_mut().zip(text) {
            if !from.is_ascii_digit() {
                return None;
            }
            *to = *from;
        }
        Some(digits)
    }

    /// The number, unless it is beyond 64 bits.
    pub(super) fn number(&self) -> Option<u64> {
        from_utf8(self.as_bytes()).ok()?.parse().ok()
    }

    /// The digits as received.
    pub fn as_bytes(&self) -> &[u8] {
        self.text.get(..usize::from(self.len)).unwrap_or_default()
    }
}

impl From<u64> for Digits {
    fn from(mut number: u64) -> Self {
        let len = number.checked_ilog10().unwrap_or(0) as usize + 1;
        let mut text = [b'0'; MAX_DIGITS];
        for slot in text.iter_mut().take(len).rev() {
            *slot = b'0' + (number % 10) as u8;
            number /= 10;
        }
        Digits {
            len: len as u8,
            text,
        }
    }
}

impl std::fmt::Debug for Digits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.as_bytes().escape_ascii())
    }
}

fn parse<T: FromStr>(text: &[u8]) -> Option<T> {
    if text.len() > MAX_INTEGER_LEN {
        return None;
    }
    from_utf8(text).ok()?.parse().ok()
}

/// Whether `text` is an unsigned integer up to `max` as memcached's `strtoul` wrappers take it: a
/// `+` and leading zeros may be there, `-` only before zero.
pub(super) fn is_unsigned(text: &[u8], max: u64) -> bool {
    match text.strip_prefix(b"-") {
        Some(rest) => {
            !rest.is_empty() && rest.len() < MAX_INTEGER_LEN && rest.iter().all(|&b| b == b'0')
        }
        None => parse::<u64>(text).is_some_and(|number| number <= max),
    }
}

/// Whether `text` is a signed 64-bit integer, with an optional sign and leading zeros.
pub(super) fn is_signed(text: &[u8]) -> bool {
    parse::<i64>(text).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsigned_arguments() {
        for good in ["0", "-0", "-00", "+5", "007", "4294967295", "+4294967295"] {
            assert!(is_unsigned(good.as_bytes(), u32::MAX.into()), "{good}");
        }
        for bad in [
            "",
            "+",
            "-",
            "-1",
            "1.5",
            "abc",
            "0x5",
            "4294967296",
            "++1",
            "+-0",
            "--0",
            "1 ",
            " 1",
        ] {
            assert!(!is_unsigned(bad.as_bytes(), u32::MAX.into()), "{bad}");
        }
        assert!(is_unsigned(b"18446744073709551615", u64::MAX));
        assert!(!is_unsigned(b"18446744073709551616", u64::MAX));
        assert!(!is_unsigned(&[b'0'; 3000], u64::MAX));
        assert!(!is_unsigned(b"\xff", u64::MAX));
    }

    #[test]
    fn signed_arguments() {
        for good in [
            "0",
            "-1",
            "+5",
            "-0",
            "007",
            "9223372036854775807",
            "-9223372036854775808",
        ] {
            assert!(is_signed(good.as_bytes()), "{good}");
        }
        for bad in [
            "",
            "+",
            "-",
            "1.5",
            "abc",
            "0x5",
            "9223372036854775808",
            "--1",
            "nan",
            "1e3",
        ] {
            assert!(!is_signed(bad.as_bytes()), "{bad}");
        }
        assert!(!is_signed(&[b'0'; 3000]));
    }

    #[test]
    fn digits() {
        for number in [0, 7, 10, 4_294_967_296, u64::MAX] {
            let text = number.to_string();
            assert_eq!(Digits::from(number).as_bytes(), text.as_bytes());
            assert_eq!(Digits::parse(text.as_bytes()), Some(Digits::from(number)));
        }
        assert_eq!(Digits::parse(b"007").unwrap().as_bytes(), b"007");
        for bad in ["", "a", "-1", "+1", "1 ", "123456789012345678901"] {
            assert_eq!(Digits::parse(bad.as_bytes()), None, "{bad}");
        }
        assert_eq!(Digits::parse(&[b'1'; 300]), None);
    }

    #[test]
    fn integers_have_at_most_128_bytes() {
        let text = |sign: &str, len: usize| format!("{sign}{}", "0".repeat(len - sign.len()));
        for sign in ["", "+", "-"] {
            assert!(is_unsigned(text(sign, 128).as_bytes(), 9), "{sign}");
            assert!(!is_unsigned(text(sign, 129).as_bytes(), 9), "{sign}");
            assert!(is_signed(text(sign, 128).as_bytes()), "{sign}");
            assert!(!is_signed(text(sign, 129).as_bytes()), "{sign}");
        }
    }
}
