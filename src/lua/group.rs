//! Servers used as one: what the glue of groups asks. A group is named by its
//! `upstream` block; its servers are those that nginx has at the moment.

use std::ffi::c_int;

use nginx_sys::{NGX_LOG_INFO, NGX_LOG_WARN};

use super::explain;
use super::handle;
use super::stack::Stack;
use crate::conf::{Current, LocConf, Servers, UpstreamError, with_group, with_servers};
use crate::group::{Choice, Failure, Group, Health, Peer};
use crate::nginx::{Request, seconds, with_peer};
use crate::protocol::{Command, Key, encode};
use crate::transport;

/// What Lua is told where no server takes a key.
const NONE_LIVE: &str = "no live upstreams";

/// The block that the arguments of `connect` mean.
fn meant(stack: Stack, request: Request) -> Result<Option<Servers>, UpstreamError> {
    let Some(host) = stack.text(1) else {
        return Ok(None);
    };
    let number = stack.integer(2);
    if number != 0 || stack.is_number(2) {
        let port = u16::try_from(number).ok();
        return Ok(port.and_then(|port| LocConf::of(request).upstream_for(host, port)));
    }
    Servers::named(request, host)
}

/// `group_for(host, port?)`: the name of the block that `connect` means; nothing
/// if it means a server; or `nil, err`
pub fn name_for(stack: Stack) -> c_int {
    let request = stack.request();
    let found = meant(stack, request).and_then(|servers| match servers {
        Some(servers) => with_servers(request, servers, |_| Some(servers)),
        None => Ok(None),
    });
    match found {
        Ok(None) => 0,
        Ok(Some(servers)) => {
            stack.push_bytes(servers.name());
            1
        }
        Err(error) => stack.failure(1, error),
    }
}

/// The group whose name is the first argument.
fn with<R>(stack: Stack, f: impl FnOnce(&mut Current) -> R) -> Result<R, String> {
    let name = stack.required_text(1, "upstream");
    match with_group(stack.request(), name, f) {
        Ok(Some(result)) => Ok(result),
        Ok(None) => Err(NONE_LIVE.into()),
        Err(error) => Err(error.to_string()),
    }
}

/// The key at the indexes 2 and 3 as it is hashed. Else what the glue returns:
/// `false, answer`.
fn hashed(stack: Stack, group: &Group) -> Result<Vec<u8>, c_int> {
    let key = Key {
        bytes: stack.required_text(2, "key"),
        escape: stack.boolean(3),
    };
    let mut line = Vec::new();
    if let Err(refused) = encode(&Command::Get { key, cas: false }, &mut line) {
        explain::refused(stack, &refused);
        stack.push(crate::ngx_lua::Value::Boolean(false));
        return Err(stack.failure(0, refused.answer).saturating_add(1));
    }
    if group.policy().method.hashes_unescaped() {
        line.clear();
        line.extend_from_slice(key.bytes);
        return Ok(line);
    }
    // what is between `get ` and the end of the line
    let sent = line.get(4..line.len().saturating_sub(2));
    Ok(sent.unwrap_or_default().to_vec())
}

/// `group_choose(name, key, escape, tried…)`: the name of the server that takes
/// the key, its host, its port or nil, whether it has failed before, and how long
/// a value may live there or nil. `false, answer` if the key is refused; `nil,
/// err` if there is no server. `tried` are names of servers.
pub fn choose(stack: Stack) -> c_int {
    let group = match with(stack, |current| current.group().clone()) {
        Ok(group) => group,
        Err(error) => return stack.failure(1, error),
    };
    let key = match hashed(stack, &group) {
        Ok(key) => key,
        Err(results) => return results,
    };
    let mut tried = Vec::new();
    for at in 4..=stack.top() {
        let name = stack.required_text(at, "server");
        let same = |(_, peer): &(usize, &Peer)| *peer.name == *name;
        tried.extend((0..).zip(group.peers()).filter(same).map(|(at, _)| at));
    }
    let chosen = with(stack, |current| current.choose(&key, &tried, Some(&group)));
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
    stack.push(crate::ngx_lua::Value::Boolean(choice.suspect));
    push_number(stack, choice.gutter.map(i64::from));
    5
}

fn push_number(stack: Stack, number: Option<i64>) {
    match number {
        Some(number) => stack.push_integer(number),
        None => stack.push_nil(),
    }
}

/// `group_server_of(name, key, escape)`: the name of the server that would take
/// the key now, or `false, answer`, or `nil, err`. Nothing is written down.
pub fn server_of(stack: Stack) -> c_int {
    let mut states: Vec<Health> = Vec::new();
    let looked = with(stack, |current| current.look(&mut states));
    let group = match looked {
        Ok(Ok(group)) => group,
        Ok(Err(error)) => return stack.failure(1, error),
        Err(error) => return stack.failure(1, error),
    };
    let key = match hashed(stack, &group) {
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

/// Calls `f` with a server of a group: `(name, server)`. `None`: it is not in the
/// list any more.
fn with_server<R>(stack: Stack, f: impl FnOnce(&mut Current, &Peer) -> R) -> Option<R> {
    let server = stack.required_text(2, "server");
    let found = with(stack, |current| {
        let group = current.group().clone();
        let peer = group.peers().iter().find(|peer| *peer.name == *server)?;
        Some(f(current, peer))
    });
    found.ok().flatten()
}

/// `group_failed(name, server)`: counts a failure.
pub fn failed(stack: Stack) -> c_int {
    let failure = with_server(stack, |current, peer| current.servers().peers().fail(peer));
    if failure == Some(Failure::Disabled) {
        tell(stack, NGX_LOG_WARN, "temporarily disabled");
    }
    0
}

/// `group_succeeded(name, server)`: a server that has failed before answers.
pub fn succeeded(stack: Stack) -> c_int {
    let again = with_server(stack, |current, peer| {
        current.servers().peers().succeed(peer)
    });
    if again == Some(true) {
        tell(stack, NGX_LOG_INFO, "is used again");
    }
    0
}

fn tell(stack: Stack, level: u32, what: &str) {
    let name = String::from_utf8_lossy(stack.required_text(1, "upstream"));
    let server = String::from_utf8_lossy(stack.required_text(2, "server"));
    with_peer(stack.request().log(), &server, |log| {
        log.write(
            level,
            0,
            format_args!("upstream server {what}: \"{server}\" of \"{name}\""),
        );
    });
}

/// `group_exptime(exptime, limit)`: the exptime of what lives at most so many
/// seconds. What is no number stays, for the command to refuse.
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

/// `is_lost(id)`: whether the session of this id has no connection, nor is about
/// to have one.
pub fn is_lost(stack: Stack) -> c_int {
    let lost = handle::id_argument(stack, 1).is_none_or(transport::is_lost);
    stack.push(crate::ngx_lua::Value::Boolean(lost));
    1
}
