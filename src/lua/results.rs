//! Converts outcomes to Lua values.

use std::ffi::c_int;
use std::rc::Rc;

use mlua::ffi::{LUA_TBOOLEAN, lua_upvalueindex};

use super::explain;
use super::handle;
use super::stack::{Stack, native};
use crate::ngx_lua::{Table, Value};
use crate::protocol::{Hit, MetaItem, Reply, Values, is_plain, unescape_into};
use crate::transport::{self, Outcome, Slot};

/// Which values a method returns.
pub struct Returns;

impl Returns {
    /// `1` or `nil, err`
    pub const CONNECT: u8 = 0;
    /// length or `nil, err`
    pub const SEND: u8 = 1;
    /// data or `nil, err, partial`
    pub const RECEIVE: u8 = 2;
    /// `value, flags` or `nil, nil, err`
    pub const GET: u8 = 3;
    /// `value, flags, cas` or `nil, nil, nil, err`
    pub const GETS: u8 = 4;
    /// A table by unescaped key, or `nil, err`
    pub const MANY: u8 = 5;
    /// An array of keys as sent, each followed by its item, or `nil, err`
    pub const MANY_RAW: u8 = 6;
    /// What a line says: `1`, a number, a version, statistics, or `nil, err`
    pub const LINE: u8 = 7;
    /// `1` or `nil, err`
    pub const QUIT: u8 = 8;

    /// The address of a TLS session (0: none) or `nil, err`
    pub const HANDSHAKE: u8 = 9;

    /// A table or nil, or `nil, err`
    pub const META_GET: u8 = 10;
    /// A table, or `nil, err`
    pub const META_SET: u8 = 11;
    /// `1` or `nil, err`
    pub const META_DELETE: u8 = 12;
    /// `number, nil, ttl` or `nil, err`
    pub const META_ARITH: u8 = 13;

    /// Whether they are those of a command that may have to ask first what the server can do.
    const fn may_ask(returns: u8) -> bool {
        matches!(
            returns,
            Returns::META_GET | Returns::META_SET | Returns::META_DELETE | Returns::META_ARITH
        )
    }

    /// How many nils precede an error.
    pub fn nils(returns: u8) -> c_int {
        match returns {
            Returns::GET => 2,
            Returns::GETS => 3,
            _ => 1,
        }
    }

    /// Where the session keeps operations that return this.
    pub fn slot(returns: u8) -> Slot {
        match returns {
            Returns::SEND | Returns::QUIT => Slot::Writer,
            _ => Slot::Reader,
        }
    }
}

/// What is returned instead of results where the server had to be asked what it can do: the command
/// is to be started again. No result of one that needs it is this number.
///
/// An older server would take a value for commands or ignore an option. So the first meta command
/// on a connection asks for the version.
pub const AGAIN: i64 = 0;

/// What `connect` returns instead of 1, where the glue is to do something else.
pub struct Elsewhere;

impl Elsewhere {
    /// The object is to be connected to the group whose number or name is the second result; the
    /// third is the table of options, if there is one.
    pub const GROUP: i64 = 2;
    /// The object has to leave its group before it can be connected to a server.
    pub const LEAVE: i64 = 3;
}

/// Upvalue of `finish::<{ Returns::GET }>`: the string `"0"`. Most flags are 0, and pushing an
/// upvalue is cheaper than interning a string.
const ZERO: c_int = lua_upvalueindex(1);

/// `finish::<{ Returns::GET }>`.
pub fn finish_get() -> Value<'static> {
    Value::Function(native!(finish::<{ Returns::GET }>), &[Value::Bytes(b"0")])
}

