//! Pipelines of servers used as one: split among them when they are committed. Each server's part
//! is a pipeline, too; what comes of it goes to its commands' places in the results of the whole.

use std::borrow::Cow;
use std::ffi::c_int;

use mlua::ffi::{LUA_TBOOLEAN, LUA_TNIL};

use super::explain;
use super::group::{NONE_LIVE, tried, with};
use super::handle;
use super::pipeline::{id_at, push, put_failure, put_results};
use super::results::{AGAIN, Returns, is_told};
use super::stack::Stack;
use super::suspend::{cannot_wait, go_on, question};
use crate::group::{Choice, Scatter};
use crate::nginx::seconds;
use crate::ngx_lua::{Table, Value};
use crate::protocol::{Answer, Bound, Command, Refused, Reply, is_plain, unescape_into};
use crate::transport::{
    self, Begun, CallError, Caller, CommandPipeline, Commands, Error, Outcome, PipelineKey, Queued,
    Rejected, SessionKey, Slot,
};

/// The result of a command without a key, if a group has several servers.
const NO_KEY: &str = "not for upstreams: a command without a key in a pipeline";

/// The pipeline at `index`.
fn required(stack: Stack, index: c_int) -> PipelineKey {
    match id_at(stack, index) {
        Some(key) => key,
        None => stack.raise(format_args!("bad pipeline")),
    }
}

fn place(index: usize) -> c_int {
    c_int::try_from(index).map_or(c_int::MAX, |index| index.saturating_add(1))
}

/// `group_results(pipeline)`: a table for the results, which has those of refused commands
pub fn results(stack: Stack) -> c_int {
    transport::look_at_pipeline(required(stack, 1), |pipeline| {
        let results = stack.push_table(pipeline.commands.len(), 0);
        for (at, queued) in (1..).zip(&pipeline.commands) {
            if let Queued::Refused(form, refused) = queued {
                put_failure(stack, results, at, *form, refused);
            }
        }
    });
    1
}

/// `group_split_pipeline(name, pipeline, results, tried…)`: for each server that has some of the
/// commands an array of its name, its host, its port or false, whether it has failed before, and a
/// pipeline; in an array, followed by how many commands no server takes. `nil, err` if the group
/// cannot be used. The results of commands that are not sent are put into `results`, unless there
/// are some. `tried` are names of servers.
pub fn split(stack: Stack) -> c_int {
    let tried = tried(stack, 4);
    let results = stack.check_table(3);
    let split = transport::look_at_pipeline(required(stack, 2), |pipeline| {
        split_among(stack, results, pipeline, &tried)
    });
    match split {
        Ok(homeless) => {
            stack.push_integer(homeless);
            2
        }
        Err(error) => stack.failure(1, error),
    }
}

