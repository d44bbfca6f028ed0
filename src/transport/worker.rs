//! The state of one worker process: sessions, links and pools, found by
//! generational ids only. A stale id, in an nginx event or in a Lua object,
//! finds nothing instead of freed memory.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;
use slotmap::{Key, KeyData, SlotMap, new_key_type};

use super::contain::Fallback;
use super::link::Link;
use super::room::Errands;
use super::sessions::Sessions;
use super::shared::{Trunk, TrunkName};
use crate::contain;
use crate::nginx::{Msec, Posted, Timer};
use crate::ngx_lua::Semaphores;
use crate::protocol::Buffers;
use crate::upstream::{Deadlines, Pool};

new_key_type! {
    /// A Lua object's side of a connection.
    pub struct SessionKey;
    /// A connection.
    pub struct LinkKey;
    /// A keepalive pool.
    pub struct PoolKey;
    /// The shared connections to a server.
    pub struct TrunkKey;
}

impl SessionKey {
    /// The id as nginx and Lua carry it.
    pub fn to_bits(self) -> u64 {
        self.data().as_ffi()
    }

    /// From [`Self::to_bits`]; any other number finds no session.
    pub fn from_bits(bits: u64) -> SessionKey {
        KeyData::from_ffi(bits).into()
    }
}

impl LinkKey {
    /// As [`SessionKey::to_bits`].
    pub fn to_bits(self) -> u64 {
        self.data().as_ffi()
    }

    /// As [`SessionKey::from_bits`].
    pub fn from_bits(bits: u64) -> LinkKey {
        KeyData::from_ffi(bits).into()
    }
}

// ids travel in pointers
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

/// A pool under its name.
#[derive(Debug)]
pub(super) struct NamedPool {
    pub(super) name: Rc<[u8]>,
    /// Who it has its name of, if it is known.
    pub(super) usual: Option<UsualPeer>,
    /// TLS connections were given to it: its connections are not all alike.
    pub(super) tls: bool,
    pub(super) pool: Pool<LinkKey, SessionKey>,
}

/// A peer whose pool is named after it.
#[derive(Debug)]
pub(super) struct UsualPeer {
    pub(super) host: Box<[u8]>,
    pub(super) port: u16,
    pub(super) with_port: bool,
}

/// Everything a worker process has.
#[derive(Default)]
pub struct Worker {
    pub(super) sessions: Sessions,
    pub(super) links: SlotMap<LinkKey, Link>,
    pub(super) pools: SlotMap<PoolKey, NamedPool>,
    pub(super) pool_names: HashMap<Rc<[u8]>, PoolKey>,
    /// The pool that was looked for last: mostly it is again.
    pub(super) last_pool: Option<PoolKey>,
    /// Addresses of the TLS sessions that Lua holds, and how often.
    pub(super) tls_sessions: HashMap<usize, usize>,
    /// Of large values, for all links.
    pub(super) buffers: Buffers,
    /// What coroutines wait on.
    pub semaphores: Semaphores,
    /// Runs while coroutines wait.
    pub(super) watch: Option<Timer>,
    pub(super) trunks: SlotMap<TrunkKey, Trunk>,
    pub(super) trunk_names: HashMap<TrunkName, TrunkKey>,
    /// The one that was found last, which most often is the next one too.
    pub(super) last_trunk: TrunkKey,
    /// By when those who wait on shared connections must have their results.
    pub(super) deadlines: Deadlines<SessionKey>,
    pub(super) deadline: Option<Timer>,
    /// When that timer expires.
    pub(super) deadline_armed: Option<Msec>,
    /// Of the keys of gets.
    pub(super) hasher: RandomState,
    /// Shared links with commands of this turn of the event loop.
    pub(super) dirty: Vec<LinkKey>,
    pub(super) turn_end: Option<Posted>,
    /// What waits for room for its connection.
    pub(super) errands: Errands,
}

struct Cell(RefCell<Option<Worker>>);

// SAFETY: nginx handles events and Lua in one thread per process, and no
// other thread (of a thread pool) comes here.
unsafe impl Sync for Cell {}

static WORKER: Cell = Cell(RefCell::new(None));

/// Runs `f` with the worker's state.
///
/// `f` must call nothing that may run Lua: Lua may call methods and collect
/// garbage, which comes back here, and then `f` is not run. What opens a
/// connection sees to it that nginx closes no idle ones for it, see
/// [`super::room`].
///
/// A panic of `f` comes no further; the result is a [`Fallback`] then.
pub fn with<R: Fallback>(f: impl FnOnce(&mut Worker) -> R) -> R {
    let Ok(mut cell) = WORKER.0.try_borrow_mut() else {
        return in_use();
    };
    let worker = match &mut *cell {
        Some(worker) => worker,
        none => none.insert(new_worker()),
    };
    worker.contained(f)
}

/// What [`with`] returns within itself, which would be a bug.
#[cold]
fn in_use<R: Fallback>() -> R {
    contain::alert(format_args!(
        "lua memcached internal error: the worker's state is in use"
    ));
    R::fallback()
}

#[cold]
fn new_worker() -> Worker {
    Worker::default()
}

/// As [`with`], but does nothing if there is no state (any more): at exit the
/// Lua VM, and with it the last handles, is collected later.
pub fn with_existing(f: impl FnOnce(&mut Worker)) {
    let Ok(mut cell) = WORKER.0.try_borrow_mut() else {
        return in_use();
    };
    if let Some(worker) = cell.as_mut() {
        worker.contained(f);
    }
}

/// Takes the worker's state away, after `f` has seen it. What comes later
/// finds nothing.
pub(super) fn end(f: impl FnOnce(&mut Worker)) {
    let Ok(mut cell) = WORKER.0.try_borrow_mut() else {
        return in_use();
    };
    let worker = cell.take();
    drop(cell);
    if let Some(mut worker) = worker {
        worker.contained(f);
    }
}
