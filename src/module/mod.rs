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
mod groups;
mod notice;

use std::ptr::NonNull;

use nginx_sys::{
    NGX_ERROR, NGX_HTTP_MODULE, NGX_LOG_EMERG, NGX_OK, ngx_conf_t, ngx_cycle_t, ngx_http_module_t,
    ngx_int_t, ngx_module_t, ngx_uint_t,
};

use crate::contain::{INTERNAL, contain, report};
use crate::nginx::{Conf, Log, Module};
use crate::reserve::MEMORY;
use crate::{conf, lua, ngx_lua, transport};

static MODULE_CONTEXT: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(hook::<Before>),
    postconfiguration: Some(hook::<After>),
    create_main_conf: None,
    init_main_conf: None,
    create_srv_conf: Some(conf::create::<conf::UpstreamConf>),
    merge_srv_conf: None,
    create_loc_conf: Some(conf::create::<conf::LocConf>),
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

/// What is done while nginx reads a configuration.
trait Stage {
    /// The error is for the operator to read.
    fn run(cf: Conf) -> Result<(), String>;
}

/// A hook for a stage. If it fails, nginx cannot use the configuration.
unsafe extern "C" fn hook<S: Stage>(cf: *mut ngx_conf_t) -> ngx_int_t {
    // SAFETY: this is a hook.
    let cf = unsafe { Conf::from_raw(cf) };
    let done = contain(|| S::run(cf)).unwrap_or_else(|| Err(INTERNAL.into()));
    let Err(error) = done else {
        return NGX_OK as ngx_int_t;
    };
    cf.log().write(NGX_LOG_EMERG, 0, format_args!("{error}"));
    NGX_ERROR as ngx_int_t
}

/// `preconfiguration`: registers the Lua modules with ngx_lua. Later than here, `require` inside
/// `init_by_lua*` would not find them.
enum Before {}

impl Stage for Before {
    fn run(cf: Conf) -> Result<(), String> {
        report();
        alias::forget();
        conf::forget();
        let module = &raw const ngx_http_lua_memcached_module;
        // SAFETY: the module has the hooks of `conf`.
        conf::set_module(unsafe { Module::from_raw(module) });
        // SAFETY: as above, for `upstream` blocks.
        conf::set_upstream_module(unsafe { Module::from_raw(module) });
        register(cf)
    }
}

/// The error is for the operator to read.
fn register(cf: Conf) -> Result<(), String> {
    // first of all: nothing of ngx_lua may be touched when it is not there
    ngx_lua::check().map_err(|error| error.to_string())?;
    ngx_lua::discover().map_err(|error| error.to_string())?;
    groups::add_variable(cf)?;
    let registered = lua::MODULES
        .iter()
        .all(|(name, open)| ngx_lua::preload(cf, name.to_bytes(), *open));
    match registered {
        true => Ok(()),
        false => Err("cannot register resty.memcached with ngx_http_lua_module".into()),
    }
}

/// `postconfiguration`: the http block is read and merged.
enum After {}

impl Stage for After {
    fn run(cf: Conf) -> Result<(), String> {
        conf::check_upstreams(cf)?;
        conf::complete(cf);
        notice::look(cf);
        Ok(())
    }
}

/// The configuration is read. With `master_process off` this happens in the worker itself at a
/// reload: what is tied to the old cycle has to go before it does.
unsafe extern "C" fn init_module(cycle: *mut ngx_cycle_t) -> ngx_int_t {
    contain(|| {
        alias::forget();
        transport::forget_cycle();
        conf::forget_groups();
        if let Some(cycle) = NonNull::new(cycle) {
            // SAFETY: nginx passes a cycle, which has a log.
            notice::write(unsafe { Log::from_raw(cycle.as_ref().log) });
        }
        conf::forget();
    });
    NGX_OK as ngx_int_t
}

/// While there is memory. If there is none, operations say so. Only what is made here cannot fail
/// later: where the C library finds no memory for a thread's variables, it ends the process.
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
