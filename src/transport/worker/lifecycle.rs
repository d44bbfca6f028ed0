//! The state of a worker process after a panic and at its end, and what it makes.

use crate::nginx::{self, Msec, Posted, Timer};
use crate::protocol::{Buffers, Limits, Pipeline};
use crate::reserve::MEMORY;
use crate::transport::connection::address::Address;
use crate::transport::connection::handlers::handlers;
use crate::transport::connection::{Connection, MAX_LINE, NgxConnection, Owner, Phase};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, OpKey, PoolKey};
use crate::transport::peer::{Peer, PoolName, has_room_for_names};
use crate::transport::state::call::Call;
use crate::transport::state::op::{Op, Stage, Waiters, Work};
use crate::transport::state::outcome::{Outcome, Slot};
use crate::transport::state::postponed::Postponed;
use crate::transport::state::session::State;
use crate::transport::state::write_queue::{ConnectionState, Tally, new_pipeline};
use crate::transport::worker::state::Worker;
use crate::upstream::Progress;

/// How often killed light threads are looked for, in milliseconds.
pub const WATCH_INTERVAL: Msec = 100;

impl Worker {
    /// Closes every connection and fails every operation. Ids stay what they are: those of sessions
    /// find closed ones, those of pipelines what was added, all others nothing.
    pub fn drop_all(&mut self) {
        self.ops.clear();
        self.connections.clear();
        self.pools.clear();
        self.pool_names.clear();
        self.last_pool = None;
        self.shared_pools.clear();
        self.shared_pool_names.clear();
        self.last_shared_pool = Default::default();
        self.deadlines = Default::default();
        self.deadline = None;
        self.deadline_armed = None;
        self.to_flush.clear();
        self.turn_end = None;
        self.postponed = Default::default();
        self.buffers = Buffers::default();
        self.empty_queues();
        self.polls.restart();
        for session in self.sessions.iter_mut() {
            session.state = State::Closed;
            let ended = session.request().is_none();
            for slot in [Slot::Reader, Slot::Writer] {
                match session.call_mut(slot) {
                    Some(call) if !ended && call.has_waiter() => {
                        call.deadline = None;
                        call.finish(Outcome::Failed(Error::Internal));
                    }
                    _ => {
                        let call = session.take_call(slot);
                        if let Some(semaphore) = call.map(Call::into_semaphore) {
                            self.semaphores.give(semaphore);
                        }
                    }
                }
            }
        }
    }

    /// The operation that all writes of a queue belong to.
    pub fn new_background_op(&mut self) -> OpKey {
        self.ops.insert(Op {
            waiters: Waiters::Nobody,
            work: Work::Background(Tally::default()),
            stage: Stage::New,
        })
    }

    /// All connections are gone: the writes of queues are lost.
    pub fn empty_queues(&mut self) {
        for at in 0..self.queues.len() {
            let op = self.new_background_op();
            let Some(queue) = self.queues.get_mut(at) else {
                continue;
            };
            queue.writes.lose(queue.writes.len());
            queue.state = ConnectionState::Closed;
            queue.waiting = new_pipeline();
            queue.to_flush = false;
            queue.op = op;
        }
        self.queue_timer = None;
    }

    /// Closes all connections and frees all semaphores.
    pub fn close_all(&mut self) {
        self.watch = None;
        self.deadline = None;
        self.turn_end = None;
        self.postponed = Default::default();
        self.end_renewals();
        self.queue_timer = None;
        self.polls.end(&mut self.connections);
        self.ops.clear();
        self.connections.clear();
        for session in self.sessions.drain() {
            let writer = session.writer.map(|call| *call);
            for call in session.reader.into_iter().chain(writer) {
                self.semaphores.give(call.into_semaphore());
            }
        }
        self.semaphores.free_all();
    }

    /// Whether there is memory for a further session, with something to spare.
    #[inline(always)]
    pub fn make_room_for(&mut self, peer: &Peer<'_>) -> bool {
        let name = match peer.pool {
            PoolName::Given(name) => name.len(),
            PoolName::Default { .. } => 0,
        };
        MEMORY.fill()
            && has_room_for_names(name.saturating_add(peer.host.len()))
            && self.deadlines.make_room(2 * self.sessions.len())
    }

    /// Keeps an nginx connection that was opened.
    pub fn new_connection(
        &mut self,
        nginx: NgxConnection,
        address: Address,
        owner: Owner,
        phase: Phase,
        pool: Option<PoolKey>,
        max_value: usize,
    ) -> ConnectionKey {
        let key = self.connections.insert(Connection {
            nginx,
            pipeline: Pipeline::new(Limits {
                max_line: MAX_LINE,
                max_value,
            })
            .with_buffers(self.buffers.clone()),
            owner,
            phase,
            tls: None,
            progress: Progress::default(),
            address,
            pool,
            reused: 0,
        });
        if let Some(connection) = self.connections.get_mut(key) {
            connection.nginx.set_id(key.to_bits());
        }
        key
    }

    /// Has a timer look for killed light threads while coroutines wait. ngx_lua does not tell when
    /// it kills one, but the semaphore shows it. An object that is used again finds out by itself;
    /// the timer is for the others.
    pub fn watch_waiters(&mut self) {
        if self.watch.is_none() {
            let mut timer = Timer::new(handlers().watch, 0);
            timer.start_cancelable(WATCH_INTERVAL);
            self.watch = Some(timer);
        }
    }

    pub fn turn_end(&mut self) -> &mut Posted {
        self.turn_end
            .get_or_insert_with(|| Posted::new(handlers().turn_end))
    }

    /// Whether nginx has no connection to spare: before one is opened, [`Self::postpone`] is to be
    /// called.
    pub fn lacks_room(&mut self) -> bool {
        nginx::is_scarce()
            && !std::mem::take(&mut self.postponed.granted)
            && self.postponed.waiting.try_reserve(1).is_ok()
    }

    /// Puts something off until nginx has made room, later in this iteration of the event loop.
    pub fn postpone(&mut self, what: Postponed) {
        self.postponed.waiting.push_back(what);
        let event = &mut self.postponed.event;
        event
            .get_or_insert_with(|| Posted::new(handlers().room))
            .post();
    }
}
