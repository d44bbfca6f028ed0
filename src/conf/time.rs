//! Times in arguments of directives.

use nginx_sys::{ngx_parse_time, ngx_str_t};

use crate::nginx::Msec;

/// A time as nginx writes it, in milliseconds.
pub fn milliseconds(text: &[u8]) -> Option<Msec> {
    Msec::try_from(time(text, false)?).ok()
}

/// A time as nginx writes it, in whole seconds.
pub fn seconds(text: &[u8]) -> Option<u32> {
    u32::try_from(time(text, true)?).ok()
}

fn time(text: &[u8], in_seconds: bool) -> Option<isize> {
    let mut string = ngx_str_t {
        len: text.len(),
        data: text.as_ptr().cast_mut(),
    };
    // SAFETY: a valid string, which is only read.
    let time = unsafe { ngx_parse_time(&raw mut string, in_seconds.into()) };
    (time >= 0 && !text.is_empty()).then_some(time)
}
