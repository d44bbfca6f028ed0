//! Sizes, and `lua_memcached_max_value_size size;`.

use std::ffi::{c_char, c_void};
use std::ptr;

use nginx_sys::{ngx_command_t, ngx_conf_t, ngx_parse_offset, ngx_str_t};

use super::{ERROR, LocConf, UNSET};
use crate::contain::contain;

/// A number of bytes as in nginx's directives, with `k`, `m` or `g` for others.
pub fn parse(text: &[u8]) -> Option<usize> {
    let mut text = ngx_str_t {
        len: text.len(),
        data: text.as_ptr().cast_mut(),
    };
    // SAFETY: a valid string, which is only read.
    let size = unsafe { ngx_parse_offset(&mut text) };
    usize::try_from(size).ok()
}

/// The directive's handler.
pub unsafe extern "C" fn set_max_value_size(
    cf: *mut ngx_conf_t,
    _: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the configuration being read, with the directive
    // and its one argument, and what `create_loc_conf` made.
    unsafe {
        let conf = &mut *conf.cast::<LocConf>();
        if conf.max_value_size != UNSET {
            return c"is duplicate".as_ptr().cast_mut();
        }
        let text: ngx_str_t = *(*(*cf).args).elts.cast::<ngx_str_t>().add(1);
        match contain(|| parse(text.as_bytes())) {
            Some(Some(size)) => conf.max_value_size = size,
            Some(None) => {
                return c"needs a size such as 512k, 1m or 2g, or 0 for no limit"
                    .as_ptr()
                    .cast_mut();
            }
            None => return ERROR,
        }
    }
    ptr::null_mut() // NGX_CONF_OK
}
