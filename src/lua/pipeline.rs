//! Open pipelines: commands kept between `init_pipeline` and `commit_pipeline`. A pipeline belongs
//! to no connection, so it survives `set_keepalive` and a reconnect.

use std::ffi::c_int;

use mlua::ffi::LUA_TBOOLEAN;

use super::explain;
use super::handle::{self, HandleKind};
use super::results::{AGAIN, Returns, is_told, push_reply};
use super::stack::{Stack, native};
use super::suspend::{ask, cannot_wait, go_on, question};
use crate::ngx_lua::Table;
use crate::protocol::{Answer, Command, Refused, Reply};
use crate::transport::{
    self, Begun, CallError, Caller, Error, Outcome, PipelineKey, Queued, Rejected, SessionKey,
    Slot, not_connected,
};

static KIND: HandleKind = HandleKind {
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
        transport::take_pipeline(key);
    }
    0
}

/// `new_pipeline()`
pub fn new(stack: Stack) -> c_int {
    push(stack, transport::new_pipeline());
    1
}

/// Pushes the Lua object of a pipeline.
pub fn push(stack: Stack, key: PipelineKey) {
    handle::push(stack, &KIND, key.to_bits());
}

/// `pipeline_length(pipeline)`: number of commands in it
pub fn length(stack: Stack) -> c_int {
    let len = id_at(stack, 1).map_or(0, transport::pipeline_len);
    stack.push_integer(len as i64);
    1
}

/// Adds a command. A refused one takes a place in the results and does not affect the others.
pub fn queue(stack: Stack, key: PipelineKey, returns: u8, command: &Command<'_>) -> c_int {
    match transport::add_command(key, returns, command) {
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
        Err(why) => return cannot_wait(stack, Returns::LINE, session, request, why),
    };
    let Some(id) = id_at(stack, 2) else {
        stack.raise(format_args!("bad pipeline"))
    };
    match transport::commit(session, caller, id) {
        Ok(Begun::Ready(outcome)) => push_outcome(stack, id, outcome),
        Err(CallError::Failed(Rejected::Refused(refused))) => refuse(stack, session, id, &refused),
        next => go_on(stack, Returns::LINE, next),
    }
}

/// Nothing of a pipeline was sent, because of what its server cannot do, or may not be able to do.
/// The server is asked, or some commands are refused. Then the pipeline is to be committed again.
#[cold]
fn refuse(stack: Stack, session: SessionKey, id: PipelineKey, refused: &Refused) -> c_int {
    if let Some(question) = question(refused) {
        return ask(stack, Returns::LINE, session, &question);
    }
    explain::refused(stack, refused);
    if let Answer::NotSupported(by) = refused.answer {
        transport::restrict_pipeline(id, by);
        stack.push_integer(AGAIN);
        return 1;
    }
    stack.failure(1, refused)
}

/// `finish_commit(pipeline, sock, id, commit(id, pipeline))`, see [`super::results::finish`]
pub fn finish_commit(stack: Stack) -> c_int {
    if stack.kind(4) != LUA_TBOOLEAN {
        return stack.top() - 3;
    }
    let outcome = match handle::session_argument(stack, 3) {
        Some(session) => transport::take_outcome(session, Slot::Reader),
        None => Outcome::Failed(Error::Closed),
    };
    stack.release_anchors();
    if is_told(&outcome) {
        stack.push_integer(AGAIN);
        return 1;
    }
    match id_at(stack, 1) {
        Some(id) => push_outcome(stack, id, outcome),
        None => stack.failure(1, Error::Unknown),
    }
}

/// The results of a pipeline: a table with a table for each command, holding what its method would
/// have returned.
fn push_outcome(stack: Stack, key: PipelineKey, outcome: Outcome) -> c_int {
    let (replies, failure) = match outcome {
        Outcome::Replies(replies, failure) => (replies, failure),
        Outcome::Failed(error) => return stack.failure(1, error),
        // the reply to a question what the server can do
        Outcome::Reply(Reply::Line(line)) => {
            return stack.failure(1, String::from_utf8_lossy(&line));
        }
        Outcome::Reply(Reply::Malformed(malformed)) => return stack.failure(1, malformed),
        Outcome::Ended => return stack.suspend_for_good(),
        _ => return stack.failure(1, Error::Unknown),
    };
    let pipeline = transport::take_pipeline(key);
    let results = stack.push_table(pipeline.commands.len(), 0);
    put_results(stack, results, 1.., &pipeline.commands, replies, failure);
    stack.push_nil();
    2
}

/// Puts the results of commands into a table, at these places. Of a pipeline that has failed, the
/// first command without a reply has the error.
pub fn put_results(
    stack: Stack,
    results: Table,
    places: impl IntoIterator<Item = c_int>,
    commands: &[Queued],
    replies: Vec<Reply>,
    mut failure: Option<Error>,
) {
    let mut replies = replies.into_iter();
    for (at, slot) in places.into_iter().zip(commands) {
        match slot {
            Queued::Refused(returns, refused) => put_failure(stack, results, at, *returns, refused),
            Queued::Command { form: returns, .. } => match replies.next() {
                Some(reply) => {
                    put_reply(stack, results, at, *returns, &reply);
                    transport::recycle(reply);
                }
                None => {
                    // the commands after the failed one find the connection closed
                    let error = failure.take().unwrap_or_else(|| {
                        not_connected(stack.request(), "receive", Error::Closed)
                    });
                    put_failure(stack, results, at, *returns, &error);
                }
            },
        }
    }
}

fn put_reply(stack: Stack, results: Table, at: c_int, returns: u8, reply: &Reply) {
    match reply {
        Reply::Miss => results.put_table(at, 0, |_| {}),
        _ => results.put_packed(at, || push_reply(stack, returns, reply, None), room),
    }
}

/// Puts the error of a command into a table.
pub fn put_failure(
    stack: Stack,
    results: Table,
    at: c_int,
    returns: u8,
    error: &dyn std::fmt::Display,
) {
    results.put_packed(at, || stack.failure(Returns::nils(returns), error), room);
}

/// What LuaJIT makes for the expression `{ f() }`, if `f` returns so many values: so `#` finds the
/// same border in `{ nil, err }` or `{ nil, nil, err }` as it does there.
fn room(count: c_int) -> usize {
    match count.unsigned_abs() as usize {
        0..=2 => 2,
        count => count + 1,
    }
}
