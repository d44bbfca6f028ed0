//! The groups of this worker: one for each block that is used.

use std::cell::RefCell;

use super::current::Current;
use super::{Servers, UpstreamError};
use crate::nginx::Request;

struct Known(RefCell<Vec<Current>>);

// SAFETY: nginx handles events and Lua in one thread per process.
unsafe impl Sync for Known {}

static KNOWN: Known = Known(RefCell::new(Vec::new()));

/// Forgets all groups, which belong to a configuration.
pub fn forget() {
    KNOWN.0.take();
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
    // the blocks of an older configuration go with its last request
    let known = request.is_of_cycle().then(|| KNOWN.0.try_borrow_mut().ok());
    let Some(mut known) = known.flatten() else {
        return Ok(f(&mut Current::new(servers)?));
    };
    let at = known.iter().position(|group| group.servers() == servers);
    if at.is_none() {
        known.push(Current::new(servers)?);
    }
    let at = at.unwrap_or(known.len().saturating_sub(1));
    match known.get_mut(at) {
        Some(group) => Ok(f(group)),
        None => Ok(f(&mut Current::new(servers)?)),
    }
}
