//! The state of a worker process after a panic and at its end, and what it makes.

use crate::MEMORY;
use crate::contain::contain;
use crate::nginx::{self, Msec, Posted, Timer};
use crate::protocol::{Buffers, Limits, Pipeline, Record};
use crate::transport::connection::address::Address;
use crate::transport::connection::handlers::handlers;
use crate::transport::connection::{Connection, MAX_LINE, NgxConnection, Owner};
use crate::transport::error::Error;
use crate::transport::fallback::Fallback;
use crate::transport::ids::{ConnectionKey, PoolKey};
use crate::transport::peer::{Peer, PoolName, has_room_for_names};
use crate::transport::state::errands::Errand;
use crate::transport::state::op::{Op, Slot, Work};
use crate::transport::state::session::{Session, State};
use crate::transport::worker::state::Worker;

/// How often killed light threads are looked for, in milliseconds.
pub const WATCH_INTERVAL: Msec = 100;

impl Worker {
    /// The result of `f` or, if it panics, something in its place. Then all
    /// that was under way fails, since nobody knows how far `f` has got.
    #[inline(always)]
    pub fn contained<R: Fallback>(&mut self, f: impl FnOnce(&mut Worker) -> R) -> R {
        match contain(|| f(self)) {
            Some(result) => result,
            None => self.start_over(),
        }
    }

    #[cold]
    #[inline(never)]
    pub fn start_over<R: Fallback>(&mut self) -> R {
        if contain(|| self.drop_all()).is_none() {
            // it is of no use any more; nginx starts another
            std::process::abort();
        }
        R::fallback()
    }

    /// Closes every connection and fails every operation. Ids stay what they
    /// are: those of sessions find closed ones, those of pipelines what was added,
    /// all others nothing.
    pub fn drop_all(&mut self) {
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
        self.errands = Default::default();
        self.buffers = Buffers::default();
        for session in self.sessions.iter_mut() {
            session.state = State::Closed;
            session.deadline = None;
            session.waits = None;
            session.serial += 1;
            let ended = session.request().is_none();
            for slot in [Slot::Reader, Slot::Writer] {
                match session.op(slot) {
                    Some(op) if !ended && op.has_waiter() => op.fail(Error::Internal, false),
                    _ => {
                        let op = Session::take_op(session, slot);
                        if let Some(semaphore) = op.map(Op::into_semaphore) {
                            self.semaphores.give(semaphore);
                        }
                    }
                }
            }
        }
    }

    /// Closes all connections and frees all semaphores.
    pub fn close_all(&mut self) {
        self.watch = None;
        self.deadline = None;
        self.turn_end = None;
        self.errands = Default::default();
        self.end_renewals();
        self.connections.clear();
        for session in self.sessions.drain() {
            let writer = session.writer.map(|op| *op);
            for op in session.reader.into_iter().chain(writer) {
                self.semaphores.give(op.into_semaphore());
            }
        }
        self.semaphores.free_all();
    }

    /// Whether there is memory for a further session, with something to spare.
    #[inline(always)]
    pub fn make_room_for(&mut self, peer: &Peer<'_>) -> bool {
        let name = match peer.pool {
            PoolName::Given(name) => name.len(),
            PoolName::Usual { .. } => 0,
        };
        MEMORY.fill()
            && has_room_for_names(name.saturating_add(peer.host.len()))
            && (peer.multiplex.connections == 0 || self.deadlines.make_room(self.sessions.len()))
    }

    /// Keeps an nginx connection that was opened.
    pub fn new_connection(
        &mut self,
        nginx: NgxConnection,
        address: Address,
        owner: Owner,
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
            pool,
            address,
            tls: None,
            record: Record::default(),
            handshake: None,
            read_due: None,
            reused: 0,
            unanswered: false,
            quitting: false,
            sharing: None,
        });
        if let Some(connection) = self.connections.get_mut(key) {
            connection.nginx.set_id(key.to_bits());
        }
        key
    }

    pub fn new_op(&mut self, work: Work) -> Result<Op, Error> {
        let semaphore = self.semaphores.take().ok_or(Error::NoMemory)?;
        Ok(Op::new(semaphore, work))
    }

    /// Nobody tells us when ngx_lua kills a waiting light thread, but its
    /// semaphore shows it. The object finds out when it is used next; for
    /// those that are not, a timer looks now and then while coroutines wait.
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

    /// Whether room has to be made before a connection is opened: then
    /// [`Self::wait_for_room`] is to be called.
    pub fn lacks_room(&mut self) -> bool {
        nginx::is_scarce()
            && !std::mem::take(&mut self.errands.granted)
            && self.errands.waiting.try_reserve(1).is_ok()
    }

    /// Goes on with an errand in this turn of the event loop.
    pub fn wait_for_room(&mut self, errand: Errand) {
        self.errands.waiting.push_back(errand);
        let event = &mut self.errands.event;
        event
            .get_or_insert_with(|| Posted::new(handlers().room))
            .post();
    }
}