/// Pushes the parts of a pipeline. Returns how many commands no server takes.
fn split_among(
    stack: Stack,
    results: Table,
    pipeline: &CommandPipeline,
    tried: &[&[u8]],
) -> Result<i64, String> {
    let no_memory = || Error::NoMemory.to_string();
    let to_send = pipeline.to_send().ok_or_else(no_memory)?;
    let (group, choices) = with(stack, |current| {
        let unescaped = current.group().policy().method.hashes_unescaped();
        let keys = hashed(pipeline, &to_send, unescaped).ok_or_else(no_memory)?;
        let mut choices = Vec::new();
        let all = keys.iter().map(|key| &**key);
        match current.choose_all(all, tried, &mut choices) {
            Ok(group) => Ok((group, choices)),
            Err(error) => Err(error.to_string()),
        }
    })??;
    // without a key there is a choice of one server only
    let single = group.is_single();
    let servers = choices.iter().zip(pipeline.batch.keys());
    let servers = servers.map(|(choice, key)| match key.is_some() || single {
        true => choice.map(|choice| choice.peer),
        false => None,
    });
    let scatter = Scatter::new(group.peers().len(), servers).map_err(|_| no_memory())?;
    let mut homeless = 0;
    let all = pipeline.batch.keys().zip(choices.iter().zip(&to_send));
    for (key, (choice, at)) in all {
        let why = match (key, choice) {
            (None, _) if !single => NO_KEY,
            (_, None) => {
                homeless += 1;
                NONE_LIVE
            }
            _ => continue,
        };
        put_new(stack, results, pipeline, *at, &why);
    }
    let parts = stack.push_table(scatter.parts.len(), 0);
    for (at, part) in (1..).zip(&scatter.parts) {
        let Some(peer) = group.peers().get(part.peer) else {
            continue;
        };
        let chosen = choices.iter().flatten();
        let chosen = chosen.filter(|choice| choice.peer == part.peer);
        let suspect = chosen.clone().any(|choice| choice.suspect);
        let choice = chosen.copied().find(|choice| choice.gutter.is_some());
        let now = seconds();
        let bound = choice.map(|choice: Choice| move |exptime| choice.exptime(exptime, now));
        let bound = bound.as_ref().map(|bound| bound as Bound<'_>);
        let own = pipeline.part(&to_send, &part.places, bound);
        let key = own.and_then(transport::put_pipeline);
        let key = key.ok_or_else(no_memory)?;
        let (host, port) = peer.endpoint();
        let port = port.map_or(Value::Boolean(false), |port| Value::Integer(port.into()));
        parts.put_table(at, 5, |entry| {
            entry.put(1, Value::Bytes(&peer.name));
            entry.put(2, Value::Bytes(host));
            entry.put(3, port);
            entry.put(4, Value::Boolean(suspect));
            stack.scope(|| {
                push(stack, key);
                entry.put(5, Value::At(stack.top()));
            });
        });
    }
    Ok(homeless)
}

/// The keys of the commands that are to be sent, as they are hashed; empty where there is none.
fn hashed<'a>(
    pipeline: &'a CommandPipeline,
    to_send: &[usize],
    unescaped: bool,
) -> Option<Vec<Cow<'a, [u8]>>> {
    let mut keys = Vec::new();
    keys.try_reserve_exact(to_send.len()).ok()?;
    for (key, place) in pipeline.batch.keys().zip(to_send) {
        let key = key.unwrap_or_default();
        let was_escaped = matches!(
            pipeline.commands.get(*place),
            Some(Queued::Command { escaped: true, .. })
        );
        keys.push(match unescaped && was_escaped && !is_plain(key) {
            true => {
                let mut given = Vec::new();
                given.try_reserve_exact(key.len()).ok()?;
                unescape_into(key, &mut given);
                Cow::Owned(given)
            }
            false => Cow::Borrowed(key),
        });
    }
    Some(keys)
}

/// Puts the error of a command into a table, unless there is one already.
fn put_new(
    stack: Stack,
    results: Table,
    pipeline: &CommandPipeline,
    at: usize,
    why: &dyn std::fmt::Display,
) {
    let known = stack.scope(|| stack.kind(results.push_element(place(at))) != LUA_TNIL);
    if let Some(Queued::Command { form, .. }) = pipeline.commands.get(at)
        && !known
    {
        put_failure(stack, results, place(at), *form, why);
    }
}

/// `group_fail_part(results, part, err)`: the error is the result of all its commands.
pub fn fail(stack: Stack) -> c_int {
    let results = stack.check_table(1);
    let part = transport::take_pipeline(required(stack, 2));
    let error = String::from_utf8_lossy(stack.required_text(3, "err"));
    for (queued, at) in part.commands.iter().zip(&part.places) {
        match queued {
            Queued::Command { form, .. } => {
                put_failure(stack, results, place(*at), *form, &error);
            }
            Queued::Refused(form, refused) => {
                put_failure(stack, results, place(*at), *form, refused);
            }
        }
    }
    0
}

/// `end_pipeline(pipeline)`
pub fn end(stack: Stack) -> c_int {
    drop(transport::take_pipeline(required(stack, 1)));
    0
}

/// `begin_part(results, part, id)`: true if the part was sent, and [`wait`] is to be called;
/// [`AGAIN`] if the part is to be begun again; otherwise its outcome: `1, err` if there are
/// results, or `nil, err`
pub fn begin(stack: Stack) -> c_int {
    let results = stack.check_table(1);
    let part = required(stack, 2);
    let request = stack.request();
    let Some(key) = handle::id_argument(stack, 3) else {
        return stack.failure(1, Error::Closed);
    };
    if let Err(why) = stack.waiter(request) {
        return cannot_wait(stack, Returns::LINE, key, request, why);
    }
    match transport::begin_commit(key, request, part) {
        Err(CallError::Failed(Rejected::Refused(refused))) => {
            refuse(stack, results, part, key, &refused)
        }
        next => go_on_with(stack, results, part, next),
    }
}

