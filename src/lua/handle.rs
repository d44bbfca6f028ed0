//! What Lua objects hold of ours: userdata with a generational id. A handle
//! that outlived what it names, or any other value in its place, finds
//! nothing.

use std::ffi::{c_int, c_void};

use mlua::ffi::{
    LUA_REGISTRYINDEX, LUA_TBOOLEAN, LUA_TFUNCTION, LUA_TNUMBER, LUA_TUSERDATA, lua_State,
    lua_createtable, lua_getfield_, lua_newuserdata, lua_objlen, lua_pop, lua_pushcclosure,
    lua_pushlightuserdata, lua_pushvalue, lua_rawget_, lua_rawgeti_, lua_rawset, lua_rawseti_,
    lua_setfield, lua_setmetatable, lua_touserdata, lua_type,
};

use super::pipeline;
use super::stack::Stack;
use crate::transport::{self, SessionKey, Timeouts};

/// Where in `sock` the handle is; the timeouts follow.
const HANDLE_INDEX: c_int = 1;
pub const CONNECT_TIMEOUT_INDEX: c_int = 2;
pub const SEND_TIMEOUT_INDEX: c_int = 3;
pub const READ_TIMEOUT_INDEX: c_int = 4;
/// How many connections to share; 0: none. Absent: as the location says.
const MULTIPLEX_INDEX: c_int = 9;

/// What a handle names.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub enum Kind {
    Session = 0x6d63_5f73_6573_7369,
    Pipeline = 0x6d63_5f70_6970_656c,
}

#[repr(C)]
struct Handle {
    kind: u64,
    id: u64,
}

/// Pushes a new handle. Its garbage collection ends what it names.
pub fn push(stack: Stack, kind: Kind, id: u64) {
    let state = stack.state();
    // SAFETY: a running C function's state; the userdata is as big as a handle
    // and aligned to 8 bytes.
    unsafe {
        let handle = lua_newuserdata(state, size_of::<Handle>()).cast::<Handle>();
        handle.write(Handle {
            kind: kind as u64,
            id,
        });
        push_metatable(state);
        lua_setmetatable(state, -2);
    }
}

/// The metatable of handles, kept in the registry of each VM.
unsafe fn push_metatable(state: *mut lua_State) {
    static KEY: u8 = 0;
    let key = (&raw const KEY).cast_mut().cast::<c_void>();
    // SAFETY: a running C function's state; three stack slots are used.
    unsafe {
        lua_pushlightuserdata(state, key);
        lua_rawget_(state, LUA_REGISTRYINDEX);
        if lua_type(state, -1) == mlua::ffi::LUA_TTABLE {
            return;
        }
        lua_pop(state, 1);
        lua_createtable(state, 0, 2);
        lua_pushcclosure(state, collect, 0);
        lua_setfield(state, -2, c"__gc".as_ptr());
        // Lua code cannot get at it and call __gc itself
        mlua::ffi::lua_pushboolean(state, 0);
        lua_setfield(state, -2, c"__metatable".as_ptr());
        lua_pushlightuserdata(state, key);
        lua_pushvalue(state, -2);
        lua_rawset(state, LUA_REGISTRYINDEX);
    }
}

/// The id in the handle at `index`, if it is one of this kind.
pub fn read(stack: Stack, index: c_int, kind: Kind) -> Option<u64> {
    let state = stack.state();
    // SAFETY: a running C function's state; only userdata of a handle's size
    // is read as one.
    unsafe {
        if lua_type(state, index) != LUA_TUSERDATA
            || lua_objlen(state, index) != size_of::<Handle>()
        {
            return None;
        }
        let handle = lua_touserdata(state, index).cast::<Handle>();
        ((*handle).kind == kind as u64).then_some((*handle).id)
    }
}

unsafe extern "C-unwind" fn collect(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls a finalizer with its userdata.
    let stack = unsafe { Stack::new(state) };
    if let Some(id) = read(stack, 1, Kind::Session) {
        transport::with_existing(|worker| worker.drop_session(SessionKey::from_bits(id)));
    } else if let Some(id) = read(stack, 1, Kind::Pipeline) {
        pipeline::discard(id);
    }
    0
}

/// The session of the `sock` at `index`. Raises if that is no table.
pub fn session(stack: Stack, index: c_int) -> Option<SessionKey> {
    stack.check_table(index);
    // SAFETY: a table is at `index`; one slot is used and freed.
    unsafe {
        lua_rawgeti_(stack.state(), index, HANDLE_INDEX);
        let id = read(stack, -1, Kind::Session);
        // the glue makes each `sock` with false in the handle's place
        let fresh = id.is_none() && lua_type(stack.state(), -1) == LUA_TBOOLEAN;
        lua_pop(stack.state(), 1);
        if id.is_none() && !fresh {
            check_sock(stack, index);
        }
        id.map(SessionKey::from_bits)
    }
}

/// Raises if the table at `index` is no `sock`: it has not its methods.
fn check_sock(stack: Stack, index: c_int) {
    // SAFETY: a table is at `index`; one slot is used and freed.
    let is_sock = unsafe {
        lua_getfield_(stack.state(), index, c"setkeepalive".as_ptr());
        let kind = lua_type(stack.state(), -1);
        lua_pop(stack.state(), 1);
        kind == LUA_TFUNCTION
    };
    if !is_sock {
        stack.raise(format_args!("bad sock (it has no method 'setkeepalive')"));
    }
}

/// As [`session`], making one if there is none.
pub fn session_or_new(stack: Stack, index: c_int) -> SessionKey {
    if let Some(key) = session(stack, index) {
        return key;
    }
    let timeouts = Timeouts {
        connect: timeout(stack, index, CONNECT_TIMEOUT_INDEX),
        send: timeout(stack, index, SEND_TIMEOUT_INDEX),
        read: timeout(stack, index, READ_TIMEOUT_INDEX),
    };
    let key = transport::with(|worker| worker.new_session(timeouts));
    push(stack, Kind::Session, key.to_bits());
    // SAFETY: a table is at `index`, the handle on top.
    unsafe { lua_rawseti_(stack.state(), index, HANDLE_INDEX) };
    key
}

/// How many connections the `sock` at `index` shares, if it was said.
pub fn multiplex(stack: Stack, index: c_int) -> Option<usize> {
    // SAFETY: a table is at `index`; one slot is used and freed.
    unsafe {
        lua_rawgeti_(stack.state(), index, MULTIPLEX_INDEX);
        let said = lua_type(stack.state(), -1) == LUA_TNUMBER;
        let connections = mlua::ffi::lua_tonumber(stack.state(), -1);
        lua_pop(stack.state(), 1);
        said.then_some(connections as usize)
    }
}

fn timeout(stack: Stack, index: c_int, at: c_int) -> usize {
    // SAFETY: a table is at `index`; one slot is used and freed.
    let ms = unsafe {
        lua_rawgeti_(stack.state(), index, at);
        let ms = mlua::ffi::lua_tonumber(stack.state(), -1);
        lua_pop(stack.state(), 1);
        ms
    };
    ms as usize
}
