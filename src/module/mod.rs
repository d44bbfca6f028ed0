//! What nginx sees of the module: its `ngx_module_t` and hooks.
//!
//! | file | subject |
//! |---|---|
//! | `directives` | the command table: `lua_memcached_*` |
//! | `alias` | `lua_memcached_alias` |
//! | `groups` | servers used as one: directives and a variable |
//! | `notice` | the line in error.log at the start |

mod alias;
mod directives;
#[cfg(feature = "groups")]
mod groups;
mod notice;

use std::ptr::NonNull;

use nginx_sys::{
    NGX_ERROR, NGX_HTTP_MODULE, NGX_LOG_EMERG, NGX_OK, ngx_conf_t, ngx_cycle_t, ngx_http_module_t,
    ngx_int_t, ngx_module_t, ngx_uint_t,
};

use crate::MEMORY;
use crate::contain::{INTERNAL, contain, report};
use crate::nginx::{Conf, Module};
use crate::{conf, lua, ngx_lua, transport};

static MODULE_CONTEXT: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: Some(postconfiguration),
    create_main_conf: None,
    init_main_conf: None,
    #[cfg(not(feature = "groups"))]
    create_srv_conf: None,
    #[cfg(feature = "groups")]
    create_srv_conf: Some(conf::create_srv_conf),
    merge_srv_conf: None,
    create_loc_conf: Some(conf::create_loc_conf),
    merge_loc_conf: Some(conf::merge_loc_conf),
};

ngx::ngx_modules!(ngx_http_lua_memcached_module);

/// The module, as `load_module` finds it.
#[unsafe(no_mangle)]
pub static mut ngx_http_lua_memcached_module: ngx_module_t = ngx_module_t {
    ctx: &raw const MODULE_CONTEXT as *mut _,
    commands: (&raw mut directives::COMMANDS).cast(),
    type_: NGX_HTTP_MODULE as ngx_uint_t,
    init_module: Some(init_module),
    init_process: Some(init_process),
    exit_process: Some(exit_process),
    exit_master: Some(exit_master),
    ..ngx_module_t::default()
};

/// Registers the Lua module with ngx_lua. Later than here, `require` inside
/// `init_by_lua*` would not find it.
unsafe extern "C" fn preconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    report();
    alias::forget();
    conf::forget();
    // SAFETY: the module has the hooks of `conf`; this is one of its hooks.
    let (module, cf) = unsafe {
        let module = Module::from_raw(&raw const ngx_http_lua_memcached_module);
        (module, Conf::from_raw(cf))
    };
    conf::set_module(module);
    #[cfg(feature = "groups")]
    {
        let module = &raw const ngx_http_lua_memcached_module;
        // SAFETY: as above, for `upstream` blocks.
        conf::set_upstream_module(unsafe { Module::from_raw(module) });
    }
    let registered = contain(|| register(cf));
    let Err(failed) = registered.unwrap_or_else(|| Err(INTERNAL.into())) else {
        return NGX_OK as ngx_int_t;
    };
    failed_with(cf, &failed)
}

/// Tells the operator why nginx cannot use the configuration.
fn failed_with(cf: Conf, error: &str) -> ngx_int_t {
    cf.log().write(NGX_LOG_EMERG, 0, format_args!("{error}"));
    NGX_ERROR as ngx_int_t
}

/// The error is for the operator to read.
fn register(cf: Conf) -> Result<(), String> {
    // first of all: nothing of ngx_lua may be touched when it is not there
    ngx_lua::check().map_err(|error| error.to_string())?;
    ngx_lua::discover().map_err(|error| error.to_string())?;
    #[cfg(feature = "groups")]
    groups::add_variable(cf)?;
    // SAFETY: the names are static.
    let registered = unsafe {
        ngx_lua::preload(cf, lua::NAME, lua::open)
            && ngx_lua::preload(cf, lua::status::NAME, lua::status::open)
    };
    match registered {
        true => Ok(()),
        false => Err("cannot register resty.memcached with ngx_http_lua_module".into()),
    }
}

/// The http block is read and merged.
unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    // SAFETY: this is a hook.
    let cf = unsafe { Conf::from_raw(cf) };
    let completed = contain(|| {
        #[cfg(feature = "groups")]
        let checked = conf::check_upstreams(cf);
        #[cfg(not(feature = "groups"))]
        let checked: Result<(), String> = Ok(());
        conf::complete(cf);
        notice::look(cf);
        checked
    });
    let Err(failed) = completed.unwrap_or_else(|| Err(INTERNAL.into())) else {
        return NGX_OK as ngx_int_t;
    };
    failed_with(cf, &failed)
}

/// The configuration is read. With `master_process off` this happens in the
/// worker itself at a reload: what is tied to the old cycle has to go before
/// it does.
unsafe extern "C" fn init_module(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    contain(|| {
        alias::forget();
        transport::forget_cycle();
        if let Some(cycle) = NonNull::new(cycle) {
            // SAFETY: this is `init_module`.
            unsafe { notice::write(cycle) };
        }
        conf::forget();
    });
    NGX_OK as ngx_int_t
}

/// While there is memory. If there is none, operations say so. Only what is made
/// here cannot fail later: where the C library finds no memory for a thread's
/// variables, it ends the process.
unsafe extern "C" fn init_process(_cycle: *mut ngx_cycle_t) -> ngx_int_t {
    MEMORY.fill();
    transport::start();
    NGX_OK as ngx_int_t
}

unsafe extern "C" fn exit_process(_cycle: *mut ngx_cycle_t) {
    contain(transport::shut_down);
    contain(crate::nginx::end_lines);
    contain(ngx_lua::forget_anchors);
    MEMORY.empty();
}

/// `init_by_lua*` runs in the master process, and may use the module there.
unsafe extern "C" fn exit_master(_cycle: *mut ngx_cycle_t) {
    transport::shut_down();
    crate::nginx::end_lines();
}
