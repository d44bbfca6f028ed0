//! Writes that nobody waits for, to servers used as one: each goes to the server that has its key
//! when it is written.

use std::ffi::c_int;

use super::group;
use super::stack::Stack;
use crate::conf::{LocConf, Named, Queueing, Servers, UpstreamError, number_of, with_group};
use crate::nginx::{Request, seconds};
use crate::protocol::{Command, Key};
use crate::transport::{self, NotQueued};

/// `group_for(host, port?)`: the name of the block that these mean; nothing if they mean a server;
/// or `nil, err`. False where nobody knows yet: the configuration is being read.
pub fn group_for(stack: Stack) -> c_int {
    let Some(request) = stack.running_request() else {
        stack.push_boolean(false);
        return 1;
    };
    match meant(stack, request) {
        Ok(None) => 0,
        Ok(Some(servers)) => {
            stack.push_bytes(servers.name());
            1
        }
        Err(error) => stack.failure(1, error),
    }
}

fn meant(stack: Stack, request: Request) -> Result<Option<Servers>, UpstreamError> {
    let host = stack.required_text(1, "host");
    let found = match stack.is_none_or_nil(2) {
        true => Servers::named(request, host)?,
        false => u16::try_from(stack.integer(2))
            .ok()
            .and_then(|port| LocConf::of(request).upstream_for(host, port)),
    };
    if let Some(servers) = found {
        // an error if the block cannot be used by key
        number_of(request, servers)?;
    }
    Ok(found)
}

/// Has the queue of the key's server take a write. The name of the block is the first argument.
pub fn enqueue(stack: Stack, limits: Queueing, command: &Command<'_>) -> Result<(), NotQueued> {
    // a refused command must not count as the trial of a server
    command.check().map_err(NotQueued::Refused)?;
    let (Some(key), Some(request)) = (key_of(command), stack.running_request()) else {
        return Err(NotQueued::NoEventLoop);
    };
    let upstream = stack.required_text(1, "upstream");
    let chosen = with_group(request, Named::Name(upstream), |current| {
        let unescaped = current.group().policy().method.hashes_unescaped();
        current.choose(&group::as_hashed(key, unescaped), &[])
    });
    let chosen = match chosen {
        Ok(Some(Ok(chosen))) => chosen,
        Ok(None) => {
            return Err(NotQueued::NoUpstream(
                String::from_utf8_lossy(upstream).into(),
            ));
        }
        Ok(Some(Err(error))) | Err(error) => return Err(NotQueued::Unfit(error.to_string())),
    };
    let choice = chosen.choice.ok_or(NotQueued::NoneLive)?;
    let peer = chosen.group.peers().get(choice.peer);
    let (host, port) = peer.ok_or(NotQueued::NoneLive)?.endpoint();
    let mut command = *command;
    let bounded;
    if let Some(exptime) = exptime_of(&mut command)
        && choice.gutter.is_some()
        && let Some(number) = str::from_utf8(exptime)
            .ok()
            .and_then(|text| text.parse().ok())
    {
        bounded = choice.exptime(number, seconds()).to_string();
        *exptime = bounded.as_bytes();
    }
    transport::enqueue_for(
        upstream,
        (host, port.unwrap_or(0)),
        choice.suspect,
        limits,
        &command,
    )
}

fn key_of<'a>(command: &Command<'a>) -> Option<Key<'a>> {
    match *command {
        Command::Store { key, .. }
        | Command::Delete { key }
        | Command::Arith { key, .. }
        | Command::Touch { key, .. } => Some(key),
        _ => None,
    }
}

fn exptime_of<'a, 'b>(command: &'b mut Command<'a>) -> Option<&'b mut &'a [u8]> {
    match command {
        Command::Store { exptime, .. } => Some(exptime),
        Command::Touch { exptime, .. } => exptime.as_mut(),
        _ => None,
    }
}
