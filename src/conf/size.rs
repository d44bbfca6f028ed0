//! Sizes, and `lua_memcached_max_value_size size;`.

use std::cell::Cell;
use std::ffi::c_char;
use std::ptr;

use super::{Directive, ERROR, LocConf, UNSET};
use crate::contain::contain;
use crate::nginx::Conf;

/// A number of bytes as in nginx's directives, with `k`, `m` or `g` for others.
pub fn parse(text: &[u8]) -> Option<usize> {
    let (digits, unit) = match text {
        [digits @ .., b'k' | b'K'] => (digits, 1 << 10),
        [digits @ .., b'm' | b'M'] => (digits, 1 << 20),
        [digits @ .., b'g' | b'G'] => (digits, 1 << 30),
        digits => (digits, 1),
    };
    // a sign would be parsed, too
    let only_digits = digits.iter().all(u8::is_ascii_digit);
    let number: usize = str::from_utf8(digits)
        .ok()
        .filter(|_| only_digits)?
        .parse()
        .ok()?;
    let size = number.checked_mul(unit)?;
    (size <= isize::MAX as usize).then_some(size)
}

/// `lua_memcached_max_value_size`
pub enum MaxValueSize {}

impl Directive for MaxValueSize {
    type Of = LocConf;

    fn set(cf: Conf, conf: &Cell<LocConf>) -> *mut c_char {
        let mut changed = conf.get();
        if changed.max_value_size != UNSET {
            return c"is duplicate".as_ptr().cast_mut();
        }
        let size = contain(|| parse(cf.arguments().get(1)?.as_bytes()));
        match size {
            Some(Some(size)) => changed.max_value_size = size,
            Some(None) => {
                return c"needs a size such as 512k, 1m or 2g, or 0 for no limit"
                    .as_ptr()
                    .cast_mut();
            }
            None => return ERROR,
        }
        conf.set(changed);
        ptr::null_mut() // NGX_CONF_OK
    }
}
