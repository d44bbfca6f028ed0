//! Open pipelines: commands kept between `init_pipeline` and `commit_pipeline`.
//! A pipeline belongs to no connection, so it survives `set_keepalive` and a
//! reconnect.

use std::cell::RefCell;
use std::ffi::c_int;

use mlua::ffi::{LUA_TBOOLEAN, lua_State};
use slotmap::{DefaultKey, Key, KeyData, SlotMap};

use super::handle::{self, Kind};
use super::results::{Shape, new_table, push_reply, set_index};
use super::stack::Stack;
use super::suspend::{cannot_wait, go_on, log_refused};
use crate::ngx_lua::release_anchors;
use crate::protocol::{Answer, Batch, Command, Reply};
use crate::transport::{self, Begun, CallError, Caller, Error, Outcome, Slot, What, not_connected};

/// The commands of an open pipeline, and the shapes of their results.
#[derive(Default)]
struct Pipeline {
    batch: Batch,
    slots: Vec<Queued>,
}

/// A queued command: its place in the results.
enum Queued {
    /// It will be sent; its reply is returned in this shape.
    Command(u8),
    /// It will not be sent; this is its result, in this shape.
    Refused(u8, Answer),
}

struct Pipelines(RefCell<Option<SlotMap<DefaultKey, Pipeline>>>);

// SAFETY: Lua runs in one thread per process.
unsafe impl Sync for Pipelines {}

static PIPELINES: Pipelines = Pipelines(RefCell::new(None));

static KIND: Kind = Kind {
    magic: 0x6d63_5f70_6970_656c,
    collect,
};

/// Runs `f` with all open pipelines; `f` must not call Lua.
fn with<R>(f: impl FnOnce(&mut SlotMap<DefaultKey, Pipeline>) -> R) -> R {
    f(PIPELINES.0.borrow_mut().get_or_insert_default())
}

fn key(id: u64) -> DefaultKey {
    KeyData::from_ffi(id).into()
}

/// The worker process ends.
pub fn discard_all() {
    PIPELINES.0.take();
}

/// The id of the open pipeline that the glue passed at `index`.
pub fn id_at(stack: Stack, index: c_int) -> Option<u64> {
    handle::read(stack, index, &KIND)
}

/// The Lua object of a pipeline is collected.
unsafe extern "C-unwind" fn collect(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls a finalizer with its userdata.
    let stack = unsafe { Stack::new(state) };
    // when the process exits, the last handles are collected after
    // `discard_all`
    if let Some(id) = id_at(stack, 1)
        && let Some(pipelines) = PIPELINES.0.borrow_mut().as_mut()
    {
        pipelines.remove(key(id));
    }
    0
}

/// `new_pipeline()`
pub unsafe extern "C-unwind" fn new(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this.
    let stack = unsafe { Stack::new(state) };
    let key = with(|pipelines| pipelines.insert(Pipeline::default()));
    handle::push(stack, &KIND, key.data().as_ffi());
    1
}

/// `pipeline_length(pipeline)`: number of commands in it
pub unsafe extern "C-unwind" fn length(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this.
    let stack = unsafe { Stack::new(state) };
    let id = id_at(stack, 1);
    let len = id.and_then(|id| with(|all| all.get(key(id)).map(|p| p.slots.len())));
    stack.push_integer(len.unwrap_or(0) as i64);
    1
}

/// Adds a command. A refused one takes a place in the results and does not
/// affect the others.
pub fn queue(stack: Stack, id: u64, shape: u8, command: &Command<'_>) -> c_int {
    let refused = with(|pipelines| {
        let Some(pipeline) = pipelines.get_mut(key(id)) else {
            return Ok(());
        };
        if pipeline.slots.try_reserve(1).is_err() {
            return Err(None);
        }
        pipeline
            .batch
            .push(command)
            .inspect(|()| pipeline.slots.push(Queued::Command(shape)))
            .map_err(|refused| {
                let answer = refused.answer;
                pipeline.slots.push(Queued::Refused(shape, answer));
                Some(refused)
            })
    });
    match refused {
        Ok(()) => {}
        Err(Some(refused)) => log_refused(stack, &refused),
        Err(None) => stack.raise(format_args!("no memory")),
    }
    stack.push_integer(1);
    1
}

/// `commit(sock, pipeline)`
pub unsafe extern "C-unwind" fn commit(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this.
    let stack = unsafe { Stack::new(state) };
    let request = stack.request();
    let Some(session) = handle::session_argument(stack, 1) else {
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
    let next = with(|pipelines| {
        let Some(pipeline) = pipelines.get(key(id)) else {
            return Err(CallError::Failed(Error::Unknown.into()));
        };
        if pipeline.batch.is_empty() {
            // all were refused
            let ready = transport::check_ready(session, request);
            let ready = ready.map(|()| Begun::Ready(Outcome::Replies(Vec::new(), None)));
            return ready.map_err(|error| CallError::Failed(error.into()));
        }
        transport::submit(session, Slot::Reader, caller, What::Batch(&pipeline.batch))
    });
    match next {
        Ok(Begun::Ready(outcome)) => push_outcome(stack, id, outcome),
        next => go_on(stack, Shape::LINE, next),
    }
}

/// `finish_commit(pipeline, sock, id, commit(id, pipeline))`, see
/// [`super::results::finish`]
pub unsafe extern "C-unwind" fn finish_commit(state: *mut lua_State) -> c_int {
    // SAFETY: Lua calls this.
    let stack = unsafe { Stack::new(state) };
    if stack.kind(4) != LUA_TBOOLEAN {
        return stack.top() - 3;
    }
    let outcome = match handle::session_argument(stack, 3) {
        Some(session) => transport::take_outcome(session, Slot::Reader),
        None => Outcome::Failed(Error::Closed),
    };
    // SAFETY: Lua calls this.
    unsafe { release_anchors(state) };
    match id_at(stack, 1) {
        Some(id) => push_outcome(stack, id, outcome),
        None => stack.failure(1, Error::Unknown),
    }
}

/// The results of a pipeline: a table with a table for each command, holding
/// what its method would have returned.
fn push_outcome(stack: Stack, id: u64, outcome: Outcome) -> c_int {
    let (replies, failure) = match outcome {
        Outcome::Replies(replies, failure) => (replies, failure),
        Outcome::Failed(error) => return stack.failure(1, error),
        Outcome::Ended => return stack.suspend_for_good(),
        _ => return stack.failure(1, Error::Unknown),
    };
    let slots = with(|all| all.remove(key(id)).map(|pipeline| pipeline.slots));
    let slots = slots.unwrap_or_default();
    new_table(stack, slots.len(), 0);
    let mut replies = replies.into_iter();
    let mut failure = failure;
    for (at, slot) in (1..).zip(&slots) {
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
