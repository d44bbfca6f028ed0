//! The Lua state of a running C function, and functions of LuaJIT that are safe to call with one.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::NonNull;

use mlua::ffi::{
    LUA_GLOBALSINDEX, LUA_REGISTRYINDEX, LUA_TUSERDATA, lua_CFunction, lua_Integer, lua_State,
    lua_pushcclosure, lua_pushlstring_, lua_settop, lua_tolstring, lua_xmove, lua_yield,
};

use crate::nginx::Request;

/// The Lua state of a running C function.
///
/// Holding one is the promise that the pointer is what Lua passed to that function, and that
/// neither it nor what it has lent is kept when the function returns. The methods rely on it, and
/// on this: they take off the stack only what they have pushed themselves, so what is at an index
/// is there until the function returns or, within [`State::scope`], until that ends. LuaJIT makes
/// room for each value that is pushed, or raises an error.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub struct State(NonNull<lua_State>);

/// Where a value is, if there is one: an argument or a value behind the arguments, or a
/// pseudo-index.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
pub(super) struct Index(pub(super) c_int);

/// On top of the stack, where a method has just pushed a value.
pub(super) const TOP: Index = Index(-1);

pub(super) const REGISTRY: Index = Index(LUA_REGISTRYINDEX);

impl Index {
    /// Of nothing, unless it counts from the function's first argument or is that of an upvalue.
    #[inline(always)]
    pub(super) const fn new(at: c_int) -> Index {
        /// A C function has no more upvalues.
        const LAST_UPVALUE: c_int = LUA_GLOBALSINDEX - 255;
        match at {
            1.. | LAST_UPVALUE..LUA_GLOBALSINDEX => Index(at),
            _ => Index(c_int::MAX),
        }
    }
}

// SAFETY: the declarations match those of LuaJIT and of ngx_lua's sources, 0.10.23 and later. These
// may be called with any state, index and value. An index of nothing counts as one of nil. The
// request whose code runs has not ended.
unsafe extern "C-unwind" {
    safe fn lua_gettop(state: State) -> c_int;
    safe fn lua_checkstack(state: State, more: c_int) -> c_int;
    safe fn lua_type(state: State, at: Index) -> c_int;
    safe fn lua_isnumber(state: State, at: Index) -> c_int;
    safe fn lua_toboolean(state: State, at: Index) -> c_int;
    safe fn lua_tointeger(state: State, at: Index) -> lua_Integer;
    safe fn lua_tonumber(state: State, at: Index) -> f64;
    safe fn lua_touserdata(state: State, at: Index) -> *mut c_void;
    safe fn lua_objlen(state: State, at: Index) -> usize;
    safe fn lua_pushnil(state: State);
    safe fn lua_pushboolean(state: State, b: c_int);
    safe fn lua_pushinteger(state: State, n: lua_Integer);
    safe fn lua_pushnumber(state: State, n: f64);
    safe fn lua_pushlightuserdata(state: State, address: *mut c_void);
    safe fn lua_pushthread(state: State) -> c_int;
    pub(super) safe fn lua_pushvalue(state: State, at: Index);
    pub(super) safe fn lua_createtable(state: State, elements: c_int, fields: c_int);
    pub(super) safe fn lua_newuserdata(state: State, size: usize) -> *mut c_void;
    safe fn luaL_where(state: State, level: c_int);
    // exported by LuaJIT, though declared in no header of Lua 5.1
    safe fn lua_isyieldable(state: State) -> c_int;
    safe fn ngx_http_lua_get_request(state: State) -> Option<Request>;
}

/// A suspended coroutine of the same VM, which waits for the running one. It is not kept.
pub(super) struct Ancestor(*mut lua_State);

impl Ancestor {
    /// # Safety
    ///
    /// The state is that of such a coroutine.
    pub(super) unsafe fn new(state: *mut lua_State) -> Ancestor {
        Ancestor(state)
    }
}

/// What can be pushed: one value.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    Nil,
    Boolean(bool),
    Integer(i64),
    Number(f64),
    /// A string. Lua copies it.
    Bytes(&'a [u8]),
    /// What is at an index.
    At(c_int),
    /// An address as a key.
    Address(*const c_void),
    /// A function that Lua may call, with at most 255 upvalues.
    Function(lua_CFunction, &'a [Value<'a>]),
}

impl State {
    /// # Safety
    ///
    /// `state` is what Lua passed to the running C function, and the value does not outlive its
    /// call.
    #[inline(always)]
    pub unsafe fn new(state: *mut lua_State) -> State {
        // SAFETY: by this function's contract; Lua passes no null.
        State(unsafe { NonNull::new_unchecked(state) })
    }

