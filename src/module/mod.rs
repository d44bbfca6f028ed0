//! What nginx sees of the module: its `ngx_module_t` and hooks.
//!
//! | file | subject |
//! |---|---|
//! | `directives` | the command table: `lua_memcached_*` |
//! | `alias` | `lua_memcached_alias` |
//! | `variable` | `$lua_memcached_key` |

mod alias;
mod directives;
mod variable;

use nginx_sys::{
    NGX_ERROR, NGX_HTTP_MODULE, NGX_LOG_EMERG, NGX_OK, ngx_conf_t, ngx_cycle_t, ngx_http_module_t,
    ngx_int_t, ngx_module_t, ngx_uint_t,
};

use crate::MEMORY;
use crate::contain::{INTERNAL, contain, report};
use crate::{conf, lua, nginx, ngx_lua, transport};

static MODULE_CONTEXT: ngx_http_module_t = ngx_http_module_t {
    preconfiguration: Some(preconfiguration),
    postconfiguration: Some(postconfiguration),
    create_main_conf: None,
    init_main_conf: None,
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
    // SAFETY: nginx has set the index by now.
    conf::set_index(unsafe { ngx_http_lua_memcached_module.ctx_index });
    // SAFETY: nginx passes the configuration being read.
    let registered = contain(|| unsafe { register(cf) });
    let Err(failed) = registered.unwrap_or_else(|| Err(INTERNAL.into())) else {
        return NGX_OK as ngx_int_t;
    };
    // SAFETY: the configuration has a log.
    unsafe { nginx::log(NGX_LOG_EMERG, (*cf).log, 0, format_args!("{failed}")) };
    NGX_ERROR as ngx_int_t
}

/// The error is for the operator to read.
unsafe fn register(cf: *mut ngx_conf_t) -> Result<(), String> {
    // first of all: nothing of ngx_lua may be touched when it is not there
    ngx_lua::check().map_err(|error| error.to_string())?;
    ngx_lua::discover().map_err(|error| error.to_string())?;
    // SAFETY: by the caller's contract.
    unsafe {
        if !variable::add(cf) {
            return Err("cannot add the variable $lua_memcached_key".into());
        }
        if !ngx_lua::preload(cf, lua::NAME, lua::open) {
            return Err("cannot register resty.memcached with ngx_http_lua_module".into());
        }
    }
    Ok(())
}

/// The http block is read and merged.
unsafe extern "C" fn postconfiguration(cf: *mut ngx_conf_t) -> ngx_int_t {
    // SAFETY: nginx passes the configuration being read.
    let completed = contain(|| unsafe {
        let checked = conf::check_upstreams(cf);
        conf::complete(cf);
        checked
    });
    let Err(failed) = completed.unwrap_or_else(|| Err(INTERNAL.into())) else {
        return NGX_OK as ngx_int_t;
    };
    // SAFETY: the configuration has a log.
    unsafe { nginx::log(NGX_LOG_EMERG, (*cf).log, 0, format_args!("{failed}")) };
    NGX_ERROR as ngx_int_t
}

/// The configuration is read. With `master_process off` this happens in the
/// worker itself at a reload: what is tied to the old cycle has to go before
/// it does.
unsafe extern "C" fn init_module(_cycle: *mut ngx_cycle_t) -> ngx_int_t {
    contain(|| {
        alias::forget();
        transport::forget_cycle();
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
    contain(ngx_lua::forget_anchors);
    MEMORY.empty();
}

/// `init_by_lua*` runs in the master process, and may use the module there.
unsafe extern "C" fn exit_master(_cycle: *mut ngx_cycle_t) {
    transport::shut_down();
}
