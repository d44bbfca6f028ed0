//! Values as the PHP extension memcached stores them: the client flags have the type in bits 0 to
//! 3, the compression in bits 4 to 15, and what the user gave in the upper 16 bits.
//!
//! Strings, integers, doubles, booleans and JSON are read and written; of what is compressed, zlib
//! is read. Formats of PHP's own (`serialize`, igbinary) are not: what could be built from their
//! bytes has no meaning in Lua.
//!
//! What the bytes say of their size is checked before there is memory for it.

use std::borrow::Cow;
use std::str::{FromStr, from_utf8};

/// The bits of the type.
const TYPE: u32 = 0xf;
/// Compressed, and by zlib.
const ZLIB: u32 = 0x30;
const FASTLZ: u32 = 0x40;
const ZSTD: u32 = 0x80;
/// The bits of the compression, and those that mean nothing.
const COMPRESSION: u32 = 0xfff0;
/// The lowest bit of the user's flags.
const USER: u32 = 16;

const STRING: u32 = 0;
const LONG: u32 = 1;
const DOUBLE: u32 = 2;
const BOOL: u32 = 3;
const JSON: u32 = 6;

/// Up to here each integer is a number of Lua.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A value.
#[derive(Clone, PartialEq, Debug)]
pub enum Value<'a> {
    /// Any bytes.
    Text(Cow<'a, [u8]>),
    /// An integer.
    Integer(i64),
    /// Another number.
    Double(f64),
    /// A boolean.
    Boolean(bool),
    /// An array or object, as JSON.
    Json(Cow<'a, [u8]>),
}

/// A value that is not read or written.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Error {
    /// The flags have no 32 bits.
    #[error("bad flags of a PHP value")]
    Flags,
    /// A type that has no meaning here.
    #[error("value of PHP type {0} ({name}) is not supported", name = type_name(*.0))]
    Type(u32),
    /// Compressed in a way that is not known here.
    #[error("value that PHP has compressed with {0} is not supported")]
    Compression(&'static str),
    /// It is not what its type says.
    #[error("bad PHP value: not {0}")]
    Not(&'static str),
    /// Not what zlib makes, or not of the announced size.
    #[error("bad PHP value: cannot be inflated")]
    Inflate,
    /// nginx was built without it.
    #[error("compressed PHP value: there is no zlib")]
    NoZlib,
    /// An announced size that is not accepted.
    #[error("PHP value of {announced} bytes exceeds the limit of {limit}")]
    TooLarge {
        /// Bytes announced.
        announced: u32,
        /// Bytes accepted.
        limit: usize,
    },
    /// There is no memory for it.
    #[error("no memory for a PHP value")]
    NoMemory,
    /// Flags of the user that do not fit.
    #[error("bad flags: expecting an integer from 0 to 65535")]
    UserFlags,
}

fn type_name(number: u32) -> &'static str {
    match number {
        4 => "serialized",
        5 => "igbinary",
        7 => "msgpack",
        _ => "unknown",
    }
}

/// A value and the user's part of its flags. `inflate` fills a buffer with what is compressed,
/// exactly to its capacity; `limit` is for that, in bytes.
pub fn decode<'a>(
    text: &'a [u8],
    flags: &[u8],
    limit: usize,
    inflate: impl FnOnce(&[u8], &mut Vec<u8>, usize) -> Result<(), Error>,
) -> Result<(Value<'a>, u32), Error> {
    let flags: u32 = parse(flags).ok_or(Error::Flags)?;
    let kind = flags & TYPE;
    if !matches!(kind, STRING | LONG | DOUBLE | BOOL | JSON) {
        return Err(Error::Type(kind));
    }
    let text = match flags & COMPRESSION {
        0 => Cow::Borrowed(text),
        bits => Cow::Owned(inflated(text, bits, limit, inflate)?),
    };
    let value = match kind {
        LONG => Value::Integer(parse(number(&text)).ok_or(Error::Not("an integer"))?),
        DOUBLE => Value::Double(parse(number(&text)).ok_or(Error::Not("a number"))?),
        BOOL => Value::Boolean(match &*text {
            b"1" => true,
            b"" | b"0" => false,
            _ => return Err(Error::Not("a boolean")),
        }),
        JSON => Value::Json(text),
        _ => Value::Text(text),
    };
    Ok((value, flags >> USER))
}

fn parse<T: FromStr>(text: &[u8]) -> Option<T> {
    from_utf8(text).ok()?.parse().ok()
}

