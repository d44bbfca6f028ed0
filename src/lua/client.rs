//! The Lua module `resty.memcached.client`: clients for module-level variables. They are written in
//! Lua, see `glue/client.lua`.

use std::ffi::{CStr, c_int};

use mlua::ffi::lua_State;
use mlua::{Lua, Table};

/// The module's name for `require`.
pub const NAME: &CStr = c"resty.memcached.client";

/// `require "resty.memcached.client"`.
pub unsafe extern "C-unwind" fn open(state: *mut lua_State) -> c_int {
    // SAFETY: ngx_lua calls this with the state of the VM that requires it.
    unsafe { Lua::entrypoint1(state, build) }
}

fn build(lua: &Lua) -> mlua::Result<Table> {
    super::shared(lua)?.get("client")
}
