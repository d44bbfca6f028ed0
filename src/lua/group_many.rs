//! Lists of keys, for servers used as one: split among them; each server's part is a command of its
//! own, and what comes of it goes into one table of results.

use std::ffi::c_int;

use mlua::ffi::LUA_TBOOLEAN;

use super::commands;
use super::explain;
use super::group::{as_hashed, tried, with};
use super::handle;
use super::results::{Returns, push, put_values};
use super::stack::Stack;
use super::suspend::{cannot_wait, go_on};
use crate::group::Scatter;
use crate::ngx_lua::Value;
use crate::protocol::{Command, Key, Reply};
use crate::transport::{self, Begun, Caller, Commands, Outcome, Slot};

/// Keys that the table of results has room for at first.
const MAX_ROOM: usize = 10_000;

/// `group_split(name, keys, escape, cas, tried…)`: for each server that takes some of the keys an
/// array of its name, its host, its port or false, whether it has failed before, its keys, and how
/// long a value may live there or nil; in an array, followed by the number of keys that no server
/// takes. `nil, err` if the keys are refused.
///
/// `group_split_sent` is the same, but a server's keys are a text: as they are sent, with a space
/// between two.
pub fn split<const SENT: bool>(stack: Stack) -> c_int {
    let mut keys = commands::keys(stack, 2);
    let cas = stack.boolean(4);
    if let Err(refused) = (Command::GetMany { keys: &keys, cas }).check() {
        explain::refused(stack, &refused);
        return stack.failure(1, refused.answer);
    }
    keys.retain(|key| !key.bytes.is_empty());
    let tried = tried(stack, 5);
    let found = with(stack, |current| {
        let unescaped = current.group().policy().method.hashes_unescaped();
        let hashed = keys.iter().map(|key| as_hashed(*key, unescaped));
        let mut choices = Vec::new();
        let chosen = current.choose_all(hashed, &tried, &mut choices);
        chosen.map(|group| (group, choices))
    });
    let (group, choices) = match found {
        Ok(Ok(found)) => found,
        Ok(Err(error)) => return stack.failure(1, error),
        Err(error) => return stack.failure(1, error),
    };
    let servers = choices
        .iter()
        .map(|choice| choice.map(|choice| choice.peer));
    let Ok(scatter) = Scatter::new(group.peers().len(), servers) else {
        return stack.failure(1, transport::Error::NoMemory);
    };
    let mut sent = Vec::new();
    let parts = stack.push_table(scatter.parts.len(), 0);
    for (at, part) in (1..).zip(&scatter.parts) {
        let Some(peer) = group.peers().get(part.peer) else {
            continue;
        };
        let places = part.places.iter();
        let own = places.clone().filter_map(|place| keys.get(*place));
        let chosen = places.filter_map(|place| choices.get(*place)).flatten();
        let suspect = chosen.clone().any(|choice| choice.suspect);
        let gutter = chosen.filter_map(|choice| choice.gutter).next();
        let (host, port) = peer.endpoint();
        parts.put_table(at, 6, |entry| {
            entry.put(1, Value::Bytes(&peer.name));
            entry.put(2, Value::Bytes(host));
            let port = port.map_or(Value::Boolean(false), |port| Value::Integer(port.into()));
            entry.put(3, port);
            entry.put(4, Value::Boolean(suspect));
            let gutter = gutter.map_or(Value::Nil, |limit| Value::Integer(limit.into()));
            entry.put(6, gutter);
            if SENT {
                sent.clear();
                for key in own {
                    let key = key.sent();
                    stack.reserve(&mut sent, key.len() + 1);
                    if !sent.is_empty() {
                        sent.push(b' ');
                    }
                    sent.extend_from_slice(&key);
                }
                entry.put(5, Value::Bytes(&sent));
            } else {
                entry.put_table(5, part.places.len(), |list| {
                    for (at, key) in (1..).zip(own) {
                        list.put(at, Value::Bytes(key.bytes));
                    }
                });
            }
        });
    }
    stack.push_integer(scatter.homeless.len() as i64);
    2
}

/// `begin_many(id, sent, cas, unescape)`: true if the command was sent, and [`wait_many`] is to be
/// called; or its result. `sent` are keys as `group_split_sent` gives them.
pub fn begin_many(stack: Stack) -> c_int {
    let sent = stack.required_text(2, "keys");
    let cas = stack.boolean(3);
    let returns = commands::many(stack, 4);
    let request = stack.request();
    let Some(key) = handle::id_argument(stack, 1) else {
        return stack.failure(1, transport::Error::Closed);
    };
    if let Err(why) = stack.waiter(request) {
        return cannot_wait(stack, returns, key, request, why);
    }
    let mut keys = Vec::new();
    for key in Key::of_list(sent) {
        stack.reserve(&mut keys, 1);
        keys.push(key);
    }
    let command = Command::GetMany { keys: &keys, cas };
    match transport::begin(key, Slot::Reader, request, Commands::One(&command)) {
        Ok(Begun::Waiting) => {
            stack.push(Value::Boolean(true));
            1
        }
        next => go_on(stack, returns, next),
    }
}

/// `wait_many(id, unescape)`, for `finish_many` or `finish_many_raw`
pub fn wait_many(stack: Stack) -> c_int {
    let returns = commands::many(stack, 2);
    let request = stack.request();
    let Some(key) = handle::id_argument(stack, 1) else {
        return stack.failure(1, transport::Error::Closed);
    };
    match stack.waiter(request) {
        Ok(waiter) => {
            let waiter = Some(waiter);
            let next = transport::wait(key, Slot::Reader, Caller { request, waiter });
            go_on(stack, returns, next)
        }
        Err(why) => stack.cannot_wait(1, why),
    }
}

/// `new_results(keys)`: a table for the results of so many keys
pub fn new_results(stack: Stack) -> c_int {
    let keys = stack.number(1) as usize;
    stack.push_table(0, keys.min(MAX_ROOM));
    1
}

/// `gather_many(sock, id, results, wait_many(id, unescape))`: as `finish_many`, but the results are
/// put into `results`, which is returned.
pub fn gather_many(stack: Stack) -> c_int {
    if stack.kind(4) != LUA_TBOOLEAN {
        return stack.top() - 3;
    }
    let Some(session) = handle::id_argument(stack, 2) else {
        return stack.failure(1, transport::Error::Closed);
    };
    let results = stack.check_table(3);
    let outcome = transport::take_outcome(session, Slot::Reader);
    stack.release_anchors();
    match outcome {
        Outcome::Reply(Reply::Values(values)) => {
            put_values(stack, results, &values);
            transport::recycle(Reply::Values(values));
            stack.push(Value::At(3));
            1
        }
        outcome => push(stack, Returns::MANY, outcome, None),
    }
}
