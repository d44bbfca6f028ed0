//! The Lua module `resty.memcached.queue`: writes that nobody waits for. It uses no request and
//! never yields, so it works in every phase.

use std::ffi::c_int;

use mlua::ffi::lua_call;
use mlua::{Lua, Table};
use nginx_sys::NGX_LOG_WARN;

use super::commands::VERBS;
use super::native_table::{native_table, set_functions};
use super::stack::{Stack, native};
use super::{explain, queue_group};
use crate::conf::{LocConf, Queueing};
use crate::nginx::Msec;
use crate::ngx_lua::{State, Table as NativeTable};
use crate::protocol::{Arith, Command, Key};
use crate::transport::{self, NotQueued, QueueKey};
use crate::upstream::{Bounds, Counts};

const GLUE: &str = include_str!("glue/queue.lua");

const CHUNK_NAME: &str = "=resty.memcached.queue";

/// What the methods pass first: the number of the queue, then its limits.
const ADDED: c_int = 4;

/// `require "resty.memcached.queue"`.
pub fn build(lua: &Lua) -> mlua::Result<Table> {
    let functions = [
        ("is_running", native!(is_running)),
        ("limits", native!(limits)),
        ("find", native!(find)),
        ("transform", native!(transform)),
        ("store", native!(store)),
        ("delete", native!(delete)),
        ("touch", native!(touch)),
        ("incr", native!(arith::<true>)),
        ("decr", native!(arith::<false>)),
        ("pending", native!(pending)),
        ("counts", native!(counts)),
        ("shown", native!(shown)),
    ];
    let native = native_table(lua, functions, add_group_functions)?;
    let verbs = VERBS.iter().enumerate();
    let verbs = verbs.map(|(number, (name, _))| (*name, number));
    native.set("verbs", lua.create_table_from(verbs)?)?;
    lua.load(GLUE).set_name(CHUNK_NAME).call(&native)
}

fn add_group_functions(_: State, table: NativeTable) {
    set_functions(table, [("group_for", native!(queue_group::group_for))]);
}

/// `is_running()`: whether this process handles events.
fn is_running(stack: Stack) -> c_int {
    stack.push_integer(i64::from(transport::is_running()));
    1
}

/// `limits()`: max_operations, max_size and timeout of the running request's location or, outside
/// of requests, of the http block.
fn limits(stack: Stack) -> c_int {
    let conf = stack
        .running_request()
        .map_or_else(LocConf::of_http, LocConf::of);
    let limits = conf.queue();
    stack.push_number(limits.bounds.operations as f64);
    stack.push_number(limits.bounds.size as f64);
    stack.push_number(limits.timeout as f64);
    3
}

/// `find(host, port)`: the number of the queue to a server.
fn find(stack: Stack) -> c_int {
    let host = stack.required_text(1, "host");
    let port = u16::try_from(stack.integer(2)).unwrap_or(0);
    match transport::find_queue(host, port) {
        Ok(QueueKey(number)) => {
            stack.push_number(number as f64);
            1
        }
        Err(error) => stack.failure(1, error),
    }
}

/// `transform(function, key)`: its first result. Under this C function it cannot yield.
fn transform(stack: Stack) -> c_int {
    // SAFETY: a running C function's state with a function and its argument.
    unsafe { lua_call(stack.as_ptr(), 1, 1) };
    1
}

/// `shown(value)`: a value as error texts show it.
fn shown(stack: Stack) -> c_int {
    match stack.kind(1) {
        mlua::ffi::LUA_TSTRING => {
            let text = explain::Shown(stack.text(1).unwrap_or_default()).to_string();
            stack.push_bytes(text.as_bytes());
        }
        mlua::ffi::LUA_TNUMBER => {
            let text = stack.number(1).to_string();
            stack.push_bytes(text.as_bytes());
        }
        mlua::ffi::LUA_TBOOLEAN => {
            let text = stack.boolean(1).to_string();
            stack.push_bytes(text.as_bytes());
        }
        _ => stack.push_bytes(format!("a {}", stack.type_name(1)).as_bytes()),
    }
    1
}

