//! Handles: Lua objects hold generational ids instead of pointers. An id that
//! outlives its object, or any other value in its place, finds nothing.
//!
//! A pipeline is a userdata that contains its id. A connected `sock` holds its
//! session's id as a number, which is quick to pass, and a userdata whose
//! collection ends the session. Creating and collecting userdata is slow, so
//! the userdata of a closed `sock` is reused for the next one.

use std::ffi::{c_int, c_void};
use std::ptr;

use mlua::ffi::{
    LUA_REGISTRYINDEX, LUA_TBOOLEAN, LUA_TFUNCTION, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE,
    LUA_TUSERDATA, lua_CFunction, lua_State, lua_createtable, lua_getfield_, lua_newuserdata,
    lua_objlen, lua_pop, lua_pushboolean, lua_pushcclosure, lua_pushlightuserdata, lua_pushnil,
    lua_pushnumber, lua_pushvalue, lua_rawget_, lua_rawgeti_, lua_rawset, lua_rawseti_,
    lua_setfield, lua_setmetatable, lua_tonumber, lua_touserdata, lua_type, lua_upvalueindex,
};

use super::fields;
use super::stack::{Stack, native};
use crate::transport::{self, SessionKey};

/// Upvalues of the functions that [`with_spares`] makes: the number of spare
/// handles, and a table of them.
const SPARES_COUNT: c_int = lua_upvalueindex(1);
const SPARES: c_int = lua_upvalueindex(2);

/// Maximum number of spare handles in a VM.
const MAX_SPARES: c_int = 256;

/// Commands a handle names. Each kind has a metatable of its own.
pub struct Kind {
    /// The first field of its handles, so that no other userdata is taken for
    /// one.
    pub magic: u64,
    /// `__gc` of its handles.
    pub collect: lua_CFunction,
}

static SESSION: Kind = Kind {
    magic: 0x6d63_5f73_6573_7369,
    collect: native!(collect),
};

#[repr(C)]
struct Handle {
    magic: u64,
    id: u64,
}

/// Pushes a new handle. Its garbage collection ends what it names.
pub fn push(stack: Stack, kind: &'static Kind, id: u64) {
    let state = stack.state();
    // SAFETY: a running C function's state; the userdata is as big as a handle
    // and aligned to 8 bytes.
    unsafe {
        let handle = lua_newuserdata(state, size_of::<Handle>()).cast::<Handle>();
        handle.write(Handle {
            magic: kind.magic,
            id,
        });
        push_metatable(state, kind);
        lua_setmetatable(state, -2);
    }
}

/// The metatable of a kind's handles, kept in the registry of each VM.
unsafe fn push_metatable(state: *mut lua_State, kind: &'static Kind) {
    let key = ptr::from_ref(kind).cast_mut().cast::<c_void>();
    // SAFETY: a running C function's state; three stack slots are used.
    unsafe {
        lua_pushlightuserdata(state, key);
        lua_rawget_(state, LUA_REGISTRYINDEX);
        if lua_type(state, -1) == mlua::ffi::LUA_TTABLE {
            return;
        }
        lua_pop(state, 1);
        lua_createtable(state, 0, 2);
        lua_pushcclosure(state, kind.collect, 0);
        lua_setfield(state, -2, c"__gc".as_ptr());
        // keeps Lua code from getting the metatable and calling __gc itself
        mlua::ffi::lua_pushboolean(state, 0);
        lua_setfield(state, -2, c"__metatable".as_ptr());
        lua_pushlightuserdata(state, key);
        lua_pushvalue(state, -2);
        lua_rawset(state, LUA_REGISTRYINDEX);
    }
}

/// The id in the handle at `index`, if there is a handle of this kind.
pub fn read(stack: Stack, index: c_int, kind: &Kind) -> Option<u64> {
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
        ((*handle).magic == kind.magic).then_some((*handle).id)
    }
}

fn collect(stack: Stack) -> c_int {
    if let Some(id) = read(stack, 1, &SESSION) {
        transport::drop_session(SessionKey::from_bits(id));
    }
    0
}

/// The session whose id the glue passed at `index`.
pub fn id_argument(stack: Stack, index: c_int) -> Option<SessionKey> {
    let id = stack.number(index);
    (id != 0.0).then(|| SessionKey::from_number(id))
}

/// Why there is no session: a client passes the text in the place of its id.
#[cold]
pub fn failure_argument<'a>(stack: Stack, index: c_int) -> Option<&'a [u8]> {
    match stack.kind(index) {
        LUA_TSTRING => stack.text(index),
        _ => None,
    }
}

/// The session that the glue passed at `index`: by its id or, as
/// [`session`] takes it, by its `sock`.
pub fn session_argument(stack: Stack, index: c_int) -> Option<SessionKey> {
    let found = id_argument(stack, index);
    match found {
        None if stack.kind(index) == LUA_TTABLE => session(stack, index),
        found => found,
    }
}

