//! The command table: `lua_memcached_*`.

use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use nginx_sys::{
    NGX_CONF_TAKE1, NGX_CONF_TAKE2, NGX_CONF_TAKE3, NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET,
    NGX_HTTP_MAIN_CONF, NGX_HTTP_SRV_CONF, NGX_HTTP_SRV_CONF_OFFSET, NGX_HTTP_UPS_CONF,
    ngx_command_t, ngx_conf_set_size_slot, ngx_conf_t, ngx_str_t, ngx_uint_t,
};

use super::alias;
use crate::conf;

/// A directive of an `upstream` block.
const fn of_upstream(name: &'static CStr, arguments: u32, set: Handler) -> ngx_command_t {
    ngx_command_t {
        name: ngx_str_t {
            len: name.count_bytes(),
            data: name.as_ptr().cast_mut().cast(),
        },
        type_: (NGX_HTTP_UPS_CONF | arguments) as ngx_uint_t,
        set: Some(set),
        conf: NGX_HTTP_SRV_CONF_OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    }
}

type Handler =
    unsafe extern "C" fn(*mut ngx_conf_t, *mut ngx_command_t, *mut c_void) -> *mut c_char;

/// As nginx reads it.
pub static mut COMMANDS: [ngx_command_t; 9] = [
    ngx_command_t {
        name: ngx_str_t {
            len: "lua_memcached_max_value_size".len(),
            data: c"lua_memcached_max_value_size".as_ptr().cast_mut().cast(),
        },
        type_: (NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1)
            as ngx_uint_t,
        set: Some(ngx_conf_set_size_slot),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset: conf::MAX_VALUE_SIZE_OFFSET,
        post: ptr::null_mut(),
    },
    ngx_command_t {
        name: ngx_str_t {
            len: "lua_memcached_alias".len(),
            data: c"lua_memcached_alias".as_ptr().cast_mut().cast(),
        },
        type_: (NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1) as ngx_uint_t,
        set: Some(alias::set),
        conf: 0,
        offset: 0,
        post: ptr::null_mut(),
    },
    ngx_command_t {
        name: ngx_str_t {
            len: "lua_memcached_multiplex".len(),
            data: c"lua_memcached_multiplex".as_ptr().cast_mut().cast(),
        },
        type_: (NGX_HTTP_MAIN_CONF
            | NGX_HTTP_SRV_CONF
            | NGX_HTTP_LOC_CONF
            | NGX_CONF_TAKE1
            | NGX_CONF_TAKE2
            | NGX_CONF_TAKE3) as ngx_uint_t,
        set: Some(conf::set_multiplex),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    },
    of_upstream(
        c"lua_memcached_hash",
        NGX_CONF_TAKE1 | NGX_CONF_TAKE2 | NGX_CONF_TAKE3,
        conf::set_hash,
    ),
    of_upstream(
        c"lua_memcached_failover",
        NGX_CONF_TAKE1 | NGX_CONF_TAKE2,
        conf::set_failover,
    ),
    of_upstream(
        c"lua_memcached_check",
        NGX_CONF_TAKE1 | NGX_CONF_TAKE2 | NGX_CONF_TAKE3,
        conf::set_check,
    ),
    of_upstream(
        c"lua_memcached_discover",
        NGX_CONF_TAKE1 | NGX_CONF_TAKE2 | NGX_CONF_TAKE3,
        conf::set_discover,
    ),
    ngx_command_t {
        name: ngx_str_t {
            len: "lua_memcached_upstream".len(),
            data: c"lua_memcached_upstream".as_ptr().cast_mut().cast(),
        },
        type_: (NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE2)
            as ngx_uint_t,
        set: Some(conf::set_mapping),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    },
    // ngx_null_command
    ngx_command_t {
        name: ngx_str_t {
            len: 0,
            data: ptr::null_mut(),
        },
        type_: 0,
        set: None,
        conf: 0,
        offset: 0,
        post: ptr::null_mut(),
    },
];