/// Nothing of a part was sent, because of what its server cannot do, or may not be able to do. The
/// server is asked, or some commands are refused. Then the part is to be begun again.
#[cold]
fn refuse(
    stack: Stack,
    results: Table,
    part: PipelineKey,
    session: SessionKey,
    refused: &Refused,
) -> c_int {
    if let Some(question) = question(refused) {
        let asked = ask(stack, session, &question);
        return go_on_with(stack, results, part, asked);
    }
    explain::refused(stack, refused);
    transport::give_trial_back(session);
    if let Answer::NotSupported(by) = refused.answer {
        transport::restrict_pipeline(part, by);
        stack.push_integer(AGAIN);
        return 1;
    }
    stack.failure(1, refused)
}

fn ask(
    stack: Stack,
    session: SessionKey,
    question: &Command<'_>,
) -> Result<Begun, CallError<Rejected>> {
    let commands = Commands::One(question);
    transport::begin(session, Slot::Reader, stack.request(), commands)
}

fn go_on_with<E: super::suspend::Raised>(
    stack: Stack,
    results: Table,
    part: PipelineKey,
    next: Result<Begun, CallError<E>>,
) -> c_int {
    match next {
        Ok(Begun::Waiting) => {
            stack.push(Value::Boolean(true));
            1
        }
        Ok(Begun::Ready(outcome)) => push_part(stack, results, part, outcome),
        error => go_on(stack, Returns::LINE, error),
    }
}

/// `wait_part(results, part, id)`, for [`finish`]
pub fn wait(stack: Stack) -> c_int {
    let results = stack.check_table(1);
    let part = required(stack, 2);
    let request = stack.request();
    let Some(key) = handle::id_argument(stack, 3) else {
        return stack.failure(1, Error::Closed);
    };
    let waiter = match stack.waiter(request) {
        Ok(waiter) => Some(waiter),
        Err(why) => return stack.cannot_wait(1, why),
    };
    match transport::wait(key, Slot::Reader, Caller { request, waiter }) {
        Ok(Begun::Ready(outcome)) => push_part(stack, results, part, outcome),
        next => go_on(stack, Returns::LINE, next),
    }
}

/// `finish_part(results, part, sock, id, wait_part(results, part, id))`: as [`begin`], but not true
pub fn finish(stack: Stack) -> c_int {
    if stack.kind(5) != LUA_TBOOLEAN {
        return stack.top() - 4;
    }
    let results = stack.check_table(1);
    let part = required(stack, 2);
    let outcome = match handle::id_argument(stack, 4) {
        Some(session) => transport::take_outcome(session, Slot::Reader),
        None => Outcome::Failed(Error::Closed),
    };
    stack.release_anchors();
    push_part(stack, results, part, outcome)
}

/// What came of a part, or of a question to its server.
fn push_part(stack: Stack, results: Table, key: PipelineKey, outcome: Outcome) -> c_int {
    if is_told(&outcome) {
        stack.push_integer(AGAIN);
        return 1;
    }
    let (replies, failure) = match outcome {
        Outcome::Replies(replies, failure) => (replies, failure),
        Outcome::Failed(error) => return stack.failure(1, error),
        Outcome::Reply(Reply::Line(line)) => {
            return stack.failure(1, String::from_utf8_lossy(&line));
        }
        Outcome::Reply(Reply::Malformed(malformed)) => return stack.failure(1, malformed),
        Outcome::Ended => return stack.suspend_for_good(),
        _ => return stack.failure(1, Error::Unknown),
    };
    let part = transport::take_pipeline(key);
    let why = failure.as_ref().map(Error::to_string);
    let all = part.commands.len();
    // if it is no part, the results are its own
    let places = (0..all).map(|at| place(part.places.get(at).copied().unwrap_or(at)));
    put_results(stack, results, places, &part.commands, replies, failure);
    stack.push_integer(1);
    match why {
        Some(why) => stack.push_bytes(why.as_bytes()),
        None => stack.push_nil(),
    }
    2
}