/// The session of the `sock` at `index`. Raises an error if that is not a
/// table.
pub fn session(stack: Stack, index: c_int) -> Option<SessionKey> {
    stack.check_table(index);
    // SAFETY: a table is at `index`; one slot is used and freed.
    let (kind, id) = unsafe {
        lua_rawgeti_(stack.state(), index, fields::ID);
        let found = (lua_type(stack.state(), -1), lua_tonumber(stack.state(), -1));
        lua_pop(stack.state(), 1);
        found
    };
    match kind {
        LUA_TNUMBER => return Some(SessionKey::from_number(id)),
        // the glue makes each `sock` with false in the id's place
        LUA_TBOOLEAN => {}
        _ => check_sock(stack, index),
    }
    None
}

/// As [`session`], for calls in which the glue passes the id of `sock` as well.
/// `None` also if the session was closed.
#[inline(always)]
pub fn session_with_id(stack: Stack, sock: c_int, id: c_int) -> Option<SessionKey> {
    let number = stack.number(id);
    stack.check_table(sock);
    if number != 0.0 {
        return Some(SessionKey::from_number(number));
    }
    if !matches!(stack.kind(id), LUA_TBOOLEAN) {
        check_sock(stack, sock);
    }
    None
}

/// As [`session_with_id`], optimised for a `sock` that has had no session yet.
pub fn session_to_connect(stack: Stack, sock: c_int, id: c_int) -> Option<SessionKey> {
    if stack.kind(id) != LUA_TBOOLEAN {
        return session_with_id(stack, sock, id);
    }
    stack.check_table(sock);
    None
}

/// Raises an error if the table at `index` lacks the methods of a `sock`.
#[cold]
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

/// Pushes functions that may use [`NewHandle`] and [`detach`].
///
/// # Safety
///
/// `state` is a VM's, with room for three values more than there are functions.
pub unsafe fn with_spares(state: *mut lua_State, functions: &[lua_CFunction]) {
    // SAFETY: by this function's contract; a count fits into the userdata.
    unsafe {
        lua_newuserdata(state, size_of::<c_int>())
            .cast::<c_int>()
            .write(0);
        lua_createtable(state, 32, 0);
        for (at, function) in (0..).zip(functions) {
            lua_pushvalue(state, -2 - at);
            lua_pushvalue(state, -2 - at);
            lua_pushcclosure(state, *function, 2);
        }
    }
}

/// The handle of a session that is about to be created. It is on top of the
/// stack.
pub struct NewHandle(*mut Handle);

impl NewHandle {
    /// Pushes one. Only for functions made by [`with_spares`].
    pub fn push(stack: Stack) -> NewHandle {
        let state = stack.state();
        // SAFETY: the upvalues are those of `with_spares`; two slots are used.
        unsafe {
            let count = lua_touserdata(state, SPARES_COUNT).cast::<c_int>();
            if *count > 0 {
                lua_rawgeti_(state, SPARES, *count);
                // a handle that stayed in the table would outlive its `sock`
                lua_pushnil(state);
                lua_rawseti_(state, SPARES, *count);
                *count -= 1;
            } else {
                push(stack, &SESSION, 0);
            }
            NewHandle(lua_touserdata(state, -1).cast())
        }
    }

    pub fn address(&self) -> usize {
        self.0.addr()
    }

    /// Pops the handle into the `sock` at `index`, which has none, and makes it
    /// that of this session.
    pub fn give(self, stack: Stack, index: c_int, key: SessionKey) {
        let state = stack.state();
        // SAFETY: the handle is on top of the stack, hence live; a table is at
        // `index`.
        unsafe {
            (*self.0).id = key.to_bits();
            let Some(id) = key.to_number() else {
                // the handle is collected, and with it the session
                stack.raise(format_args!("no memory"))
            };
            lua_rawseti_(state, index, fields::HANDLE);
            lua_pushnumber(state, id);
            lua_rawseti_(state, index, fields::ID);
        }
    }
}

/// Keeps the handle of the `sock` at `index`, whose session was retired and had
/// a handle at this address. The id stays in the `sock` and finds nothing. Only
/// for functions made by [`with_spares`].
#[inline(always)]
pub fn detach(stack: Stack, index: c_int, address: Option<usize>) {
    let state = stack.state();
    let Some(address) = address else { return };
    // SAFETY: as in `give`. Only the handle of that session is kept, whatever
    // Lua code has put into the table.
    unsafe {
        let count = lua_touserdata(state, SPARES_COUNT).cast::<c_int>();
        lua_rawgeti_(state, index, fields::HANDLE);
        if *count < MAX_SPARES && lua_touserdata(state, -1).addr() == address {
            // in this order, because growing the table may raise an error
            lua_rawseti_(state, SPARES, *count + 1);
            *count += 1;
            lua_pushboolean(state, 0);
            lua_rawseti_(state, index, fields::HANDLE);
        } else {
            lua_pop(state, 1);
        }
    }
}
