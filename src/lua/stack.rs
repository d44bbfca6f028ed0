//! Arguments and results on the Lua stack, and errors raised in Lua.

use std::ffi::{CStr, c_int};
use std::fmt;

use mlua::ffi::{
    LUA_TNIL, LUA_TNONE, LUA_TTABLE, lua_State, lua_concat, lua_error, lua_gettop, lua_isnumber,
    lua_pushboolean, lua_pushinteger, lua_pushlstring_, lua_pushnil, lua_pushnumber, lua_toboolean,
    lua_tointeger_, lua_tolstring, lua_tonumber, lua_type, lua_typename, lua_yield, luaL_where,
};
use nginx_sys::ngx_http_request_t;
use std::ptr::NonNull;

use crate::ngx_lua::{self, NoWaiter, Waiter};

/// Why the running coroutine cannot wait where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotWait {
    /// It was called by a C function that cannot be suspended. The error is
    /// raised, with LuaJIT's text.
    #[error("attempt to yield across C-call boundary")]
    CCall,
    /// ngx_lua would not resume it: it was created by Lua's own
    /// `coroutine.create`, or it runs in a thread that has ended. The pure-Lua
    /// library would yield to whoever resumed the coroutine; here it is an
    /// error.
    #[error("cannot wait in this coroutine: ngx_lua does not know it")]
    Unknown,
    /// There is no memory for it.
    #[error("no memory")]
    NoMemory,
}

/// A function that takes a [`Stack`] as one that Lua can call.
macro_rules! native {
    ($function:expr) => {{
        unsafe extern "C-unwind" fn call(state: *mut mlua::ffi::lua_State) -> std::ffi::c_int {
            // SAFETY: Lua calls this, with the state of the call.
            $function(unsafe { $crate::lua::stack::Stack::new(state) })
        }
        call as mlua::ffi::lua_CFunction
    }};
}
pub(super) use native;

/// The Lua state of a running C function.
///
/// Holding one is the promise that the pointer is what Lua passed to the
/// function that runs right now; the methods rely on it.
#[derive(Clone, Copy)]
pub struct Stack(*mut lua_State);

impl Stack {
    /// # Safety
    ///
    /// `state` is what Lua passed to the running C function, and the value
    /// does not outlive its call.
    pub unsafe fn new(state: *mut lua_State) -> Stack {
        Stack(state)
    }

    pub fn state(self) -> *mut lua_State {
        self.0
    }

    /// Number of values on the stack.
    pub fn top(self) -> c_int {
        // SAFETY: see the type.
        unsafe { lua_gettop(self.0) }
    }

    /// `LUA_T*` of the value at `index`.
    pub fn kind(self, index: c_int) -> c_int {
        // SAFETY: see the type.
        unsafe { lua_type(self.0, index) }
    }

    /// The value at `index` as a number, 0 for anything that is none.
    pub fn number(self, index: c_int) -> f64 {
        // SAFETY: see the type.
        unsafe { lua_tonumber(self.0, index) }
    }

    /// As [`Self::number`], an integer: truncated, or the least there is.
    pub fn integer(self, index: c_int) -> i64 {
        // SAFETY: see the type.
        unsafe { lua_tointeger_(self.0, index) as i64 }
    }

    /// Whether the value at `index` is a number, or a string that is one.
    pub fn is_number(self, index: c_int) -> bool {
        // SAFETY: see the type.
        unsafe { lua_isnumber(self.0, index) != 0 }
    }

    /// Whether the value at `index` is anything but `false` and nil.
    pub fn boolean(self, index: c_int) -> bool {
        // SAFETY: see the type.
        unsafe { lua_toboolean(self.0, index) != 0 }
    }