fn enqueue(stack: Stack, command: &Command<'_>) -> c_int {
    let limit = |at| stack.number(at) as usize;
    let limits = Queueing {
        bounds: Bounds {
            operations: limit(2),
            size: limit(3),
        },
        timeout: limit(4) as Msec,
    };
    if !stack.is_number(1) {
        return answer(stack, queue_group::enqueue(stack, limits, command));
    }
    answer(
        stack,
        transport::enqueue(QueueKey(limit(1)), limits, command),
    )
}

fn answer(stack: Stack, taken: Result<(), NotQueued>) -> c_int {
    match taken {
        Ok(()) => {
            stack.push_integer(1);
            1
        }
        Err(error) => {
            match &error {
                NotQueued::Refused(refused) => explain::refused(stack, refused),
                NotQueued::Full => explain::counted(
                    stack,
                    NGX_LOG_WARN,
                    "lua memcached: queue full",
                    format_args!(
                        "lua memcached: queue full: see max_operations and max_size of \
                         lua_memcached_queue"
                    ),
                ),
                _ => {}
            }
            stack.failure(1, error)
        }
    }
}

/// The key at `index`; whether to escape it is at the next index.
fn key<'a>(stack: Stack, index: c_int) -> Key<'a> {
    Key {
        bytes: stack.required_text(index, "key"),
        escape: stack.boolean(index + 1),
    }
}

/// `store(…, key, escape, verb, value, exptime, flags)`
fn store(stack: Stack) -> c_int {
    let Some((_, verb)) = VERBS.get(stack.number(ADDED + 3) as usize) else {
        stack.raise(format_args!("bad storage command"))
    };
    enqueue(
        stack,
        &Command::Store {
            verb: *verb,
            key: key(stack, ADDED + 1),
            value: stack.required_text(ADDED + 4, "value"),
            exptime: stack.required_text(ADDED + 5, "exptime"),
            flags: stack.required_text(ADDED + 6, "flags"),
            cas_unique: None,
        },
    )
}

/// `delete(…, key, escape)`
fn delete(stack: Stack) -> c_int {
    let key = key(stack, ADDED + 1);
    enqueue(stack, &Command::Delete { key })
}

/// `touch(…, key, escape, exptime)`
fn touch(stack: Stack) -> c_int {
    enqueue(
        stack,
        &Command::Touch {
            key: key(stack, ADDED + 1),
            exptime: stack.optional_text(ADDED + 3, "exptime"),
        },
    )
}

/// `incr(…, key, escape, delta)`, and `decr`
fn arith<const INCR: bool>(stack: Stack) -> c_int {
    enqueue(
        stack,
        &Command::Arith {
            op: if INCR { Arith::Incr } else { Arith::Decr },
            key: key(stack, ADDED + 1),
            delta: stack.optional_text(ADDED + 3, "delta"),
        },
    )
}

/// Of a queue, by its number, or of all queues to the servers of a block, by its name.
fn counted(stack: Stack) -> (usize, usize, Counts) {
    if !stack.is_number(1) {
        return transport::upstream_counts(stack.required_text(1, "upstream"));
    }
    transport::queue_counts(QueueKey(stack.number(1) as usize)).unwrap_or_default()
}

/// `pending(number)`: how many writes wait, and their bytes.
fn pending(stack: Stack) -> c_int {
    let (writes, bytes, _) = counted(stack);
    stack.push_number(writes as f64);
    stack.push_number(bytes as f64);
    2
}

/// `counts(number)`: taken, done, unmet, refused, lost, dropped, full.
fn counts(stack: Stack) -> c_int {
    let (_, _, counts) = counted(stack);
    let answers = counts.answers;
    let all = [
        counts.taken,
        answers.done,
        answers.unmet,
        answers.refused,
        counts.lost,
        counts.dropped,
        counts.full,
    ];
    for count in all {
        stack.push_number(count as f64);
    }
    all.len() as c_int
}
