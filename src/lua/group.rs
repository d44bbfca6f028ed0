//! Servers used as one: what the glue of groups asks. A group is named by its `upstream` block; its
//! servers are those that nginx has at the moment.

use std::borrow::Cow;
use std::ffi::c_int;

use mlua::ffi::LUA_TNUMBER;
use nginx_sys::{NGX_LOG_INFO, NGX_LOG_WARN};

use super::fields;
use super::handle;
use super::results::Returns;
use super::stack::Stack;
use super::suspend::go_on;
use crate::conf::{Current, Named, with_group};
use crate::group::{self, Choice, Failure, Group, Health, Peer};
use crate::nginx::{seconds, with_peer};
use crate::ngx_lua::Value;
use crate::protocol::{Command, Key, encode};
use crate::transport::{self, Caller, SessionKey, Slot};

/// What Lua is told where no server takes a key.
pub const NONE_LIVE: &str = "no live upstreams";

/// The group whose number or name is the first argument.
pub fn with<R>(stack: Stack, f: impl FnOnce(&mut Current) -> R) -> Result<R, String> {
    match with_group(stack.request(), named(stack), f) {
        Ok(Some(result)) => Ok(result),
        Ok(None) => Err(NONE_LIVE.into()),
        Err(error) => Err(error.to_string()),
    }
}

fn named<'a>(stack: Stack) -> Named<'a> {
    match stack.kind(1) {
        LUA_TNUMBER => Named::Number(stack.number(1) as u32),
        _ => Named::Name(stack.required_text(1, "upstream")),
    }
}

/// `group_name(number)`: the name of its block
pub fn name(stack: Stack) -> c_int {
    match with(stack, |current| current.servers().name().to_vec()) {
        Ok(name) => {
            stack.push_bytes(&name);
            1
        }
        Err(error) => stack.failure(1, error),
    }
}

/// The key at `index`, as it is hashed. Whether to escape it is at the next index. If the key is
/// refused, pushes what the glue returns, `false, answer`, and returns the number of values.
fn hashed<'a>(stack: Stack, index: c_int, group: &Group) -> Result<Cow<'a, [u8]>, c_int> {
    let key = Key {
        bytes: stack.required_text(index, "key"),
        escape: stack.boolean(index + 1),
    };
    if key.is_simple() {
        return Ok(Cow::Borrowed(key.bytes));
    }
    let mut line = Vec::new();
    if let Err(refused) = encode(&Command::Get { key, cas: false }, &mut line) {
        // the command itself says why, when the glue queues it
        stack.push(Value::Boolean(false));
        return Err(stack.failure(0, refused.answer).saturating_add(1));
    }
    if group.policy().method.hashes_unescaped() {
        return Ok(Cow::Borrowed(key.bytes));
    }
    // what is between `get ` and the end of the line
    let sent = line.get(4..line.len().saturating_sub(2));
    Ok(Cow::Owned(sent.unwrap_or_default().to_vec()))
}

