//! What nginx sees of servers used as one: directives, and a variable.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use nginx_sys::{
    NGX_CONF_TAKE1, NGX_CONF_TAKE2, NGX_CONF_TAKE3, NGX_ERROR, NGX_HTTP_LOC_CONF,
    NGX_HTTP_LOC_CONF_OFFSET, NGX_HTTP_MAIN_CONF, NGX_HTTP_SRV_CONF, NGX_HTTP_SRV_CONF_OFFSET,
    NGX_HTTP_UPS_CONF, ngx_command_t, ngx_conf_t, ngx_http_add_variable, ngx_http_request_t,
    ngx_http_variable_value_t, ngx_int_t, ngx_str_t, ngx_uint_t,
};

use crate::conf;
use crate::nginx::Conf;

type Handler =
    unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_command_t, *mut c_void) -> *mut c_char;

const fn string(text: &'static CStr) -> ngx_str_t {
    ngx_str_t {
        len: text.count_bytes(),
        data: text.as_ptr().cast_mut().cast(),
    }
}

/// A directive of an `upstream` block.
const fn of_upstream(name: &'static CStr, arguments: u32, set: Handler) -> ngx_command_t {
    ngx_command_t {
        name: string(name),
        type_: (NGX_HTTP_UPS_CONF | arguments) as ngx_uint_t,
        set: Some(set),
        conf: NGX_HTTP_SRV_CONF_OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    }
}

const UP_TO_TWO: u32 = NGX_CONF_TAKE1 | NGX_CONF_TAKE2;
const UP_TO_THREE: u32 = UP_TO_TWO | NGX_CONF_TAKE3;

pub const HASH: ngx_command_t = of_upstream(
    c"lua_memcached_hash",
    UP_TO_THREE,
    conf::set::<conf::SetHash>,
);

pub const FAILOVER: ngx_command_t = of_upstream(
    c"lua_memcached_failover",
    UP_TO_TWO,
    conf::set::<conf::SetFailover>,
);

pub const CHECK: ngx_command_t = of_upstream(
    c"lua_memcached_check",
    UP_TO_THREE,
    conf::set::<conf::SetCheck>,
);

pub const DISCOVER: ngx_command_t = of_upstream(
    c"lua_memcached_discover",
    UP_TO_THREE,
    conf::set::<conf::SetDiscover>,
);

pub const UPSTREAM: ngx_command_t = ngx_command_t {
    name: string(c"lua_memcached_upstream"),
    type_: (NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE2)
        as ngx_uint_t,
    set: Some(conf::set::<conf::SetMapping>),
    conf: NGX_HTTP_LOC_CONF_OFFSET,
    offset: 0,
    post: ptr::null_mut(),
};

/// Makes the variable `$lua_memcached_key`: what `hash` can name where Lua alone uses an upstream,
/// and no other module has a variable for the key. It has no value. The error is for the operator.
/// For `preconfiguration`.
pub fn add_variable(cf: Conf) -> Result<(), String> {
    let mut name = string(c"lua_memcached_key");
    // SAFETY: nginx copies the name, and nobody else has the variable yet.
    unsafe {
        match ngx_http_add_variable(cf.as_ptr(), &raw mut name, 0).as_mut() {
            None => Err("cannot add the variable $lua_memcached_key".into()),
            Some(variable) => {
                variable.get_handler = Some(get);
                Ok(())
            }
        }
    }
}

/// nginx takes what fails for a variable that has no value.
unsafe extern "C" fn get(
    _: *mut ngx_http_request_t,
    _: *mut ngx_http_variable_value_t,
    _: usize,
) -> ngx_int_t {
    NGX_ERROR as ngx_int_t
}
