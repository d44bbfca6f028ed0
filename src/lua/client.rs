//! The Lua module `resty.memcached.client`: clients for module-level variables. They are written in
//! Lua, see `glue/client.lua`.

use std::ffi::{CStr, c_int};

use mlua::ffi::{lua_State, lua_pushboolean};
use mlua::{Lua, Table};

use super::connection::multiplex;
use super::handle;
use super::stack::Stack;
use crate::transport::{self, Peer, PoolName};

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

/// `attach(id, multiplex, host, port)`: whether the session, which has nothing, is attached to shared
/// connections now. If not, `connect` has to be called.
pub fn attach(stack: Stack) -> c_int {
    let (Some(key), Some(request)) = (handle::id_argument(stack, 1), stack.try_request()) else {
        return boolean(stack, false);
    };
    let Some(host) = stack.text(3) else {
        return boolean(stack, false);
    };
    let port = stack.number(4) as u16;
    let peer = Peer {
        host,
        port,
        pool: PoolName::Default {
            with_port: port != 0,
        },
        pool_size: None,
        backlog: None,
        multiplex: multiplex(stack, request, 2),
    };
    // elsewhere `connect` says what is wrong
    let attached = stack.is_thread(request) && transport::attach_again(key, request, &peer);
    boolean(stack, attached)
}

/// `release(id, idle?)`: whether the session, which was attached, is to be attached again. If not,
/// it is there as it was.
pub fn release(stack: Stack) -> c_int {
    let (Some(key), Some(request)) = (handle::id_argument(stack, 1), stack.try_request()) else {
        return boolean(stack, false);
    };
    let idle = (!stack.is_none_or_nil(2)).then(|| stack.number(2) as usize);
    boolean(stack, transport::give_back(key, request, idle))
}

fn boolean(stack: Stack, value: bool) -> c_int {
    // SAFETY: a running C function's state.
    unsafe { lua_pushboolean(stack.state(), c_int::from(value)) };
    1
}
