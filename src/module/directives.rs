//! The command table: `lua_memcached_*`.

use std::ptr;

use nginx_sys::{
    NGX_CONF_TAKE1, NGX_CONF_TAKE2, NGX_CONF_TAKE3, NGX_HTTP_LOC_CONF, NGX_HTTP_LOC_CONF_OFFSET,
    NGX_HTTP_MAIN_CONF, NGX_HTTP_SRV_CONF, ngx_command_t, ngx_str_t, ngx_uint_t,
};

use super::alias;
use super::groups;
use crate::conf;

/// With the one that ends the table.
const COUNT: usize = 10;

/// As nginx reads it.
pub static mut COMMANDS: [ngx_command_t; COUNT] = [
    ngx_command_t {
        name: ngx_str_t {
            len: "lua_memcached_max_value_size".len(),
            data: c"lua_memcached_max_value_size".as_ptr().cast_mut().cast(),
        },
        type_: (NGX_HTTP_MAIN_CONF | NGX_HTTP_SRV_CONF | NGX_HTTP_LOC_CONF | NGX_CONF_TAKE1)
            as ngx_uint_t,
        set: Some(conf::set::<conf::SetMaxValueSize>),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    },
    ngx_command_t {
        name: ngx_str_t {
            len: "lua_memcached_alias".len(),
            data: c"lua_memcached_alias".as_ptr().cast_mut().cast(),
        },
        type_: (NGX_HTTP_MAIN_CONF | NGX_CONF_TAKE1) as ngx_uint_t,
        set: Some(conf::set::<alias::Alias>),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
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
        set: Some(conf::set::<conf::SetMultiplex>),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    },
    ngx_command_t {
        name: ngx_str_t {
            len: "lua_memcached_queue".len(),
            data: c"lua_memcached_queue".as_ptr().cast_mut().cast(),
        },
        type_: (NGX_HTTP_MAIN_CONF
            | NGX_HTTP_SRV_CONF
            | NGX_HTTP_LOC_CONF
            | NGX_CONF_TAKE1
            | NGX_CONF_TAKE2
            | NGX_CONF_TAKE3) as ngx_uint_t,
        set: Some(conf::set::<conf::SetQueue>),
        conf: NGX_HTTP_LOC_CONF_OFFSET,
        offset: 0,
        post: ptr::null_mut(),
    },
    groups::HASH,
    groups::FAILOVER,
    groups::CHECK,
    groups::DISCOVER,
    groups::UPSTREAM,
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
