//! Commands without a key, for all servers of a group.

use std::ffi::c_int;

use super::explain;
use super::group::with;
use super::handle;
use super::results::Returns;
use super::stack::Stack;
use super::suspend::{cannot_wait, go_on};
use crate::group::Health;
use crate::nginx::seconds;
use crate::ngx_lua::Value;
use crate::protocol::Command;
use crate::transport::{self, Begun, CallError, Caller, Commands, Error, Rejected, Slot};

/// `group_servers(group)`: for each server that is not marked as down, in the order of the
/// configuration, an array of its name, false, false, whether it has failed before, and whether it
/// is used at the moment; in an array. Or `nil, err`.
pub fn servers(stack: Stack) -> c_int {
    let mut states: Vec<Health> = Vec::new();
    let group = match with(stack, |current| current.look(&mut states)) {
        Ok(Ok(group)) => group,
        Ok(Err(error)) => return stack.failure(1, error),
        Err(error) => return stack.failure(1, error),
    };
    let (now, trials) = (seconds(), group.policy().trials);
    let mut known: Vec<&[u8]> = Vec::new();
    let list = stack.push_table(group.peers().len(), 0);
    let mut count = 0;
    for (peer, health) in group.peers().iter().zip(&states) {
        // a server is there once, however often the list has it
        if health.down || known.contains(&&*peer.name) {
            continue;
        }
        stack.reserve(&mut known, 1);
        known.push(&peer.name);
        count += 1;
        list.put_table(count, 5, |entry| {
            entry.put(1, Value::Bytes(&peer.name));
            entry.put(2, Value::Boolean(false));
            entry.put(3, Value::Boolean(false));
            entry.put(4, Value::Boolean(!group.is_single() && health.fails > 0));
            let used = group.is_single() || health.is_usable(now, trials);
            entry.put(5, Value::Boolean(used));
        });
    }
    1
}

/// The command with this name. The argument is at the index 3.
fn command<'a>(stack: Stack, name: &[u8]) -> Option<Command<'a>> {
    Some(match name {
        b"flush_all" => Command::FlushAll {
            delay: stack.optional_text(3, "time"),
        },
        b"stats" => Command::Stats {
            args: stack.optional_text(3, "args"),
        },
        b"verbosity" => Command::Verbosity {
            level: stack.optional_text(3, "level"),
        },
        b"version" => Command::Version,
        _ => return None,
    })
}

/// `begin_command(id, name, argument?)`: true if the command was sent, and [`wait`] is to be
/// called; or its result
pub fn begin(stack: Stack) -> c_int {
    let Some(command) = command(stack, stack.required_text(2, "command")) else {
        stack.raise(format_args!("bad command"))
    };
    let request = stack.request();
    let Some(key) = handle::id_argument(stack, 1) else {
        return stack.failure(1, Error::Closed);
    };
    if let Err(why) = stack.waiter(request) {
        return cannot_wait(stack, Returns::LINE, key, request, why);
    }
    let next = transport::begin(key, Slot::Reader, request, Commands::One(&command));
    if let Ok(Begun::Waiting) = next {
        stack.push(Value::Boolean(true));
        return 1;
    }
    if let Err(CallError::Failed(Rejected::Refused(refused))) = &next {
        explain::refused(stack, refused);
    }
    go_on(stack, Returns::LINE, next)
}

/// `wait_command(id)`, for `finish_line`
pub fn wait(stack: Stack) -> c_int {
    let request = stack.request();
    let Some(key) = handle::id_argument(stack, 1) else {
        return stack.failure(1, Error::Closed);
    };
    match stack.waiter(request) {
        Ok(waiter) => {
            let waiter = Some(waiter);
            let next = transport::wait(key, Slot::Reader, Caller { request, waiter });
            go_on(stack, Returns::LINE, next)
        }
        Err(why) => stack.cannot_wait(1, why),
    }
}