/// Without the spaces that memcached leaves behind a number that it has made shorter.
fn number(text: &[u8]) -> &[u8] {
    text.trim_ascii_end()
}

/// What is compressed begins with its length, in the byte order of the machine.
fn inflated(
    text: &[u8],
    bits: u32,
    limit: usize,
    inflate: impl FnOnce(&[u8], &mut Vec<u8>, usize) -> Result<(), Error>,
) -> Result<Vec<u8>, Error> {
    match bits {
        ZLIB => {}
        _ if bits & FASTLZ != 0 => return Err(Error::Compression("fastlz")),
        _ if bits & ZSTD != 0 => return Err(Error::Compression("zstd")),
        _ => return Err(Error::Compression("an unknown method")),
    }
    let (announced, stream) = text.split_first_chunk().ok_or(Error::Inflate)?;
    let announced = u32::from_ne_bytes(*announced);
    let len = usize::try_from(announced).ok().filter(|len| *len <= limit);
    let len = len.ok_or(Error::TooLarge { announced, limit })?;
    let mut out = Vec::new();
    out.try_reserve_exact(len).map_err(|_| Error::NoMemory)?;
    inflate(stream, &mut out, len)?;
    if out.len() != len {
        return Err(Error::Inflate);
    }
    Ok(out)
}

/// A value's text, and the flags that say what it is. `user`: the user's flags, up to 16 bits.
pub fn encode(value: Value<'_>, user: u32) -> Result<(Cow<'_, [u8]>, u32), Error> {
    let user = match user {
        0..=0xffff => user * (1 << USER),
        _ => return Err(Error::UserFlags),
    };
    let text = |text: String| Cow::Owned(text.into_bytes());
    let (text, kind) = match value {
        Value::Text(bytes) => (bytes, STRING),
        Value::Integer(number) => (text(number.to_string()), LONG),
        Value::Double(number) if is_exact(number) => (text(format!("{number:.0}")), LONG),
        Value::Double(f64::INFINITY) => (text("Infinity".into()), DOUBLE),
        Value::Double(f64::NEG_INFINITY) => (text("-Infinity".into()), DOUBLE),
        // the shortest text that is read as the same number; NaN
        Value::Double(number) => (text(format!("{number:?}")), DOUBLE),
        Value::Boolean(true) => (Cow::Borrowed(&b"1"[..]), BOOL),
        Value::Boolean(false) => (Cow::Borrowed(&b""[..]), BOOL),
        Value::Json(json) => (json, JSON),
    };
    Ok((text, kind + user))
}

/// Whether it is an integer, and none of its neighbours has the same number.
fn is_exact(number: f64) -> bool {
    number.fract() == 0.0 && number.abs() <= EXACT && !(number == 0.0 && number.is_sign_negative())
}

