//! The groups of this worker: one for each block that is used.

use std::cell::RefCell;
use std::sync::OnceLock;

use nginx_sys::ngx_event_t;

use super::current::{Current, Names};
use super::servers::{Servers, UpstreamError};
use super::told;
use crate::contain::contain;
use crate::group::{Failure, Peer};
use crate::nginx::{Log, Posted, Request, Upstream};

/// What a worker knows of groups.
struct Groups {
    /// Each with its number.
    list: Vec<(u32, Current)>,
    /// The number that was given last.
    last: u32,
    /// Names of servers that are in no list any more, to be told.
    gone: Names,
    event: Option<Posted>,
}

struct Known(RefCell<Groups>);

// SAFETY: nginx handles events and Lua in one thread per process.
unsafe impl Sync for Known {}

static KNOWN: Known = Known(RefCell::new(Groups {
    list: Vec::new(),
    last: 0,
    gone: Vec::new(),
    event: None,
}));

/// Who is told of servers that are in no list any more.
static ON_GONE: OnceLock<fn(Names)> = OnceLock::new();

/// Has `f` be called with the names of servers that are in no list any more, in an event of its
/// own. Only the first time counts.
pub fn when_servers_go(f: fn(Names)) {
    ON_GONE.get_or_init(|| f);
}

/// Forgets all groups, which belong to a configuration.
pub fn forget() {
    let mut groups = KNOWN.0.borrow_mut();
    groups.list = Vec::new();
    groups.gone = Vec::new();
    groups.event = None;
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
        Named::Number(number) => return Ok(with_number(number, f).ok()),
    };
    let Some(servers) = Servers::named(request, name)? else {
        return Ok(None);
    };
    match request.is_of_cycle() {
        true => with_current(servers, f),
        // the blocks of an older configuration go with its last request
        false => Ok(f(&mut Current::new(servers)?)),
    }
    .map(Some)
}

/// The number of the block with this name, if it is known already.
pub fn known_number(request: Request, name: &[u8]) -> Option<u32> {
    // the blocks of an older configuration go with its last request
    let groups = request.is_of_cycle().then(|| KNOWN.0.try_borrow().ok())??;
    let same = |servers: Servers| servers.name().eq_ignore_ascii_case(name);
    let found = groups.list.iter().find(|(_, group)| same(group.servers()));
    found.map(|(number, _)| *number)
}

/// The number of these servers. `None`: those of an older configuration have none.
///
/// # Errors
///
/// As for [`with_group`].
pub fn number_of(request: Request, servers: Servers) -> Result<Option<u32>, UpstreamError> {
    match request.is_of_cycle() {
        true => current_number(servers),
        false => Current::new(servers).map(|_| None),
    }
}

fn current_number(servers: Servers) -> Result<Option<u32>, UpstreamError> {
    let Ok(mut groups) = KNOWN.0.try_borrow_mut() else {
        return Ok(None);
    };
    let known = |(_, group): &&(u32, Current)| group.servers() == servers;
    if let Some((number, _)) = groups.list.iter().find(known) {
        return Ok(Some(*number));
    }
    let group = Current::new(servers)?;
    told::tell(servers, group.group(), Log::of_cycle());
    // a number is never used again
    groups.last = groups.last.wrapping_add(1);
    let number = groups.last;
    groups.list.push((number, group));
    Ok(Some(number))
}

/// Calls `f` with the group of servers of the current configuration.
///
/// # Errors
///
/// As for [`with_group`].
pub fn with_current<R>(
    servers: Servers,
    f: impl FnOnce(&mut Current) -> R,
) -> Result<R, UpstreamError> {
    let f = match current_number(servers)? {
        None => f,
        Some(number) => match with_number(number, f) {
            Ok(result) => return Ok(result),
            Err(f) => f,
        },
    };
    Ok(f(&mut Current::new(servers)?))
}

/// Calls `f` with the group of this number. The error is `f`, if there is none.
fn with_number<R, F: FnOnce(&mut Current) -> R>(number: u32, f: F) -> Result<R, F> {
    let Ok(mut groups) = KNOWN.0.try_borrow_mut() else {
        return Err(f);
    };
    let mut list = groups.list.iter_mut();
    let Some((_, group)) = list.find(|(of, _)| *of == number) else {
        return Err(f);
    };
    let result = f(group);
    if group.has_parted() {
        let gone = group.take_gone();
        groups.tell_later(gone);
    }
    Ok(result)
}

impl Groups {
    #[cold]
    fn tell_later(&mut self, gone: Names) {
        self.gone.extend(gone);
        let event = self.event.get_or_insert_with(|| Posted::new(on_gone));
        event.post();
    }

    fn has(&self, name: &[u8]) -> bool {
        let mut groups = self.list.iter().map(|(_, group)| group.group());
        groups.any(|group| group.peers().iter().any(|peer| *peer.name == *name))
    }
}

unsafe extern "C" fn on_gone(_: *mut ngx_event_t) {
    contain(|| {
        let gone = std::mem::take(&mut KNOWN.0.borrow_mut().gone);
        if let Some(tell) = ON_GONE.get() {
            tell(without_used(gone));
        }
    });
}

/// Those of the names that no group has.
pub fn without_used(mut names: Names) -> Names {
    if let Ok(groups) = KNOWN.0.try_borrow() {
        names.retain(|name| !groups.has(name));
    }
    names
}

/// Counts a failure of a server of the current cycle's block, for what belongs to no request.
/// `None`: it is not there.
pub fn count_failure(upstream: &[u8], server: &[u8]) -> Option<Failure> {
    with_server(upstream, server, |current, peer| current.fail(peer))
}

/// As [`count_failure`], for a success. Whether the server was disabled and is used again.
pub fn count_success(upstream: &[u8], server: &[u8]) -> Option<bool> {
    with_server(upstream, server, |current, peer| current.succeed(peer))
}

/// As [`count_failure`], for a trial without a result, see [`Current::give_back`].
pub fn give_back_trial(upstream: &[u8], server: &[u8], trial: i64) {
    with_server(upstream, server, |current, peer| {
        current.give_back(peer, trial)
    });
}

fn with_server<R>(
    upstream: &[u8],
    server: &[u8],
    f: impl FnOnce(&mut Current, &Peer) -> R,
) -> Option<R> {
    let servers = Servers::of(Upstream::of_cycle(upstream)?).ok()?;
    let number = current_number(servers).ok()??;
    let found = with_number(number, |current| {
        let group = current.group().clone();
        let peer = group.peers().iter().find(|peer| *peer.name == *server)?;
        Some(f(current, peer))
    });
    found.ok().flatten()
}
