//! Arguments and results on the Lua stack, and errors raised in Lua.

use std::ffi::c_int;
use std::fmt;
use std::ops::Deref;

use mlua::ffi::{LUA_TNIL, LUA_TNONE, lua_concat, lua_error};

use crate::nginx::Request;
use crate::ngx_lua::{self, NoWaiter, State, Table, Value, Waiter};

/// Why the running coroutine cannot wait where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotWait {
    /// It was called by a C function that cannot be suspended. The error is raised, with LuaJIT's
    /// text.
    #[error("attempt to yield across C-call boundary")]
    CCall,
    /// ngx_lua would not resume it: it was created by Lua's own `coroutine.create`, or it runs in a
    /// thread that has ended. The pure-Lua library would yield to whoever resumed the coroutine;
    /// here it is an error.
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
            let state = unsafe { $crate::ngx_lua::State::new(state) };
            $function($crate::lua::stack::Stack::from(state))
        }
        call as mlua::ffi::lua_CFunction
    }};
}
pub(super) use native;

/// A [`State`], with arguments, results and errors of this module's functions.
#[derive(Clone, Copy)]
pub struct Stack(State);

impl Deref for Stack {
    type Target = State;

    #[inline(always)]
    fn deref(&self) -> &State {
        &self.0
    }
}

impl From<State> for Stack {
    #[inline(always)]
    fn from(state: State) -> Stack {
        Stack(state)
    }
}

impl Stack {
    /// Name of the type of the value at `index`.
    pub fn type_name(self, index: c_int) -> &'static str {
        type_name(self.kind(index))
    }

    pub fn is_none_or_nil(self, index: c_int) -> bool {
        matches!(self.kind(index), LUA_TNONE | LUA_TNIL)
    }

    /// As [`State::text`]; raises an error for anything else but nil.
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

    /// As [`State::text`]; raises an error for anything else.
    pub fn required_text<'a>(self, index: c_int, name: &str) -> &'a [u8] {
        match self.optional_text(index, name) {
            Some(text) => text,
            None => self.raise(format_args!(
                "bad {name} argument (string or number expected, got nil)"
            )),
        }
    }

    /// The table at `index`; raises an error for anything else.
    #[inline(always)]
    pub fn check_table(self, index: c_int) -> Table {
        match self.table(index) {
            Some(table) => table,
            None => self.raise(format_args!(
                "bad self argument (table expected, got {})",
                self.type_name(index)
            )),
        }
    }

    pub fn push_integer(self, n: i64) {
        self.push(Value::Integer(n));
    }

    pub fn push_number(self, n: f64) {
        self.push(Value::Number(n));
    }

    pub fn push_boolean(self, value: bool) {
        self.push(Value::Boolean(value));
    }

    pub fn push_nil(self) {
        self.push(Value::Nil);
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
        self.push_position();
        match text.as_str() {
            Some(text) => self.push_bytes(text.as_bytes()),
            None => self.push_bytes(text.to_string().as_bytes()),
        }
        // SAFETY: two strings were pushed. lua_error unwinds; what is alive in Rust frames is
        // dropped.
        unsafe {
            lua_concat(self.as_ptr(), 2);
            lua_error(self.as_ptr())
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
        ngx_lua::release_anchors(self.0);
    }

    /// The request whose Lua code runs. Raises an error if there is none.
    pub fn request(self) -> Request {
        match self.running_request() {
            Some(request) => request,
            None => self.raise(format_args!("no request found")),
        }
    }

    /// Ends a method that cannot wait: raises an error, or returns it after `nils` times nil.
    pub fn cannot_wait(self, nils: c_int, why: CannotWait) -> c_int {
        match why {
            CannotWait::CCall => self.raise(format_args!("{why}")),
            CannotWait::Unknown | CannotWait::NoMemory => self.failure(nils, why),
        }
    }

    /// Suspends a coroutine for good. If it returned, ngx_lua would go on with its thread, which
    /// has ended.
    #[cold]
    pub fn suspend_for_good(self) -> c_int {
        self.suspend()
    }

    /// Whether a thread of ngx_lua runs, for which see [`Waiter::is_thread`].
    pub fn is_thread(self, request: Request) -> bool {
        Waiter::is_thread(self.0, request)
    }

    /// The running coroutine, if it may wait here and ngx_lua will resume it.
    #[inline(always)]
    pub fn waiter(self, request: Request) -> Result<Waiter, CannotWait> {
        if !self.is_yieldable() {
            return Err(CannotWait::CCall);
        }
        Waiter::running(self.0, request).map_err(|none| match none {
            NoWaiter::Unknown => CannotWait::Unknown,
            NoWaiter::NoMemory => CannotWait::NoMemory,
        })
    }
}

/// Name of a type, as `lua_typename` has it.
pub fn type_name(kind: c_int) -> &'static str {
    const NAMES: [&str; 12] = [
        "no value", "nil", "boolean", "userdata", "number", "string", "table", "function",
        "userdata", "thread", "proto", "cdata",
    ];
    let found = usize::try_from(kind.saturating_sub(LUA_TNONE));
    found.ok().and_then(|at| NAMES.get(at)).unwrap_or(&"?")
}
