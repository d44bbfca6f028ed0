//! The one place that knows the ABI of ngx_lua (lua-nginx-module).
//!
//! Only symbols that every version since 0.10.23 exports are used, and no header of ngx_lua is
//! needed: directives are read through its command table, and what `layout` reads is checked first.
//!
//! | file | subject |
//! |---|---|
//! | `state`, `table` | the Lua state of a running C function, and tables on its stack |
//! | `coroutine` | which coroutine waits, and whether it may go on |
//! | `anchor` | coroutines that are held while one of them waits |
//! | `layout` | where ngx_lua keeps its coroutines |
//! | `semaphore` | waiting, and waking |
//! | `cleanup` | the end of a request |
//! | `settings`, `tls_settings` | values of directives |
//! | `symbols` | whether ngx_lua is there |

mod anchor;
mod cleanup;
mod coroutine;
mod layout;
mod semaphore;
mod settings;
mod state;
mod symbols;
mod table;
#[cfg(ngx_feature = "http_ssl")]
mod tls_settings;

use std::ffi::c_char;

use mlua::ffi::{
    LUA_GLOBALSINDEX, LUA_TNUMBER, LUA_TTABLE, lua_CFunction, lua_State, lua_gettop,
    lua_pushstring_, lua_pushvalue, lua_rawget_, lua_remove, lua_settop, lua_tonumber, lua_type,
};
use nginx_sys::{NGX_OK, ngx_conf_t, ngx_int_t, ngx_str_t};

use crate::nginx::Conf;

pub use anchor::{forget as forget_anchors, release as release_anchors};
pub use cleanup::Cleanup;
pub use coroutine::{NoWaiter, Waiter};
pub use semaphore::{Semaphore, Semaphores, Wait};
pub use settings::{Settings, discover};
pub use state::{State, Value};
pub use symbols::{check, find as find_symbol};
pub use table::Table;
#[cfg(ngx_feature = "http_ssl")]
pub use tls_settings::TlsSettings;

// SAFETY: the declarations match ngx_lua's sources, 0.10.23 and later.
unsafe extern "C" {
    fn ngx_http_lua_add_package_preload(
        cf: *mut ngx_conf_t,
        package: *const c_char,
        func: lua_CFunction,
    ) -> ngx_int_t;

    fn ngx_http_lua_get_global_state(cf: *mut ngx_conf_t) -> *mut lua_State;
}

/// ngx_lua's version as it counts itself, 10023 for 0.10.23 (`ngx.config.ngx_lua_version`). `None`
/// if it has not run its postconfiguration.
pub fn version(cf: Conf) -> Option<u32> {
    // SAFETY: the state is that of a VM in which nothing runs; what is looked up without
    // metamethods raises no errors, and two values are pushed and popped.
    unsafe {
        let state = ngx_http_lua_get_global_state(cf.as_ptr());
        if state.is_null() {
            return None;
        }
        let top = lua_gettop(state);
        lua_pushvalue(state, LUA_GLOBALSINDEX);
        for name in [c"ngx", c"config", c"ngx_lua_version"] {
            if lua_type(state, -1) != LUA_TTABLE {
                break;
            }
            lua_pushstring_(state, name.as_ptr());
            lua_rawget_(state, -2);
            lua_remove(state, -2);
        }
        let number = match lua_type(state, -1) {
            LUA_TNUMBER => Some(lua_tonumber(state, -1) as u32),
            _ => None,
        };
        lua_settop(state, top);
        number
    }
}

/// Makes `require(package)` call `open` in every Lua VM of this configuration. Has to be called
/// before ngx_lua's postconfiguration, or `init_by_lua*` does not see it. False if there is no
/// memory.
pub fn preload(cf: Conf, package: &[u8], open: lua_CFunction) -> bool {
    let package = [package, b"\0"].concat();
    // SAFETY: a configuration has a pool; ngx_lua keeps the name's pointer as long as the
    // configuration, and so long the name is in its pool.
    let rc = unsafe {
        let Some(name) = ngx_str_t::from_bytes((*cf.as_ptr()).pool, &package) else {
            return false;
        };
        ngx_http_lua_add_package_preload(cf.as_ptr(), name.data.cast(), open)
    };
    rc == NGX_OK as ngx_int_t
}