/// An integer as a number of Lua, if there is one.
pub fn exact(integer: i64) -> Option<f64> {
    // beyond, rounding may lead back to the limit
    (integer.unsigned_abs() <= EXACT as u64).then_some(integer as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Stands in for zlib: a byte for the number of times that the next one comes.
    fn repeat(stream: &[u8], out: &mut Vec<u8>, len: usize) -> Result<(), Error> {
        assert!(out.is_empty() && out.capacity() >= len);
        let [times, byte] = stream else {
            return Err(Error::Inflate);
        };
        out.resize(usize::from(*times), *byte);
        Ok(())
    }

    fn read(text: &[u8], flags: &str) -> Result<(Value<'static>, u32), String> {
        match decode(text, flags.as_bytes(), 10, repeat) {
            Ok((value, user)) => {
                let own = |text: Cow<'_, [u8]>| Cow::Owned(text.into_owned());
                let value = match value {
                    Value::Text(text) => Value::Text(own(text)),
                    Value::Json(text) => Value::Json(own(text)),
                    Value::Integer(number) => Value::Integer(number),
                    Value::Double(number) => Value::Double(number),
                    Value::Boolean(value) => Value::Boolean(value),
                };
                Ok((value, user))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn text(text: &str) -> Value<'static> {
        Value::Text(Cow::Owned(text.into()))
    }

    fn json(text: &str) -> Value<'static> {
        Value::Json(Cow::Owned(text.into()))
    }

    #[test]
    fn what_php_writes() {
        for (bytes, flags, value, user) in [
            ("abc", "0", text("abc"), 0),
            ("", "0", text(""), 0),
            ("42", "1", Value::Integer(42), 0),
            ("-5", "1", Value::Integer(-5), 0),
            ("9 ", "1", Value::Integer(9), 0),
            ("9223372036854775807", "1", Value::Integer(i64::MAX), 0),
            ("1.5", "2", Value::Double(1.5), 0),
            (".1", "2", Value::Double(0.1), 0),
            ("3", "2", Value::Double(3.0), 0),
            ("1e+300", "2", Value::Double(1e300), 0),
            ("Infinity", "2", Value::Double(f64::INFINITY), 0),
            ("-Infinity", "2", Value::Double(f64::NEG_INFINITY), 0),
            ("1", "3", Value::Boolean(true), 0),
            ("", "3", Value::Boolean(false), 0),
            ("0", "3", Value::Boolean(false), 0),
            ("{\"a\":1}", "6", json("{\"a\":1}"), 0),
            ("x", "327680", text("x"), 5),
            ("7", "4294901761", Value::Integer(7), 65535),
        ] {
            assert_eq!(
                read(bytes.as_bytes(), flags),
                Ok((value, user)),
                "{bytes} {flags}"
            );
        }
        assert!(matches!(read(b"NaN", "2"), Ok((Value::Double(number), 0)) if number.is_nan()));
    }

    #[test]
    fn what_is_not_read() {
        for (bytes, flags, error) in [
            (
                "N;",
                "4",
                "value of PHP type 4 (serialized) is not supported",
            ),
            ("", "5", "value of PHP type 5 (igbinary) is not supported"),
            ("", "7", "value of PHP type 7 (msgpack) is not supported"),
            ("", "8", "value of PHP type 8 (unknown) is not supported"),
            ("", "15", "value of PHP type 15 (unknown) is not supported"),
            (
                "",
                "84",
                "value of PHP type 4 (serialized) is not supported",
            ),
            (
                "",
                "80",
                "value that PHP has compressed with fastlz is not supported",
            ),
            (
                "",
                "144",
                "value that PHP has compressed with zstd is not supported",
            ),
            (
                "",
                "16",
                "value that PHP has compressed with an unknown method is not supported",
            ),
            (
                "",
                "32",
                "value that PHP has compressed with an unknown method is not supported",
            ),
            (
                "",
                "256",
                "value that PHP has compressed with an unknown method is not supported",
            ),
            (
                "",
                "32816",
                "value that PHP has compressed with an unknown method is not supported",
            ),
            ("x", "1", "bad PHP value: not an integer"),
            ("", "1", "bad PHP value: not an integer"),
            ("9223372036854775808", "1", "bad PHP value: not an integer"),
            ("1.5", "1", "bad PHP value: not an integer"),
            ("x", "2", "bad PHP value: not a number"),
            ("", "2", "bad PHP value: not a number"),
            ("2", "3", "bad PHP value: not a boolean"),
            ("true", "3", "bad PHP value: not a boolean"),
            ("", "4294967296", "bad flags of a PHP value"),
            ("", "", "bad flags of a PHP value"),
            ("", "-1", "bad flags of a PHP value"),
        ] {
            assert_eq!(
                read(bytes.as_bytes(), flags),
                Err(error.to_owned()),
                "{bytes} {flags}"
            );
        }
        assert_eq!(
            read(b"\xff", "1"),
            Err("bad PHP value: not an integer".into())
        );
    }

    fn compressed(announced: u32, stream: &[u8]) -> Vec<u8> {
        [&announced.to_ne_bytes()[..], stream].concat()
    }

    #[test]
    fn what_is_compressed() {
        let cases = [
            (compressed(3, b"\x03x"), "48", Ok((text("xxx"), 0))),
            (compressed(10, b"\x0ax"), "48", Ok((text("xxxxxxxxxx"), 0))),
            (compressed(1, b"\x017"), "65585", Ok((Value::Integer(7), 1))),
            (compressed(2, b"\x02["), "54", Ok((json("[["), 0))),
            (compressed(0, b"\x00x"), "48", Ok((text(""), 0))),
            (
                compressed(11, b"\x0bx"),
                "48",
                Err("PHP value of 11 bytes exceeds the limit of 10"),
            ),
            (
                compressed(u32::MAX, b"\x0bx"),
                "48",
                Err("PHP value of 4294967295 bytes exceeds the limit of 10"),
            ),
            (
                compressed(3, b"\x02x"),
                "48",
                Err("bad PHP value: cannot be inflated"),
            ),
            (
                compressed(3, b"\x04x"),
                "48",
                Err("bad PHP value: cannot be inflated"),
            ),
            (
                compressed(3, b""),
                "48",
                Err("bad PHP value: cannot be inflated"),
            ),
            (
                vec![1, 0, 0],
                "48",
                Err("bad PHP value: cannot be inflated"),
            ),
            (vec![], "48", Err("bad PHP value: cannot be inflated")),
        ];
        for (bytes, flags, want) in cases {
            assert_eq!(
                read(&bytes, flags),
                want.map_err(str::to_owned),
                "{bytes:?} {flags}"
            );
        }
        let bytes = compressed(1, b"");
        let missing = decode(&bytes, b"48", 10, |_, _, _| Err(Error::NoZlib));
        assert_eq!(
            missing.unwrap_err().to_string(),
            "compressed PHP value: there is no zlib"
        );
    }

    fn written(value: Value<'_>, user: u32) -> (String, u32) {
        let (text, flags) = encode(value, user).unwrap();
        (String::from_utf8(text.into_owned()).unwrap(), flags)
    }

    #[test]
    fn what_is_written() {
        for (value, bytes, flags) in [
            (text("abc"), "abc", 0),
            (Value::Integer(i64::MIN), "-9223372036854775808", 1),
            (Value::Double(42.0), "42", 1),
            (Value::Double(-42.0), "-42", 1),
            (Value::Double(0.0), "0", 1),
            (Value::Double(-0.0), "-0.0", 2),
            (Value::Double(EXACT), "9007199254740992", 1),
            (Value::Double(EXACT + 2.0), "9007199254740994.0", 2),
            (Value::Double(1.5), "1.5", 2),
            (Value::Double(0.1), "0.1", 2),
            (Value::Double(1e300), "1e300", 2),
            (Value::Double(f64::NAN), "NaN", 2),
            (Value::Double(f64::INFINITY), "Infinity", 2),
            (Value::Double(f64::NEG_INFINITY), "-Infinity", 2),
            (Value::Boolean(true), "1", 3),
            (Value::Boolean(false), "", 3),
            (json("[]"), "[]", 6),
        ] {
            assert_eq!(
                written(value.clone(), 0),
                (bytes.to_owned(), flags),
                "{value:?}"
            );
            assert_eq!(written(value, 5), (bytes.to_owned(), flags | 327_680));
        }
        assert_eq!(written(text(""), 65535), (String::new(), 4_294_901_760));
        let refused = encode(text(""), 65536).unwrap_err().to_string();
        assert_eq!(refused, "bad flags: expecting an integer from 0 to 65535");
    }

    #[test]
    fn integers_that_numbers_can_tell_apart() {
        for (integer, number) in [
            (0, Some(0.0)),
            (-7, Some(-7.0)),
            (9_007_199_254_740_992, Some(EXACT)),
            (-9_007_199_254_740_992, Some(-EXACT)),
            (9_007_199_254_740_993, None),
            (-9_007_199_254_740_993, None),
            (9_007_199_254_740_994, None),
            (i64::MAX, None),
            (i64::MIN, None),
        ] {
            assert_eq!(exact(integer), number, "{integer}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            number in any::<f64>(),
            integer in any::<i64>(),
            bytes in proptest::collection::vec(any::<u8>(), 0..20),
            user in 0u32..65536,
        ) {
            for value in [
                Value::Double(number),
                Value::Integer(integer),
                Value::Text(Cow::Borrowed(&bytes)),
                Value::Json(Cow::Borrowed(&bytes)),
            ] {
                let (text, flags) = encode(value.clone(), user).unwrap();
                let flags = flags.to_string();
                let (back, same) = decode(&text, flags.as_bytes(), 0, repeat).unwrap();
                prop_assert_eq!(same, user);
                match (value, back) {
                    (Value::Double(one), Value::Double(other)) => {
                        prop_assert!(one.to_bits() == other.to_bits() || one.is_nan() && other.is_nan());
                    }
                    (Value::Double(one), Value::Integer(other)) => {
                        prop_assert_eq!(exact(other), Some(one));
                    }
                    (one, other) => prop_assert_eq!(one, other),
                }
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(any::<u8>(), 0..20),
            flags in any::<u32>(),
        ) {
            let flags = flags.to_string();
            let _ = decode(&bytes, flags.as_bytes(), 10, repeat);
        }
    }
}