/// `finish(sock, id, start(id, …))`: the results of `start` or, after a semaphore has resumed it,
/// those of the operation. A semaphore's first result is a boolean, which no `start` returns.
pub fn finish<const RETURNS: u8>(stack: Stack) -> c_int {
    if stack.kind(3) != LUA_TBOOLEAN {
        return stack.top() - 2;
    }
    match handle::session_argument(stack, 2) {
        Some(key) => {
            let slot = Returns::slot(RETURNS);
            let outcome = transport::take_outcome(key, slot);
            stack.release_anchors();
            if Returns::may_ask(RETURNS) {
                return push_told(stack, RETURNS, outcome);
            }
            let zero = (RETURNS == Returns::GET).then_some(ZERO);
            push(stack, RETURNS, outcome, zero)
        }
        None => stack.failure(Returns::nils(RETURNS), transport::Error::Closed),
    }
}

/// As [`push`], for a command that may have had to ask first.
fn push_told(stack: Stack, returns: u8, outcome: Outcome) -> c_int {
    match outcome {
        Outcome::Reply(reply @ Reply::Meta(_)) => {
            let pushed = push_reply(stack, returns, &reply, None);
            transport::recycle(reply);
            pushed
        }
        outcome if is_told(&outcome) => {
            stack.push_integer(AGAIN);
            1
        }
        outcome => push(stack, returns, outcome, None),
    }
}

/// Whether the server has told what it can do, and nothing else was asked.
pub fn is_told(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Reply(Reply::Version(_) | Reply::Done))
}

/// Pushes what a method returns for an outcome, and returns the number of values. `zero` is the
/// index of the string `"0"`, if it is on the stack.
pub fn push(stack: Stack, returns: u8, outcome: Outcome, zero: Option<c_int>) -> c_int {
    match outcome {
        Outcome::Connected => {
            stack.push_integer(1);
            1
        }
        Outcome::Sent(bytes) => {
            stack.push_integer(if returns == Returns::QUIT {
                1
            } else {
                bytes as i64
            });
            1
        }
        Outcome::Received(data) => {
            stack.push_bytes(&data);
            1
        }
        Outcome::Interrupted(error, partial) => {
            stack.failure(1, error);
            stack.push_bytes(&partial);
            3
        }
        Outcome::Reply(reply) => {
            let pushed = push_reply(stack, returns, &reply, zero);
            if let Reply::Value(_) | Reply::Values(_) = reply {
                transport::recycle(reply);
            }
            pushed
        }
        Outcome::Common(reply) => {
            let pushed = push_reply(stack, returns, &reply, zero);
            if let Some(reply) = Rc::into_inner(reply) {
                transport::recycle(reply);
            }
            pushed
        }
        Outcome::Failed(error) => stack.failure(Returns::nils(returns), error),
        Outcome::Ended => stack.suspend_for_good(),
        // `sslhandshake` and `commit` have a function of their own for these
        Outcome::Handshaken | Outcome::Replies(..) => {
            stack.failure(Returns::nils(returns), transport::Error::Unknown)
        }
    }
}

/// Pushes what a method returns for a reply, and returns the number of values. `zero` as with
/// [`push`].
pub fn push_reply(stack: Stack, returns: u8, reply: &Reply, zero: Option<c_int>) -> c_int {
    match reply {
        Reply::Value(value) => {
            stack.push_bytes(&value.data);
            match (value.flags.as_bytes(), zero) {
                (b"0", Some(at)) => stack.push(Value::At(at)),
                (flags, _) => stack.push_bytes(flags),
            }
            match value.cas {
                Some(cas) if returns == Returns::GETS => {
                    stack.push_bytes(cas.as_bytes());
                    3
                }
                _ => 2,
            }
        }
        Reply::Miss => {
            let nils = Returns::nils(returns) + 1;
            for _ in 0..nils {
                stack.push_nil();
            }
            nils
        }
        Reply::Values(values) => {
            push_values(stack, returns, values);
            1
        }
        Reply::Done => {
            stack.push_integer(1);
            1
        }
        Reply::Number(digits) => {
            stack.push_bytes(digits.as_bytes());
            1
        }
        Reply::Meta(item) => push_meta(stack, returns, item),
        Reply::Version(text) => {
            stack.push_bytes(text);
            1
        }
        Reply::Stats(lines) => {
            let table = stack.push_table(lines.len(), 0);
            for (at, line) in (1..).zip(lines) {
                table.put(at, Value::Bytes(line));
            }
            stack.push_nil();
            2
        }
        Reply::Line(line) => {
            let nils = Returns::nils(returns);
            for _ in 0..nils {
                stack.push_nil();
            }
            stack.push_bytes(line);
            nils + 1
        }
        Reply::Malformed(malformed) => {
            explain::malformed(stack, malformed);
            stack.failure(Returns::nils(returns), malformed)
        }
    }
}

