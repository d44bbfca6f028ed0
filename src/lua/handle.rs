//! Handles: Lua objects hold generational ids instead of pointers. An id that outlives its object,
//! or any other value in its place, finds nothing.
//!
//! A pipeline is a userdata that contains its id. A connected `sock` holds its session's id as a
//! number, which is quick to pass, and a userdata whose collection ends the session. Creating and
//! collecting userdata is slow, so the userdata of a closed `sock` is reused for the next one.

use std::cell::Cell;
use std::ffi::c_int;

use mlua::ffi::{
    LUA_TBOOLEAN, LUA_TFUNCTION, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE, lua_CFunction,
    lua_upvalueindex,
};

use super::fields;
use super::stack::{Stack, native};
use crate::ngx_lua::{State, Table, Value};
use crate::transport::{self, SessionKey};

/// Upvalues of the functions that [`set_with_spares`] makes: the number of spare handles, and a
/// table of them.
const SPARES_COUNT: c_int = lua_upvalueindex(1);
const SPARES: c_int = lua_upvalueindex(2);

/// Maximum number of spare handles in a VM.
const MAX_SPARES: u64 = 256;

/// What a handle names. Each kind has a metatable of its own.
pub struct HandleKind {
    /// The first word of its handles, so that no other userdata is taken for one. The second is the
    /// id.
    pub magic: u64,
    /// `__gc` of its handles.
    pub collect: lua_CFunction,
}

static SESSION: HandleKind = HandleKind {
    magic: 0x6d63_5f73_6573_7369,
    collect: native!(collect),
};

/// Pushes a new handle. Its garbage collection ends what it names.
pub fn push<'a>(stack: Stack, kind: &'static HandleKind, id: u64) -> &'a [Cell<u64>; 2] {
    let metatable = stack.push_kept_table(kind, |table| {
        table.set(Value::Bytes(b"__gc"), Value::Function(kind.collect, &[]));
        // keeps Lua code from getting the metatable and calling __gc itself
        table.set(Value::Bytes(b"__metatable"), Value::Boolean(false));
    });
    stack.push_words([kind.magic, id], Some(metatable))
}

/// The id in the handle at `index`, if there is a handle of this kind.
pub fn read(stack: Stack, index: c_int, kind: &HandleKind) -> Option<u64> {
    let [magic, id] = stack.words::<2>(index)?;
    (magic.get() == kind.magic).then(|| id.get())
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

/// The session that the glue passed at `index`: by its id or, as [`session`] takes it, by its
/// `sock`.
pub fn session_argument(stack: Stack, index: c_int) -> Option<SessionKey> {
    let found = id_argument(stack, index);
    match found {
        None if stack.kind(index) == LUA_TTABLE => session(stack, index),
        found => found,
    }
}

/// The session of the `sock` at `index`. Raises an error if that is not a table.
pub fn session(stack: Stack, index: c_int) -> Option<SessionKey> {
    session_of(stack, stack.check_table(index))
}

/// As [`session`].
#[inline(always)]
pub fn session_of(stack: Stack, sock: Table) -> Option<SessionKey> {
    match sock.number(fields::ID) {
        (LUA_TNUMBER, id) => return Some(SessionKey::from_number(id)),
        // the glue makes each `sock` with false in the id's place
        (LUA_TBOOLEAN, _) => {}
        _ => check_sock(stack, sock),
    }
    None
}

/// As [`session`], for calls in which the glue passes the id of `sock` as well. `None` also if the
/// session was closed.
#[inline(always)]
pub fn session_with_id(stack: Stack, sock: Table, id: c_int) -> Option<SessionKey> {
    let number = stack.number(id);
    if number != 0.0 {
        return Some(SessionKey::from_number(number));
    }
    if !matches!(stack.kind(id), LUA_TBOOLEAN) {
        check_sock(stack, sock);
    }
    None
}

/// What the `sock` that connects had before.
pub enum Found {
    /// It has had no session yet.
    Nothing,
    /// It has had this one.
    Session(SessionKey),
    /// It is connected to a group of servers.
    Group,
}

/// As [`session_with_id`], optimised for a `sock` that has had no session yet.
pub fn to_connect(stack: Stack, sock: Table, id: c_int) -> Found {
    if stack.kind(id) == LUA_TBOOLEAN {
        return Found::Nothing;
    }
    match session_with_id(stack, sock, id) {
        Some(key) => Found::Session(key),
        None => Found::Group,
    }
}

/// Raises an error if the table lacks the methods of a `sock`.
#[cold]
fn check_sock(stack: Stack, sock: Table) {
    let method = stack.scope(|| stack.kind(sock.push_field(c"setkeepalive")));
    if method != LUA_TFUNCTION {
        stack.raise(format_args!("bad sock (it has no method 'setkeepalive')"));
    }
}

/// Sets functions that may use [`NewHandle`] and [`detach`] in a table.
pub fn set_with_spares(state: State, into: Table, functions: &[(&str, lua_CFunction)]) {
    state.scope(|| {
        state.push_words([0], None);
        let count = Value::At(state.top());
        state.push_table(32, 0);
        let spares = Value::At(state.top());
        for (name, function) in functions {
            let function = Value::Function(*function, &[count, spares]);
            into.set(Value::Bytes(name.as_bytes()), function);
        }
    });
}

/// The handles that are kept for the next sessions of a VM.
struct Spares<'a> {
    count: &'a Cell<u64>,
    table: Table,
}