    /// Name of the type of the value at `index`.
    pub fn type_name(self, index: c_int) -> &'static str {
        // SAFETY: see the type; type names are static.
        let name = unsafe { CStr::from_ptr(lua_typename(self.0, self.kind(index))) };
        name.to_str().unwrap_or("?")
    }

    pub fn is_none_or_nil(self, index: c_int) -> bool {
        matches!(self.kind(index), LUA_TNONE | LUA_TNIL)
    }

    /// The text of a string or a number. A number is converted to a string in
    /// place.
    ///
    /// The slice stays valid while the value stays on the stack.
    pub fn text<'a>(self, index: c_int) -> Option<&'a [u8]> {
        let mut len = 0;
        // SAFETY: see the type; null for anything else. Lua strings are
        // immutable and live while they are on the stack.
        unsafe {
            let data = lua_tolstring(self.0, index, &mut len);
            (!data.is_null()).then(|| std::slice::from_raw_parts(data.cast(), len))
        }
    }

    /// As [`Self::text`]; raises an error for anything else but nil.
    pub fn optional_text<'a>(self, index: c_int, name: &str) -> Option<&'a [u8]> {
        match self.text(index) {
            Some(text) => Some(text),
            None if self.is_none_or_nil(index) => None,
            None => self.raise(format_args!(
                "bad {name} argument (string or number expected, got {})",
                self.type_name(index)
            )),
        }
    }

    /// As [`Self::text`]; raises an error for anything else.
    pub fn required_text<'a>(self, index: c_int, name: &str) -> &'a [u8] {
        match self.optional_text(index, name) {
            Some(text) => text,
            None => self.raise(format_args!(
                "bad {name} argument (string or number expected, got nil)"
            )),
        }
    }

    pub fn check_table(self, index: c_int) {
        if self.kind(index) != LUA_TTABLE {
            self.raise(format_args!(
                "bad self argument (table expected, got {})",
                self.type_name(index)
            ))
        }
    }

    pub fn push_bytes(self, bytes: &[u8]) {
        // SAFETY: see the type; Lua copies the bytes. A C function has room
        // for 20 values, and callers that push more see to it.
        unsafe { lua_pushlstring_(self.0, bytes.as_ptr().cast(), bytes.len()) }
    }

    pub fn push_integer(self, n: i64) {
        // SAFETY: as above.
        unsafe { lua_pushinteger(self.0, n) }
    }

    pub fn push_number(self, n: f64) {
        // SAFETY: as above.
        unsafe { lua_pushnumber(self.0, n) }
    }

    pub fn push_boolean(self, value: bool) {
        // SAFETY: as above.
        unsafe { lua_pushboolean(self.0, value.into()) }
    }

    pub fn push_nil(self) {
        // SAFETY: as above.
        unsafe { lua_pushnil(self.0) }
    }

    /// Results of a failed method: `nils` times nil, then the text.
    pub fn failure(self, nils: c_int, error: impl fmt::Display) -> c_int {
        for _ in 0..nils {
            self.push_nil();
        }
        self.push_bytes(error.to_string().as_bytes());
        nils + 1
    }

    /// Raises a Lua error: a string, with the position of the calling code.
    pub fn raise(self, text: fmt::Arguments<'_>) -> ! {
        // SAFETY: see the type. lua_error unwinds; what is alive in Rust
        // frames is dropped.
        unsafe {
            luaL_where(self.0, 1);
            match text.as_str() {
                Some(text) => self.push_bytes(text.as_bytes()),
                None => self.push_bytes(text.to_string().as_bytes()),
            }
            lua_concat(self.0, 2);
            lua_error(self.0)
        }
    }

    /// Reserves room for more elements, whose number comes from Lua code.
    pub fn reserve<T>(self, vec: &mut Vec<T>, more: usize) {
        if vec.try_reserve(more).is_err() {
            self.raise(format_args!("no memory"))
        }
    }

    /// A copy of bytes from Lua.
    pub fn owned(self, bytes: &[u8]) -> Vec<u8> {
        let mut copy = Vec::new();
        self.reserve(&mut copy, bytes.len());
        copy.extend_from_slice(bytes);
        copy
    }

    /// Lets go of coroutines that need not be held any more.
    #[inline(always)]
    pub fn release_anchors(self) {
        // SAFETY: see the type.
        unsafe { ngx_lua::release_anchors(self.0) }
    }

    /// The request whose Lua code runs.
    pub fn request(self) -> NonNull<ngx_http_request_t> {
        // SAFETY: see the type.
        match NonNull::new(unsafe { ngx_lua::request(self.0) }) {
            Some(request) => request,
            None => self.raise(format_args!("no request found")),
        }
    }

    /// Ends a method that cannot wait: raises an error, or returns it after
    /// `nils` times nil.
    pub fn cannot_wait(self, nils: c_int, why: CannotWait) -> c_int {
        match why {
            CannotWait::CCall => self.raise(format_args!("{why}")),
            CannotWait::Unknown | CannotWait::NoMemory => self.failure(nils, why),
        }
    }

    /// Suspends a coroutine for good. If it returned, ngx_lua would go on with
    /// its thread, which has ended.
    #[cold]
    pub fn suspend_for_good(self) -> c_int {
        // SAFETY: see the type; the coroutine has waited in this function's
        // caller, so it may yield.
        unsafe { lua_yield(self.0, 0) }
    }

    /// Whether a thread of ngx_lua runs, for which see [`Waiter::is_thread`].
    pub fn is_thread(self, request: NonNull<ngx_http_request_t>) -> bool {
        // SAFETY: see the type; the request is the running one.
        unsafe { Waiter::is_thread(self.0, request) }
    }

    /// The running coroutine, if it may wait here and ngx_lua will resume it.
    #[inline(always)]
    pub fn waiter(self, request: NonNull<ngx_http_request_t>) -> Result<Waiter, CannotWait> {
        // SAFETY: see the type; the request is the running one.
        unsafe {
            if !ngx_lua::is_yieldable(self.0) {
                return Err(CannotWait::CCall);
            }
            Waiter::running(self.0, request).map_err(|none| match none {
                NoWaiter::Unknown => CannotWait::Unknown,
                NoWaiter::NoMemory => CannotWait::NoMemory,
            })
        }
    }
}
