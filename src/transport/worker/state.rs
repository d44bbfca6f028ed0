//! All that a worker process has.

use std::collections::HashMap;
use std::rc::Rc;

use foldhash::fast::RandomState;
use slotmap::SlotMap;

use crate::nginx::{Msec, Posted, Timer};
use crate::ngx_lua::Semaphores;
use crate::protocol::Buffers;
use crate::transport::connection::Connection;
use crate::transport::ids::{
    ConnectionKey, OpKey, PipelineKey, PoolKey, SessionKey, SharedPoolKey,
};
use crate::transport::state::op::Op;
use crate::transport::state::outcome::Slot;
use crate::transport::state::pipeline::CommandPipeline;
use crate::transport::state::poll::Polls;
use crate::transport::state::pool::NamedPool;
use crate::transport::state::postponed::PostponedQueue;
use crate::transport::state::sessions::Sessions;
use crate::transport::state::shared_pool::{SharedPool, SharedPoolName};
use crate::transport::state::trial::Trial;
use crate::transport::state::write_queue::WriteQueue;
use crate::upstream::Deadlines;

/// Everything a worker process has.
#[derive(Default)]
pub struct Worker {
    pub sessions: Sessions,
    /// Operations under way.
    pub ops: SlotMap<OpKey, Op>,
    pub connections: SlotMap<ConnectionKey, Connection>,
    pub pools: SlotMap<PoolKey, NamedPool>,
    pub pool_names: HashMap<Rc<[u8]>, PoolKey>,
    /// The pool that was looked for last: mostly it is again.
    pub last_pool: Option<PoolKey>,
    /// Addresses of the TLS sessions that Lua holds, and how often.
    pub tls_sessions: HashMap<usize, usize>,
    /// Of large values, for all connections.
    pub buffers: Buffers,
    /// What coroutines wait on.
    pub semaphores: Semaphores,
    /// Runs while coroutines wait.
    pub watch: Option<Timer>,
    pub shared_pools: SlotMap<SharedPoolKey, SharedPool>,
    pub shared_pool_names: HashMap<SharedPoolName, SharedPoolKey>,
    /// The one that was found last, which most often is the next one too.
    pub last_shared_pool: SharedPoolKey,
    /// By when the calls that wait must have their results.
    pub deadlines: Deadlines<(SessionKey, Slot)>,
    pub deadline: Option<Timer>,
    /// When that timer expires.
    pub deadline_armed: Option<Msec>,
    /// Of the keys of gets.
    pub hasher: RandomState,
    /// Shared connections with commands of this iteration of the event loop.
    pub to_flush: Vec<ConnectionKey>,
    pub turn_end: Option<Posted>,
    /// Open pipelines.
    pub pipelines: SlotMap<PipelineKey, CommandPipeline>,
    /// Background queues, one for each server.
    pub queues: Vec<WriteQueue>,
    /// Runs while something waits in one of them.
    pub queue_timer: Option<Timer>,
    /// When it was seen that the worker exits.
    pub exiting_since: Option<Msec>,
    /// Trials of disabled servers that are under way.
    pub trials: Vec<Trial>,
    /// What is asked of servers by the worker itself.
    pub polls: Polls,
    /// What waits until nginx has a connection to spare.
    pub postponed: PostponedQueue,
}
