//! The groups of this worker: one for each block that is used.

use std::cell::{Cell, RefCell};

use super::current::Current;
use super::{Servers, UpstreamError};
use crate::group::{Failure, Peer};
use crate::nginx::{Request, Upstream};

/// The groups, each with its number, and the next number. A number is never used again.
struct Known(RefCell<Vec<(u32, Current)>>, Cell<u32>);

// SAFETY: nginx handles events and Lua in one thread per process.
unsafe impl Sync for Known {}

static KNOWN: Known = Known(RefCell::new(Vec::new()), Cell::new(1));

/// Forgets all groups, which belong to a configuration.
pub fn forget() {
    KNOWN.0.take();
}

/// What names a group.
#[derive(Clone, Copy, Debug)]
pub enum Named<'a> {
    /// Its block's name.
    Name(&'a [u8]),
    /// The number that the worker has given to it.
    Number(u32),
}

/// Calls `f` with a group. `None`: there is none of this name, or none of this number any more.
///
/// # Errors
///
/// If the block cannot be used by key.
pub fn with_group<R>(
    request: Request,
    group: Named<'_>,
    f: impl FnOnce(&mut Current) -> R,
) -> Result<Option<R>, UpstreamError> {
    let name = match group {
        Named::Name(name) => name,
        Named::Number(number) => {
            let Ok(mut known) = KNOWN.0.try_borrow_mut() else {
                return Ok(None);
            };
            let group = known.iter_mut().find(|(of, _)| *of == number);
            return Ok(group.map(|(_, group)| f(group)));
        }
    };
    match Servers::named(request, name)? {
        None => Ok(None),
        Some(servers) => with_servers(request, servers, f).map(Some),
    }
}

/// The number of the block with this name, if it is known already.
pub fn known_number(request: Request, name: &[u8]) -> Option<u32> {
    // the blocks of an older configuration go with its last request
    let known = request.is_of_cycle().then(|| KNOWN.0.try_borrow().ok())??;
    let mut known = known.iter();
    let same = |servers: Servers| servers.name().eq_ignore_ascii_case(name);
    known
        .find(|(_, group)| same(group.servers()))
        .map(|(number, _)| *number)
}

/// The number of these servers. `None`: those of an older configuration have none.
///
/// # Errors
///
/// As for [`with_group`].
pub fn number_of(request: Request, servers: Servers) -> Result<Option<u32>, UpstreamError> {
    match request.is_of_cycle() {
        true => number_in_cycle(servers),
        false => Current::new(servers).map(|_| None),
    }
}

fn number_in_cycle(servers: Servers) -> Result<Option<u32>, UpstreamError> {
    let Ok(mut known) = KNOWN.0.try_borrow_mut() else {
        return Current::new(servers).map(|_| None);
    };
    if let Some((number, _)) = known.iter().find(|(_, group)| group.servers() == servers) {
        return Ok(Some(*number));
    }
    let group = Current::new(servers)?;
    let number = KNOWN.1.get();
    KNOWN.1.set(number.wrapping_add(1));
    known.push((number, group));
    Ok(Some(number))
}

/// Calls `f` with the group of these servers.
///
/// # Errors
///
/// As for [`with_group`].
fn with_servers<R>(
    request: Request,
    servers: Servers,
    f: impl FnOnce(&mut Current) -> R,
) -> Result<R, UpstreamError> {
    if let Some(number) = number_of(request, servers)?
        && let Ok(mut known) = KNOWN.0.try_borrow_mut()
        && let Some((_, group)) = known.iter_mut().find(|(of, _)| *of == number)
    {
        return Ok(f(group));
    }
    Ok(f(&mut Current::new(servers)?))
}

/// Counts a failure of a server of the current cycle's block, for what belongs to no request.
/// `None`: it is not there.
pub fn count_failure(upstream: &[u8], server: &[u8]) -> Option<Failure> {
    with_server(upstream, server, |servers, peer| servers.peers().fail(peer))
}

/// As [`count_failure`], for a success. Whether the server was disabled and is used again.
pub fn count_success(upstream: &[u8], server: &[u8]) -> Option<bool> {
    with_server(upstream, server, |servers, peer| {
        servers.peers().succeed(peer)
    })
}

fn with_server<R>(
    upstream: &[u8],
    server: &[u8],
    f: impl FnOnce(Servers, &Peer) -> R,
) -> Option<R> {
    let servers = Servers::of(Upstream::of_cycle(upstream)?).ok()?;
    let number = number_in_cycle(servers).ok()??;
    let known = KNOWN.0.try_borrow().ok()?;
    let (_, group) = known.iter().find(|(of, _)| *of == number)?;
    let peer = group
        .group()
        .peers()
        .iter()
        .find(|peer| *peer.name == *server)?;
    Some(f(servers, peer))
}