/// A key as it is hashed.
pub(super) fn as_hashed(key: Key<'_>, unescaped: bool) -> Cow<'_, [u8]> {
    match unescaped {
        true => Cow::Borrowed(key.bytes),
        false => key.sent(),
    }
}

/// The servers whose names are the arguments from `index` on.
pub fn tried<'a>(stack: Stack, index: c_int) -> Vec<&'a [u8]> {
    let mut tried = Vec::new();
    for at in index..=stack.top() {
        let name = stack.required_text(at, "server");
        stack.reserve(&mut tried, 1);
        tried.push(name);
    }
    tried
}

/// `group_choose(name, key, escape, tried…)`: the name of the server that takes the key, its host,
/// its port or nil, whether it has failed before, and how long a value may live there or nil. `tried`
/// are names of servers. `false, answer` if the key is refused; `nil, err` if there is no server.
pub fn choose(stack: Stack) -> c_int {
    let group = match with(stack, |current| current.group().clone()) {
        Ok(group) => group,
        Err(error) => return stack.failure(1, error),
    };
    let key = match hashed(stack, 2, &group) {
        Ok(key) => key,
        Err(results) => return results,
    };
    let tried = tried(stack, 4);
    let chosen = with(stack, |current| current.choose(&key, &tried));
    let chosen = match chosen {
        Ok(Ok(chosen)) => chosen,
        Ok(Err(error)) => return stack.failure(1, error),
        Err(error) => return stack.failure(1, error),
    };
    let choice = chosen.choice;
    let peer = choice.and_then(|choice| chosen.group.peers().get(choice.peer));
    let (Some(choice), Some(peer)) = (choice, peer) else {
        return stack.failure(1, NONE_LIVE);
    };
    let (host, port) = peer.endpoint();
    stack.push_bytes(&peer.name);
    stack.push_bytes(host);
    push_number(stack, port.map(i64::from));
    stack.push(Value::Boolean(choice.suspect));
    push_number(stack, choice.gutter.map(i64::from));
    5
}

/// `group_pick(group, members, key, escape)`: the server that takes the key, as `member, id` if the
/// table has a member under the server's name whose session is ready, and as `name, nil` if not. If
/// the server has failed before, or what is stored there lives for a limited time, that follows, as
/// with [`choose`]. `nil, nil, error` if there is no server, `false, nil, answer` if the key is
/// refused; nothing if there is no group of this number any more.
pub fn pick(stack: Stack) -> c_int {
    let members = stack.check_table(2);
    let request = stack.request();
    let key = Key {
        bytes: stack.required_text(3, "key"),
        escape: stack.boolean(4),
    };
    let hashed = match key.is_simple() {
        true => Cow::Borrowed(key.bytes),
        false => match with_group(request, named(stack), |current| current.group().clone()) {
            Ok(Some(group)) => match hashed(stack, 3, &group) {
                Ok(key) => key,
                Err(_) => return pick_none(stack),
            },
            Ok(None) => return 0,
            Err(error) => return stack.failure(2, error),
        },
    };
    let chosen = with_group(request, named(stack), |current| {
        current.choose(&hashed, &[])
    });
    let chosen = match chosen {
        Ok(Some(Ok(chosen))) => chosen,
        Ok(None) => return 0,
        Ok(Some(Err(error))) | Err(error) => return stack.failure(2, error),
    };
    let peer = chosen
        .choice
        .and_then(|choice| chosen.group.peers().get(choice.peer));
    let (Some(choice), Some(peer)) = (chosen.choice, peer) else {
        return stack.failure(2, NONE_LIVE);
    };
    stack.push_bytes(&peer.name);
    let name = Value::At(stack.top());
    let member = members.push(name);
    let session = stack.table(member).map(|member| member.number(fields::ID));
    match session {
        Some((LUA_TNUMBER, id)) if transport::is_ready(SessionKey::from_number(id)) => {
            stack.push_number(id);
            if choice.suspect {
                note_trial(stack, &peer.name, SessionKey::from_number(id));
            }
        }
        _ => {
            stack.push(name);
            stack.push_nil();
        }
    }
    if !choice.suspect && choice.gutter.is_none() {
        return 2;
    }
    stack.push(Value::Boolean(choice.suspect));
    push_number(stack, choice.gutter.map(i64::from));
    4
}

/// Returns `false, nil, answer`. The answer is on top of the stack.
#[cold]
fn pick_none(stack: Stack) -> c_int {
    let answer = Value::At(stack.top());
    stack.push(Value::Boolean(false));
    stack.push_nil();
    stack.push(answer);
    3
}

/// `group_endpoint(server)`: host, and port or nil
pub fn endpoint(stack: Stack) -> c_int {
    let (host, port) = group::endpoint(stack.required_text(1, "server"));
    stack.push_bytes(host);
    push_number(stack, port.map(i64::from));
    2
}

fn push_number(stack: Stack, number: Option<i64>) {
    match number {
        Some(number) => stack.push_integer(number),
        None => stack.push_nil(),
    }
}

/// `group_server_of(name, key, escape)`: the name of the server that would take the key now, or
/// `false, answer`, or `nil, err`. Nothing is written down.
pub fn server_of(stack: Stack) -> c_int {
    let mut states: Vec<Health> = Vec::new();
    let looked = with(stack, |current| current.look(&mut states));
    let group = match looked {
        Ok(Ok(group)) => group,
        Ok(Err(error)) => return stack.failure(1, error),
        Err(error) => return stack.failure(1, error),
    };
    let key = match hashed(stack, 2, &group) {
        Ok(key) => key,
        Err(results) => return results,
    };
    let choice = group.choose(&key, seconds(), &[], &states[..]);
    match choice.and_then(|choice| group.peers().get(choice.peer)) {
        Some(peer) => {
            stack.push_bytes(&peer.name);
            1
        }
        None => stack.failure(1, NONE_LIVE),
    }
}

/// Calls `f` with a server of a group: `(name, server)`. `None`: it is not in the list any more.
fn with_server<R>(stack: Stack, f: impl FnOnce(&mut Current, &Peer) -> R) -> Option<R> {
    let server = stack.required_text(2, "server");
    let found = with(stack, |current| {
        let group = current.group().clone();
        let peer = group.peers().iter().find(|peer| *peer.name == *server)?;
        Some(f(current, peer))
    });
    found.ok().flatten()
}

/// `group_trial(name, server, id)`: the session of this id is about to use a server that has failed
/// before.
pub fn trial(stack: Stack) -> c_int {
    if let Some(key) = handle::id_argument(stack, 3) {
        note_trial(stack, stack.required_text(2, "server"), key);
    }
    0
}

/// Notes the trial of a disabled server. If the trial ends without a result, another one may be
/// made.
#[cold]
fn note_trial(stack: Stack, server: &[u8], key: SessionKey) {
    let trial = with(stack, |current| {
        let began = current.trial(server)?;
        Some((current.servers(), began))
    });
    if let Ok(Some((servers, began))) = trial {
        transport::note_trial(key, servers.name(), server, began);
    }
}

/// What came of a server's trial is known.
fn settle(stack: Stack) {
    if let Ok(servers) = with(stack, |current| current.servers()) {
        transport::settle_trials(servers.name(), stack.required_text(2, "server"));
    }
}

/// `group_untried(name, server)`: the trial of a server has come to nothing, for no reason of its
/// own.
pub fn untried(stack: Stack) -> c_int {
    with_server(stack, |current, peer| {
        if let Some(trial) = current.trial(&peer.name) {
            current.give_back(peer, trial);
        }
    });
    settle(stack);
    0
}

/// `group_failed(name, server)`: counts a failure.
pub fn failed(stack: Stack) -> c_int {
    settle(stack);
    let failure = with_server(stack, |current, peer| current.fail(peer));
    if failure == Some(Failure::Disabled) {
        tell(stack, NGX_LOG_WARN, |server| {
            format!("upstream server temporarily disabled: {server}")
        });
    }
    0
}

/// `group_succeeded(name, server)`: a server that has failed before answers.
pub fn succeeded(stack: Stack) -> c_int {
    settle(stack);
    let again = with_server(stack, |current, peer| current.succeed(peer));
    if again == Some(true) {
        tell(stack, NGX_LOG_INFO, |server| {
            format!("upstream server {server} is used again")
        });
    }
    0
}

/// `line`: what is said of a server, which is `"server" of "upstream"`.
fn tell(stack: Stack, level: u32, line: impl FnOnce(&str) -> String) {
    let name = with(stack, |current| {
        String::from_utf8_lossy(current.servers().name()).into_owned()
    });
    let name = name.unwrap_or_default();
    let server = String::from_utf8_lossy(stack.required_text(2, "server"));
    let line = line(&format!("\"{server}\" of \"{name}\""));
    with_peer(stack.request().log(), &server, |log| {
        log.write(level, 0, format_args!("{line}"));
    });
}

/// `group_exptime(exptime, limit)`: the exptime of what lives at most so many seconds. What is no
/// number stays, for the command to refuse.
pub fn exptime(stack: Stack) -> c_int {
    let text = stack.text(1).unwrap_or(b"0");
    let number = str::from_utf8(text).ok().and_then(|text| text.parse().ok());
    let choice = Choice {
        peer: 0,
        gutter: u32::try_from(stack.integer(2)).ok(),
        suspect: false,
    };
    match number {
        Some(number) => stack.push_integer(choice.exptime(number, seconds())),
        None => stack.push_bytes(text),
    }
    1
}

/// `drop_session(id)`: closes what a session has, whoever waits for it.
pub fn drop_session(stack: Stack) -> c_int {
    if let Some(key) = handle::id_argument(stack, 1) {
        transport::drop_session(key);
    }
    0
}

/// `is_lost(id)`: whether the session of this id has no connection, nor is about to have one.
pub fn is_lost(stack: Stack) -> c_int {
    let lost = handle::id_argument(stack, 1).is_none_or(transport::is_lost);
    stack.push(Value::Boolean(lost));
    1
}

/// `wait_connect(id)`, for `finish_connect`: what `begin_connect` has begun.
pub fn wait_connect(stack: Stack) -> c_int {
    let request = stack.request();
    let Some(key) = handle::id_argument(stack, 1) else {
        return stack.failure(1, transport::Error::Closed);
    };
    match stack.waiter(request) {
        Ok(waiter) => {
            let waiter = Some(waiter);
            let next = transport::wait(key, Slot::Reader, Caller { request, waiter });
            go_on(stack, Returns::CONNECT, next)
        }
        Err(why) => stack.cannot_wait(1, why),
    }
}
