//! Any bytes and flags as a value of PHP: read or refused, in memory that is bounded; and what was
//! read is written so that it is read again as the same.
//!
//! Input: four bytes for the flags; the value.

use ngx_http_lua_memcached_module::codec::php::{Error, Value, decode, encode};

const LIMIT: usize = 1000;

/// Stands in for zlib: bytes that come twice each.
fn twice(stream: &[u8], out: &mut Vec<u8>, len: usize) -> Result<(), Error> {
    assert!(out.is_empty() && len <= LIMIT && out.capacity() <= 2 * LIMIT);
    out.extend(stream.iter().flat_map(|byte| [*byte; 2]).take(len));
    Ok(())
}

/// Whether two values are the same, where each integer up to 2^53 is a number like any other.
fn same(one: &Value<'_>, other: &Value<'_>) -> bool {
    match (one, other) {
        (Value::Double(one), Value::Double(other)) => {
            one == other || one.is_nan() && other.is_nan()
        }
        (Value::Double(one), Value::Integer(other)) => *one == *other as f64,
        (one, other) => one == other,
    }
}

pub fn run(data: &[u8]) {
    let Some((flags, text)) = data.split_first_chunk() else {
        return;
    };
    // mostly no compression
    let mut flags = u32::from_le_bytes(*flags);
    if flags & 0x8000 == 0 {
        flags &= 0xffff_003f;
    }
    let digits = flags.to_string();
    let Ok((value, user)) = decode(text, digits.as_bytes(), LIMIT, twice) else {
        return;
    };
    assert_eq!(user, flags >> 16);
    let (written, again) = encode(value.clone(), user).expect("the flags fit");
    assert!(written.len() <= 400 || matches!(value, Value::Text(_) | Value::Json(_)));
    let digits = again.to_string();
    let (back, same_user) = decode(&written, digits.as_bytes(), 0, twice).expect("it is ours");
    assert!(same(&value, &back), "{value:?} {back:?}");
    assert_eq!(user, same_user);
}
