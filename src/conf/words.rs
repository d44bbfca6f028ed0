//! Numbers, sizes and times in arguments of directives.

use nginx_sys::{ngx_parse_size, ngx_parse_time, ngx_str_t};

use crate::nginx::Msec;

/// A decimal number.
pub fn number(text: &[u8]) -> Option<usize> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// A size as nginx writes it, in bytes; not 0.
pub fn size(text: &[u8]) -> Option<usize> {
    // SAFETY: a valid string, which is only read.
    let size = unsafe { ngx_parse_size(&mut string(text)) };
    usize::try_from(size).ok().filter(|size| *size > 0)
}

/// A time as nginx writes it, in milliseconds.
pub fn milliseconds(text: &[u8]) -> Option<Msec> {
    Msec::try_from(time(text, false)?).ok()
}

/// A time as nginx writes it, in whole seconds.
pub fn seconds(text: &[u8]) -> Option<u32> {
    u32::try_from(time(text, true)?).ok()
}

fn time(text: &[u8], in_seconds: bool) -> Option<isize> {
    // SAFETY: as above.
    let time = unsafe { ngx_parse_time(&mut string(text), in_seconds.into()) };
    (time >= 0 && !text.is_empty()).then_some(time)
}

fn string(text: &[u8]) -> ngx_str_t {
    ngx_str_t {
        len: text.len(),
        data: text.as_ptr().cast_mut(),
    }
}