    /// For functions of C.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut lua_State {
        self.0.as_ptr()
    }

    /// The request whose Lua code runs; `None` outside of requests (`init_by_lua*`).
    #[inline(always)]
    pub fn running_request(self) -> Option<Request> {
        ngx_http_lua_get_request(self)
    }

    /// Whether the running coroutine may yield here, i.e. no C function or metamethod that cannot
    /// be suspended is on its stack.
    #[inline(always)]
    pub fn is_yieldable(self) -> bool {
        lua_isyieldable(self) != 0
    }

    /// Number of values on the stack.
    #[inline(always)]
    pub fn top(self) -> c_int {
        lua_gettop(self)
    }

    /// `LUA_T*` of the value at `index`.
    #[inline(always)]
    pub fn kind(self, index: c_int) -> c_int {
        self.kind_at(Index::new(index))
    }

    #[inline(always)]
    pub(super) fn kind_at(self, at: Index) -> c_int {
        lua_type(self, at)
    }

    /// The value at `index` as a number, 0 for anything that is none.
    #[inline(always)]
    pub fn number(self, index: c_int) -> f64 {
        self.number_at(Index::new(index))
    }

    #[inline(always)]
    pub(super) fn number_at(self, at: Index) -> f64 {
        lua_tonumber(self, at)
    }

    /// As [`Self::number`], an integer: truncated, or the least there is.
    #[inline(always)]
    pub fn integer(self, index: c_int) -> i64 {
        lua_tointeger(self, Index::new(index))
    }

    /// Whether the value at `index` is a number, or a string that is one.
    #[inline(always)]
    pub fn is_number(self, index: c_int) -> bool {
        lua_isnumber(self, Index::new(index)) != 0
    }

    /// Whether the value at `index` is anything but `false` and nil.
    #[inline(always)]
    pub fn boolean(self, index: c_int) -> bool {
        lua_toboolean(self, Index::new(index)) != 0
    }

    /// The text of a string or a number. A number is converted to a string in place.
    #[inline(always)]
    pub fn text<'a>(self, index: c_int) -> Option<&'a [u8]> {
        self.text_at(Index::new(index))
    }

    #[inline(always)]
    pub(super) fn text_at<'a>(self, Index(at): Index) -> Option<&'a [u8]> {
        let mut len = 0;
        // SAFETY: null for anything else. Lua strings are immutable and live while they are on the
        // stack; see the type.
        unsafe {
            let data = lua_tolstring(self.as_ptr(), at, &mut len);
            (!data.is_null()).then(|| std::slice::from_raw_parts(data.cast(), len))
        }
    }

    /// The address of a userdata's memory; null for anything else.
    #[inline(always)]
    pub fn userdata(self, index: c_int) -> *mut c_void {
        self.userdata_at(Index::new(index))
    }

    #[inline(always)]
    pub(super) fn userdata_at(self, at: Index) -> *mut c_void {
        lua_touserdata(self, at)
    }

    #[inline(always)]
    pub(super) fn len_at(self, at: Index) -> usize {
        lua_objlen(self, at)
    }

    /// The memory of a userdata that is this many words long.
    pub fn words<'a, const N: usize>(self, index: c_int) -> Option<&'a [Cell<u64>; N]> {
        let at = Index::new(index);
        if self.kind_at(at) != LUA_TUSERDATA || lua_objlen(self, at) != size_of::<[u64; N]>() {
            return None;
        }
        // SAFETY: it has this size, is aligned to 8 bytes, and is there while it is on the stack.
        unsafe { self.userdata_at(at).cast::<[Cell<u64>; N]>().as_ref() }
    }

    /// Pushes one value.
    #[inline(always)]
    pub fn push(self, value: Value<'_>) {
        match value {
            Value::Nil => lua_pushnil(self),
            Value::Boolean(b) => lua_pushboolean(self, b.into()),
            Value::Integer(n) => lua_pushinteger(self, n),
            Value::Number(n) => lua_pushnumber(self, n),
            Value::Bytes(bytes) => self.push_bytes(bytes),
            Value::At(index) => lua_pushvalue(self, Index::new(index)),
            Value::Address(address) => lua_pushlightuserdata(self, address.cast_mut()),
            Value::Function(function, upvalues) => self.push_function(function, upvalues),
        }
    }

    /// Pushes a string. Lua copies it.
    pub fn push_bytes(self, bytes: &[u8]) {
        // SAFETY: the bytes are there.
        unsafe { lua_pushlstring_(self.as_ptr(), bytes.as_ptr().cast(), bytes.len()) }
    }

    fn push_function(self, function: lua_CFunction, upvalues: &[Value<'_>]) {
        upvalues.iter().for_each(|value| self.push(*value));
        // SAFETY: so many values have been pushed.
        unsafe { lua_pushcclosure(self.as_ptr(), function, upvalues.len() as c_int) };
    }

    /// Whether there is room for this many values more. If not, Lua has none.
    pub fn has_room(self, more: c_int) -> bool {
        lua_checkstack(self, more) != 0
    }

    /// The result of `f`, after which what it has pushed is taken off the stack.
    pub fn scope<R>(self, f: impl FnOnce() -> R) -> R {
        let top = self.top();
        let result = f();
        // SAFETY: so many values were there before, and are still.
        unsafe { lua_settop(self.as_ptr(), top) };
        result
    }

    /// Pushes the running coroutine, and returns where it is.
    pub fn push_running(self) -> c_int {
        lua_pushthread(self);
        self.top()
    }

    /// Pushes one that waits for the running coroutine, and returns where it is. `None`: no memory.
    pub(super) fn push_ancestor(self, Ancestor(other): Ancestor) -> Option<c_int> {
        // SAFETY: see the type; it has room for a value for a moment.
        unsafe {
            if mlua::ffi::lua_checkstack(other, 1) == 0 {
                return None;
            }
            mlua::ffi::lua_pushthread(other);
            lua_xmove(other, self.as_ptr(), 1);
        }
        Some(self.top())
    }

    /// Pushes the position of the calling Lua code, for an error.
    pub fn push_position(self) {
        luaL_where(self, 1);
    }

    /// Suspends the coroutine when the result is returned to Lua. Raises an error if it may not
    /// yield here.
    pub fn suspend(self) -> c_int {
        // SAFETY: no value is passed.
        unsafe { lua_yield(self.as_ptr(), 0) }
    }
}
