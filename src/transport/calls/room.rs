//! Room for connections to be opened.
//!
//! nginx keeps a sixteenth of `worker_connections` free: before it gives away one of those, it
//! closes idle clients. That can end requests, whose log phase and clean-up may run any code, and
//! so must not happen while the worker's state is in use. So room is made before, if a connection
//! will be opened: what Lua calls foresees that ([`before`]), and what comes with an event waits
//! for an event of its own ([`Worker::lacks_room`]).

use crate::nginx;
use crate::transport::worker::Worker;
use crate::transport::worker::cell::with;

/// Makes room ahead of a call, if connections are scarce and `opens` says that it will open one. To
/// be called by what Lua calls, while nothing is in use.
#[inline(always)]
pub fn before(opens: impl FnOnce(&mut Worker) -> bool) {
    if nginx::is_scarce() && with(opens) {
        nginx::make_room();
    }
}