impl<'a> Spares<'a> {
    /// `None` in a function that [`set_with_spares`] has not made.
    #[inline(always)]
    fn of(stack: Stack) -> Option<Spares<'a>> {
        let count = stack.userdata(SPARES_COUNT).cast::<Cell<u64>>();
        // SAFETY: no other function of this module has a userdata as its first upvalue. These have
        // the count, and a table as the second.
        unsafe {
            Some(Spares {
                count: count.as_ref()?,
                table: Table::assume(*stack, SPARES),
            })
        }
    }

    /// Takes a spare handle out of the table, and pushes it. In the table it would outlive its
    /// `sock`.
    #[inline(always)]
    fn push_one(&self, stack: Stack) -> Option<NewHandle<'a>> {
        let count = self.count.get();
        let left = count.checked_sub(1)?;
        let at = self.table.push_element(count as c_int);
        self.table.put(count as c_int, Value::Nil);
        self.count.set(left);
        // SAFETY: what is in the table are handles of sessions.
        let handle = unsafe { stack.userdata(at).cast::<[Cell<u64>; 2]>().as_ref()? };
        Some(NewHandle { handle, at })
    }
}

/// The handle of a session that is about to be created. It is on the stack.
pub struct NewHandle<'a> {
    handle: &'a [Cell<u64>; 2],
    at: c_int,
}

impl NewHandle<'_> {
    /// Pushes one. Only for functions made by [`set_with_spares`].
    #[inline(always)]
    pub fn push(stack: Stack) -> Self {
        let spare = Spares::of(stack).and_then(|spares| spares.push_one(stack));
        spare.unwrap_or_else(|| {
            let handle = push(stack, &SESSION, 0);
            let at = stack.top();
            NewHandle { handle, at }
        })
    }

    /// The address of the handle.
    pub fn address(&self) -> usize {
        std::ptr::from_ref(self.handle).addr()
    }

    /// Puts the handle into the `sock`, which has none, and makes it that of this session.
    pub fn give(self, stack: Stack, sock: Table, key: SessionKey) {
        let [_, id] = self.handle;
        id.set(key.to_bits());
        let Some(id) = key.to_number() else {
            // the handle is collected, and with it the session
            stack.raise(format_args!("no memory"))
        };
        sock.put(fields::HANDLE, Value::At(self.at));
        sock.put(fields::ID, Value::Number(id));
    }
}

/// Keeps the handle of the `sock`, whose session was retired and had a handle at this address. The
/// id stays in the `sock` and finds nothing. Only for functions made by [`set_with_spares`].
#[inline(always)]
pub fn detach(stack: Stack, sock: Table, address: Option<usize>) {
    let Some(address) = address else { return };
    let Some(spares) = Spares::of(stack) else {
        return;
    };
    let count = spares.count.get();
    // Only the handle of that session is kept, whatever Lua code has put into the table. In this
    // order, because growing the table may raise an error.
    if count < MAX_SPARES
        && spares
            .table
            .put_userdata_of(count as c_int + 1, sock, fields::HANDLE, address)
    {
        spares.count.set(count + 1);
        sock.put(fields::HANDLE, Value::Boolean(false));
    }
}
