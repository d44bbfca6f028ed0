//! Open pipelines: commands kept between `init_pipeline` and `commit_pipeline`.
//! A pipeline belongs to no connection, so it survives `set_keepalive` and a
//! reconnect.

use std::ffi::c_int;

use mlua::ffi::LUA_TBOOLEAN;

use super::explain;
use super::handle::{self, Kind};
use super::results::{Shape, new_table, push_reply, set_index};
use super::stack::{Stack, native};
use super::suspend::{cannot_wait, go_on};
use crate::protocol::{Command, Reply};
use crate::transport::{
    self, Begun, Caller, Error, Outcome, PipelineKey, Queued, Rejected, Slot, not_connected,
};

static KIND: Kind = Kind {
    magic: 0x6d63_5f70_6970_656c,
    collect: native!(collect),
};

/// The id of the open pipeline that the glue passed at `index`.
pub fn id_at(stack: Stack, index: c_int) -> Option<PipelineKey> {
    handle::read(stack, index, &KIND).map(PipelineKey::from_bits)
}

/// The Lua object of a pipeline is collected.
fn collect(stack: Stack) -> c_int {
    if let Some(key) = id_at(stack, 1) {
        transport::take_commands(key);
    }
    0
}

/// `new_pipeline()`
pub fn new(stack: Stack) -> c_int {
    let key = transport::new_pipeline();
    handle::push(stack, &KIND, key.to_bits());
    1
}

/// `pipeline_length(pipeline)`: number of commands in it
pub fn length(stack: Stack) -> c_int {
    let len = id_at(stack, 1).map_or(0, transport::pipeline_len);
    stack.push_integer(len as i64);
    1
}

/// Adds a command. A refused one takes a place in the results and does not
/// affect the others.
pub fn queue(stack: Stack, key: PipelineKey, shape: u8, command: &Command<'_>) -> c_int {
    match transport::add_command(key, shape, command) {
        Ok(()) => {}
        Err(Rejected::Refused(refused)) => explain::refused(stack, &refused),
        Err(Rejected::Failed(error)) => stack.raise(format_args!("{error}")),
    }
    stack.push_integer(1);
    1
}

/// `commit(sock, pipeline)`
pub fn commit(stack: Stack) -> c_int {
    let request = stack.request();
    let Some(session) = handle::session_argument(stack, 1) else {
        if let Some(why) = handle::failure_argument(stack, 1) {
            return stack.failure(1, String::from_utf8_lossy(why));
        }
        return stack.failure(1, not_connected(request, "send", Error::Closed));
    };
    let caller = match stack.waiter(request) {
        Ok(waiter) => Caller {
            request,
            waiter: Some(waiter),
        },
        Err(why) => return cannot_wait(stack, Shape::LINE, session, request, why),
    };
    let Some(id) = id_at(stack, 2) else {
        stack.raise(format_args!("bad pipeline"))
    };
    match transport::commit(session, caller, id) {
        Ok(Begun::Ready(outcome)) => push_outcome(stack, id, outcome),
        next => go_on(stack, Shape::LINE, next),
    }
}

/// `finish_commit(pipeline, sock, id, commit(id, pipeline))`, see
/// [`super::results::finish`]
pub fn finish_commit(stack: Stack) -> c_int {
    if stack.kind(4) != LUA_TBOOLEAN {
        return stack.top() - 3;
    }
    let outcome = match handle::session_argument(stack, 3) {
        Some(session) => transport::take_outcome(session, Slot::Reader),
        None => Outcome::Failed(Error::Closed),
    };
    stack.release_anchors();
    match id_at(stack, 1) {
        Some(id) => push_outcome(stack, id, outcome),
        None => stack.failure(1, Error::Unknown),
    }
}

/// The results of a pipeline: a table with a table for each command, holding
/// what its method would have returned.
fn push_outcome(stack: Stack, key: PipelineKey, outcome: Outcome) -> c_int {
    let (replies, failure) = match outcome {
        Outcome::Replies(replies, failure) => (replies, failure),
        Outcome::Failed(error) => return stack.failure(1, error),
        Outcome::Ended => return stack.suspend_for_good(),
        _ => return stack.failure(1, Error::Unknown),
    };
    let commands = transport::take_commands(key);
    new_table(stack, commands.len(), 0);
    let mut replies = replies.into_iter();
    let mut failure = failure;
    for (at, slot) in (1..).zip(&commands) {
        match slot {
            Queued::Refused(shape, answer) => push_failure(stack, *shape, answer),
            Queued::Command(shape) => match replies.next() {
                Some(reply) => {
                    push_slot(stack, *shape, &reply);
                    transport::recycle(reply);
                }
                None => {
                    // the commands after the failed one find the connection
                    // closed
                    let error = failure.take().unwrap_or_else(|| {
                        not_connected(stack.request(), "receive", Error::Closed)
                    });
                    push_failure(stack, *shape, &error);
                }
            },
        }
        set_index(stack, at);
    }
    stack.push_nil();
    2
}

fn push_slot(stack: Stack, shape: u8, reply: &Reply) {
    match reply {
        Reply::Miss => new_table(stack, 0, 0),
        _ => {
            let before = stack.top();
            let count = push_reply(stack, shape, reply, None);
            pack(stack, before, count);
        }
    }
}

fn push_failure(stack: Stack, shape: u8, error: &dyn std::fmt::Display) {
    let before = stack.top();
    let count = stack.failure(Shape::nils(shape), error);
    pack(stack, before, count);
}

/// `{ … }` around the `count` values above `before`.
///
/// The room is what LuaJIT makes for the expression `{ f() }`, so that `#`
/// finds the same border in `{ nil, err }` or `{ nil, nil, err }` as it does
/// there.
fn pack(stack: Stack, before: c_int, count: c_int) {
    let room = match count.unsigned_abs() as usize {
        0..=2 => 2,
        count => count + 1,
    };
    new_table(stack, room, 0);
    // SAFETY: a running C function's state; the table goes below the values,
    // which are then popped into it from the last to the first.
    unsafe { mlua::ffi::lua_insert(stack.state(), before + 1) };
    for at in (1..=count).rev() {
        // SAFETY: as above; the table is at a fixed index.
        unsafe { mlua::ffi::lua_rawseti_(stack.state(), before + 1, at) };
    }
}
