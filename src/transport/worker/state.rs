//! All that a worker process has.

use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;
use slotmap::SlotMap;

use crate::nginx::{Msec, Posted, Timer};
use crate::ngx_lua::Semaphores;
use crate::protocol::Buffers;
use crate::transport::ids::{LinkKey, PoolKey, SessionKey, TrunkKey};
use crate::transport::link::Link;
use crate::transport::state::errands::Errands;
use crate::transport::state::pool::NamedPool;
use crate::transport::state::sessions::Sessions;
use crate::transport::state::trunk::{Trunk, TrunkName};
use crate::upstream::Deadlines;

/// Everything a worker process has.
#[derive(Default)]
pub struct Worker {
    pub sessions: Sessions,
    pub links: SlotMap<LinkKey, Link>,
    pub pools: SlotMap<PoolKey, NamedPool>,
    pub pool_names: HashMap<Rc<[u8]>, PoolKey>,
    /// The pool that was looked for last: mostly it is again.
    pub last_pool: Option<PoolKey>,
    /// Addresses of the TLS sessions that Lua holds, and how often.
    pub tls_sessions: HashMap<usize, usize>,
    /// Of large values, for all links.
    pub buffers: Buffers,
    /// What coroutines wait on.
    pub semaphores: Semaphores,
    /// Runs while coroutines wait.
    pub watch: Option<Timer>,
    pub trunks: SlotMap<TrunkKey, Trunk>,
    pub trunk_names: HashMap<TrunkName, TrunkKey>,
    /// The one that was found last, which most often is the next one too.
    pub last_trunk: TrunkKey,
    /// By when those who wait on shared connections must have their results.
    pub deadlines: Deadlines<SessionKey>,
    pub deadline: Option<Timer>,
    /// When that timer expires.
    pub deadline_armed: Option<Msec>,
    /// Of the keys of gets.
    pub hasher: RandomState,
    /// Shared links with commands of this turn of the event loop.
    pub dirty: Vec<LinkKey>,
    pub turn_end: Option<Posted>,
    /// What waits for room for its connection.
    pub errands: Errands,
}
