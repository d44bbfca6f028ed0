//! The groups of this worker: one for each block that is used.

use std::cell::RefCell;
use std::sync::OnceLock;

use nginx_sys::ngx_event_t;

use super::current::{Current, Names};
use super::{Servers, UpstreamError};
use crate::contain::contain;
use crate::nginx::{Posted, Request};

/// What a worker knows of groups.
struct Groups {
    list: Vec<Current>,
    /// Names of servers that are in no list any more, to be told.
    gone: Names,
    event: Option<Posted>,
}

struct Known(RefCell<Groups>);

// SAFETY: nginx handles events and Lua in one thread per process.
unsafe impl Sync for Known {}

static KNOWN: Known = Known(RefCell::new(Groups {
    list: Vec::new(),
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

/// Calls `f` with the group of a block. `None`: there is no block of this name.
///
/// # Errors
///
/// If the block cannot be used by key.
pub fn with_group<R>(
    request: Request,
    name: &[u8],
    f: impl FnOnce(&mut Current) -> R,
) -> Result<Option<R>, UpstreamError> {
    match Servers::named(request, name)? {
        None => Ok(None),
        Some(servers) => with_servers(request, servers, f).map(Some),
    }
}

/// Calls `f` with the group of these servers.
///
/// # Errors
///
/// As for [`with_group`].
pub fn with_servers<R>(
    request: Request,
    servers: Servers,
    f: impl FnOnce(&mut Current) -> R,
) -> Result<R, UpstreamError> {
    match request.is_of_cycle() {
        true => with_current(servers, f),
        // the blocks of an older configuration go with its last request
        false => Ok(f(&mut Current::new(servers)?)),
    }
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
    let Ok(mut groups) = KNOWN.0.try_borrow_mut() else {
        return Ok(f(&mut Current::new(servers)?));
    };
    let known = |group: &Current| group.servers() == servers;
    let at = match groups.list.iter().position(known) {
        Some(at) => at,
        None => {
            groups.list.push(Current::new(servers)?);
            groups.list.len().saturating_sub(1)
        }
    };
    let Some(group) = groups.list.get_mut(at) else {
        return Ok(f(&mut Current::new(servers)?));
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
        let mut groups = self.list.iter().map(Current::group);
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
