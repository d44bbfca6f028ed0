//! The one place that knows the ABI of ngx_lua (lua-nginx-module).
//!
//! Only symbols that every version since 0.10.23 exports are used, and no
//! header of ngx_lua is needed: directives are read through its command table,
//! and what `layout` reads is checked first.
//!
//! | file | subject |
//! |---|---|
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
mod symbols;
#[cfg(ngx_feature = "http_ssl")]
mod tls_settings;

use std::ffi::{CStr, c_char, c_int};
use std::ptr::NonNull;

use mlua::ffi::{
    LUA_GLOBALSINDEX, LUA_TNUMBER, LUA_TTABLE, lua_CFunction, lua_State, lua_gettop,
    lua_pushstring_, lua_pushvalue, lua_rawget_, lua_remove, lua_settop, lua_tonumber, lua_type,
};
use nginx_sys::{NGX_OK, ngx_conf_t, ngx_http_request_t, ngx_int_t, ngx_module_t};

use crate::nginx::Request;

pub use anchor::{forget as forget_anchors, release as release_anchors};
pub use cleanup::Cleanup;
pub use coroutine::{NoWaiter, Waiter};
pub use semaphore::{Semaphore, Semaphores, Wait};
pub use settings::{Settings, discover};
pub use symbols::check;
#[cfg(ngx_feature = "http_ssl")]
pub use tls_settings::TlsSettings;

// SAFETY: the declarations match ngx_lua's sources, 0.10.23 and later.
unsafe extern "C" {
    static mut ngx_http_lua_module: ngx_module_t;

    fn ngx_http_lua_get_request(state: *mut lua_State) -> *mut ngx_http_request_t;

    fn ngx_http_lua_add_package_preload(
        cf: *mut ngx_conf_t,
        package: *const c_char,
        func: lua_CFunction,
    ) -> ngx_int_t;

    fn ngx_http_lua_get_global_state(cf: *mut ngx_conf_t) -> *mut lua_State;
}

unsafe extern "C-unwind" {
    // exported by LuaJIT, though declared in no header of Lua 5.1
    fn lua_isyieldable(state: *mut lua_State) -> c_int;
}

/// The request whose Lua code runs on `state`; `None` outside of requests
/// (`init_by_lua*`).
///
/// # Safety
///
/// `state` is the state a C function was called with.
pub unsafe fn request(state: *mut lua_State) -> Option<Request> {
    // SAFETY: by this function's contract; the request whose code runs has not
    // ended.
    unsafe { NonNull::new(ngx_http_lua_get_request(state)).map(|r| Request::from_raw(r)) }
}

/// Whether the running coroutine may yield here, i.e. no C function or
/// metamethod that cannot be suspended is on its stack.
///
/// # Safety
///
/// As for [`request`].
pub unsafe fn is_yieldable(state: *mut lua_State) -> bool {
    // SAFETY: by this function's contract.
    unsafe { lua_isyieldable(state) != 0 }
}

/// ngx_lua's version as it counts itself, 10023 for 0.10.23 (`ngx.config.ngx_lua_version`).
///
/// # Safety
///
/// `cf` is the configuration being read, for which ngx_lua has run its postconfiguration.
pub unsafe fn version(cf: *mut ngx_conf_t) -> Option<u32> {
    // SAFETY: by this function's contract. The state is that of a VM in which nothing runs; what
    // is looked up without metamethods raises no errors, and two values are pushed and popped.
    unsafe {
        let state = ngx_http_lua_get_global_state(cf);
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

/// Makes `require(package)` call `open` in every Lua VM of this configuration.
/// Has to be called before ngx_lua's postconfiguration, or `init_by_lua*` does
/// not see it.
///
/// # Safety
///
/// `cf` is the configuration being read, and `package` lives as long as it.
pub unsafe fn preload(cf: *mut ngx_conf_t, package: &CStr, open: lua_CFunction) -> bool {
    // SAFETY: by this function's contract; ngx_lua keeps the name's pointer.
    let rc = unsafe { ngx_http_lua_add_package_preload(cf, package.as_ptr(), open) };
    rc == NGX_OK as ngx_int_t
}
