//! The Lua module `resty.memcached.status`: what of this module is to be seen. The table of
//! `resty.memcached` has nothing that the pure-Lua library does not have.

use std::ffi::{CStr, c_int};

use mlua::ffi::lua_State;
use mlua::{Lua, Table};

use crate::version::{NGINX, VERSION};

/// The module's name for `require`.
pub const NAME: &CStr = c"resty.memcached.status";

/// `require "resty.memcached.status"`.
pub unsafe extern "C-unwind" fn open(state: *mut lua_State) -> c_int {
    // SAFETY: ngx_lua calls this with the state of the VM that requires it.
    unsafe { Lua::entrypoint1(state, build) }
}

fn build(lua: &Lua) -> mlua::Result<Table> {
    let status = lua.create_table()?;
    status.set("version", VERSION)?;
    status.set("built_for_nginx", NGINX)?;
    Ok(status)
}