/// What a meta command's method returns.
fn push_meta(stack: Stack, returns: u8, item: &MetaItem) -> c_int {
    match returns {
        Returns::META_GET | Returns::META_SET => {
            let table = stack.push_table(0, 4);
            let field = |name: &[u8], value: Option<Value<'_>>| {
                if let Some(value) = value {
                    table.set(Value::Bytes(name), value);
                }
            };
            let number = |n: u64| Value::Number(n as f64);
            let set = |flag: bool| flag.then_some(Value::Boolean(true));
            field(b"value", item.value.as_deref().map(Value::Bytes));
            field(
                b"flags",
                item.flags.as_ref().map(|n| Value::Bytes(n.as_bytes())),
            );
            field(
                b"cas",
                item.cas.as_ref().map(|n| Value::Bytes(n.as_bytes())),
            );
            field(b"ttl", item.ttl.map(|ttl| Value::Number(f64::from(ttl))));
            field(b"size", item.size.map(number));
            field(b"hit", item.hit.map(Value::Boolean));
            field(b"last_access", item.last_access.map(number));
            field(b"won", set(item.won));
            field(b"stale", set(item.stale));
            field(b"lost", set(item.lost));
            1
        }
        Returns::META_ARITH => {
            stack.push_bytes(item.value.as_deref().unwrap_or_default());
            let Some(ttl) = item.ttl else { return 1 };
            stack.push_nil();
            stack.push_integer(ttl.into());
            3
        }
        _ => {
            stack.push_integer(1);
            1
        }
    }
}

fn push_values(stack: Stack, returns: u8, values: &Values) {
    if returns == Returns::MANY_RAW {
        let table = stack.push_table(values.len() * 2, 0);
        for (at, hit) in (1..).step_by(2).zip(values.iter()) {
            table.put(at, Value::Bytes(hit.key));
            table.put_table(at + 1, item_len(&hit), |item| fill_item(item, &hit, None));
        }
        return;
    }
    let table = stack.push_table(0, values.len());
    put_values(stack, table, values);
}

/// Puts the values of a list of keys into a table, by unescaped key.
pub fn put_values(stack: Stack, table: Table, values: &Values) {
    // mostly all values have the same flags, whose string is interned once
    stack.scope(|| {
        let common = values.iter().next().map(|hit| hit.flags);
        stack.push_bytes(common.unwrap_or_default());
        let common = common.map(|flags| (flags, stack.top()));
        put_hits(table, values, common);
    });
}

/// `common` as with [`fill_item`].
fn put_hits(table: Table, values: &Values, common: Option<(&[u8], c_int)>) {
    let mut key = Vec::new();
    for hit in values.iter() {
        let name = if is_plain(hit.key) {
            hit.key
        } else {
            key.clear();
            unescape_into(hit.key, &mut key);
            &key
        };
        table.set_table(name, item_len(&hit), |item| fill_item(item, &hit, common));
    }
}

fn item_len(hit: &Hit<'_>) -> usize {
    if hit.cas.is_some() { 3 } else { 2 }
}

/// `{ value, flags [, cas] }`. `common`: some flags, and the index of their string on the stack.
#[inline(always)]
fn fill_item(item: Table, hit: &Hit<'_>, common: Option<(&[u8], c_int)>) {
    item.put(1, Value::Bytes(hit.data));
    match common {
        Some((flags, at)) if flags == hit.flags => item.put(2, Value::At(at)),
        _ => item.put(2, Value::Bytes(hit.flags)),
    }
    if let Some(cas) = hit.cas {
        item.put(3, Value::Bytes(cas));
    }
}
