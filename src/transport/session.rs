//! A session: one Lua object's side of a connection, and the operations that
//! its coroutines wait for.

use std::ptr::NonNull;
use std::rc::Rc;

use nginx_sys::ngx_http_request_t;

use super::Error;
use super::access::Denied;
use super::address::Address;
use super::handshake::Pending;
use super::op::{Op, Outcome, Slot, Status};
use super::resolve::Resolution;
use super::shared::{Flight, Waits};
use super::worker::{LinkKey, PoolKey, SessionKey, TrunkKey, Worker};
use crate::fault;
use crate::nginx::{Msec, Timer};
use crate::ngx_lua::{Cleanup, Settings};
use crate::protocol::Reply;
use crate::upstream::{Bounds, Place, Ticket};

/// Timeouts of an object, in milliseconds; 0 stands for the location's
/// `lua_socket_*_timeout`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeouts {
    /// Of a connect, and of waiting for a place in a full pool.
    pub connect: Msec,
    /// Between two successful writes.
    pub send: Msec,
    /// Between two successful reads.
    pub read: Msec,
}

/// One Lua object's side of a connection.
#[derive(Default)]
pub(super) struct Session {
    /// Registered with the request that the object belongs to.
    pub(super) cleanup: Option<Cleanup>,
    pub(super) state: State,
    pub(super) timeouts: Timeouts,
    /// Address of the Lua object whose collection ends it.
    pub(super) handle: usize,
    /// Name of the pool that `setkeepalive` goes to.
    pub(super) pool_name: Option<Rc<[u8]>>,
    /// Connecting, or waiting for replies or for raw data.
    pub(super) reader: Option<Op>,
    /// Waiting for raw data to go out.
    pub(super) writer: Option<Box<Op>>,
    /// How many operations on shared connections may wait for room.
    pub(super) backlog: Option<usize>,
    /// How much may wait on shared connections for its operations to be taken.
    pub(super) bounds: Bounds,
    /// Number of the last operation on a shared connection.
    pub(super) serial: u64,
    /// When the reader's operation times out, on a shared connection.
    pub(super) deadline: Option<Ticket>,
    /// Its place among those who wait for shared connections, if it does.
    pub(super) waits: Option<Waits>,
}

/// How a session stands.
#[derive(Default)]
pub(super) enum State {
    /// Not connected.
    #[default]
    Closed,
    /// Waits for a place in a full pool.
    Queued {
        pool: PoolKey,
        place: Place,
        host: Vec<u8>,
        port: u16,
        _timer: Timer,
    },
    /// The host's name is being looked up.
    Resolving {
        resolution: Box<Resolution>,
        port: u16,
        pool: Option<PoolKey>,
        handshake: Option<Box<Pending>>,
        /// It will be a shared one.
        trunk: Option<TrunkKey>,
    },
    /// A shared connection is being opened.
    Joining(TrunkKey),
    /// Connected by shared connections.
    Attached {
        trunk: TrunkKey,
        reused: u64,
        flight: Option<Flight>,
    },
    /// Connected, as far as Lua is told. Nothing is open yet: the handshake
    /// will show which of the pool's connections can be used, if it is done.
    /// The pool counts it.
    Postponed {
        pool: PoolKey,
        address: Box<Address>,
    },
    /// Connecting or connected.
    Linked(LinkKey),
    /// The connection failed and is gone, but Lua did not call `close()` yet:
    /// the call will succeed once, as it does with cosockets.
    Broken { reused: u64 },
}

impl Session {
    pub(super) fn link(&self) -> Option<LinkKey> {
        match self.state {
            State::Linked(link) => Some(link),
            _ => None,
        }
    }

    /// Changes the state. Mostly the old one has nothing to drop, which is seen
    /// without a call.
    #[inline(always)]
    pub(super) fn enter(&mut self, state: State) {
        match self.state {
            State::Queued { .. } | State::Resolving { .. } | State::Postponed { .. } => {
                self.state = state;
            }
            State::Closed
            | State::Joining(_)
            | State::Attached { .. }
            | State::Linked(_)
            | State::Broken { .. } => std::mem::forget(std::mem::replace(&mut self.state, state)),
        }
    }

    /// Makes it as good as new, but for what every session is given.
    #[inline(always)]
    pub(super) fn clear(&mut self) {
        self.enter(State::Closed);
        let Session {
            cleanup,
            state: _,
            timeouts: _,
            handle: _,
            pool_name,
            reader,
            writer,
            backlog,
            bounds: _,
            serial,
            deadline,
            waits,
        } = self;
        *cleanup = None;
        *pool_name = None;
        if reader.is_some() || writer.is_some() {
            (*reader, *writer) = (None, None);
        }
        *backlog = None;
        *serial = 0;
        *deadline = None;
        *waits = None;
    }

    /// Where a queued session wants to connect to.
    pub(super) fn queued_for(&self) -> (&[u8], u16) {
        match &self.state {
            State::Queued { host, port, .. } => (host, *port),
            _ => (&[], 0),
        }
    }

    /// A timeout of the object, else of the location.
    fn timeout(&self, own: Msec, setting: fn(&Settings) -> Msec) -> Msec {
        if own != 0 {
            return own;
        }
        // SAFETY: a session's request is live.
        let settings = self.request().and_then(|r| unsafe { Settings::of(r) });
        settings.map_or(own, |settings| setting(&settings))
    }

    pub(super) fn connect_timeout(&self) -> Msec {
        self.timeout(self.timeouts.connect, Settings::connect_timeout)
    }

    pub(super) fn send_timeout(&self) -> Msec {
        self.timeout(self.timeouts.send, Settings::send_timeout)
    }

    pub(super) fn read_timeout(&self) -> Msec {
        self.timeout(self.timeouts.read, Settings::read_timeout)
    }

    pub(super) fn op(&mut self, slot: Slot) -> Option<&mut Op> {
        match slot {
            Slot::Reader => self.reader.as_mut(),
            Slot::Writer => self.writer.as_deref_mut(),
        }
    }

    pub(super) fn put_op(&mut self, slot: Slot, op: Op) {
        match slot {
            Slot::Reader => self.reader = Some(op),
            Slot::Writer => self.writer = Some(Box::new(op)),
        }
    }

    pub(super) fn take_op(&mut self, slot: Slot) -> Option<Op> {
        match slot {
            Slot::Reader => self.reader.take(),
            Slot::Writer => self.writer.take().map(|op| *op),
        }
    }

    #[inline(always)]
    pub(super) fn has_ops(&self) -> bool {
        self.reader.is_some() || self.writer.is_some()
    }

    /// Nothing was done with it, or nothing is left of it.
    pub(super) fn is_fresh(&self) -> bool {
        matches!(self.state, State::Closed) && self.cleanup.is_none() && !self.has_ops()
    }

    pub(super) fn ops(&self) -> impl Iterator<Item = &Op> {
        self.reader.iter().chain(self.writer.as_deref())
    }

    pub(super) fn request(&self) -> Option<NonNull<ngx_http_request_t>> {
        self.cleanup.as_ref().map(Cleanup::request)
    }
}

impl Worker {
    /// A new session, not connected. `handle` is the address of the Lua object
    /// whose collection ends it. If there is no memory the key is null, which no
    /// Lua object can hold.
    pub fn new_session(&mut self, timeouts: Timeouts, handle: usize) -> SessionKey {
        self.sessions.make(timeouts, handle).unwrap_or_default()
    }

    /// Forgets a session whose Lua object is gone.
    pub fn drop_session(&mut self, key: SessionKey) {
        fault::point();
        self.disconnect(key, State::Closed);
        self.forget(key);
    }

    /// Whether it is there, open or not.
    pub fn is_session(&self, key: SessionKey) -> bool {
        self.sessions.get(key).is_some()
    }

    /// Forgets a session that is closed, and returns its handle; `None` if an
    /// operation of it is not over.
    pub fn retire(&mut self, key: SessionKey) -> Option<usize> {
        let session = self.sessions.get(key)?;
        if !matches!(session.state, State::Closed) || session.has_ops() {
            return None;
        }
        self.forget(key)
    }

    /// As [`Self::retire`], for what is to be closed first.
    pub(super) fn close_and_retire(&mut self, key: SessionKey) -> Option<usize> {
        self.disconnect(key, State::Closed);
        self.retire(key)
    }

    /// Forgets a session that has nothing any more, and returns its handle.
    #[inline(always)]
    pub(super) fn forget(&mut self, key: SessionKey) -> Option<usize> {
        let (cleanup, handle) = self.sessions.remove(key)?;
        if let Some(cleanup) = cleanup {
            // SAFETY: a handler that ran has left no cleanup here.
            unsafe { cleanup.cancel() };
        }
        Some(handle)
    }

    /// The request that a session belongs to has ended.
    pub(super) fn request_ended(&mut self, key: SessionKey) {
        if let Some(session) = self.sessions.get_mut(key) {
            // it is running, and goes with the request
            session.cleanup = None;
        }
        fault::point();
        self.disconnect(key, State::Closed);
    }

    /// Changes the timeouts of later operations.
    pub fn set_timeouts(&mut self, key: SessionKey, timeouts: Timeouts) {
        if let Some(session) = self.sessions.get_mut(key) {
            session.timeouts = timeouts;
        }
    }

    /// Ends what a session has: its place in a queue, its link, its pending
    /// operations. A coroutine that waits is told, unless its request ends.
    pub(super) fn disconnect(&mut self, key: SessionKey, state: State) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let (State::Closed, State::Closed, None, None) =
            (&session.state, &state, &session.reader, &session.writer)
        {
            return;
        }
        let was = std::mem::replace(&mut session.state, state);
        let deadline = session.deadline.take();
        let ended = session.cleanup.is_none();
        fault::point();
        for slot in [Slot::Reader, Slot::Writer] {
            match session.op(slot) {
                None => {}
                Some(op) if !ended && op.has_waiter() => op.fail(Error::Closed, false),
                Some(_) => {
                    if let Some(op) = session.take_op(slot) {
                        self.semaphores.give(op.into_semaphore());
                    }
                }
            }
        }
        if let Some(ticket) = deadline {
            self.deadlines.cancel(ticket);
            self.ease_deadline();
        }
        match was {
            State::Queued { pool, place, .. } => self.leave_queue(pool, place),
            State::Resolving { pool, trunk, .. } => {
                if let Some(pool) = pool {
                    self.release(pool);
                }
                if let Some(trunk) = trunk {
                    self.leave_trunk(trunk, key, None);
                }
            }
            State::Joining(trunk) => self.leave_trunk(trunk, key, None),
            State::Attached { trunk, flight, .. } => self.leave_trunk(trunk, key, flight),
            State::Linked(link) => self.close_link(link),
            State::Postponed { pool, .. } => self.release(pool),
            State::Closed | State::Broken { .. } => {}
        }
    }

    /// Gives up a session's connection and what is under way on it.
    pub fn abort(&mut self, key: SessionKey) {
        self.disconnect(key, State::Closed);
    }

    /// Gives the buffers of a reply back, for the next one.
    pub fn recycle(&mut self, reply: Reply) {
        self.buffers.recycle(reply);
    }

    /// `close()`. Outer error: not this request's.
    pub fn close(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
    ) -> Result<Result<(), Error>, Denied> {
        fault::point();
        self.reap(key);
        if let Some(session) = self.sessions.get_mut(key)
            && let State::Broken { .. } = session.state
        {
            session.state = State::Closed;
            return Ok(Ok(()));
        }
        if self.is_postponed(key, request) {
            self.disconnect(key, State::Closed);
            return Ok(Ok(()));
        }
        if self.attached(key, request)?.is_some() {
            return Ok(self.check_idle(key).map(|()| {
                self.disconnect(key, State::Closed);
            }));
        }
        match self.connected(key, request)? {
            Err(error) => Ok(Err(error)),
            Ok(_) => Ok(self.check_idle(key).map(|()| {
                self.disconnect(key, State::Closed);
            })),
        }
    }

    /// How often the session's connection was taken out of a pool.
    pub fn reused_times(&self, key: SessionKey) -> Result<u64, Error> {
        match self.sessions.get(key).map(|session| &session.state) {
            Some(State::Linked(link)) => {
                let link = self.links.get(*link).ok_or(Error::Closed)?;
                // code that asks for it to see whether a handshake is due must
                // not take a plain connection for one that has done it
                let mixed = |pool| self.pools.get(pool).is_some_and(|named| named.tls);
                Ok(match link.tls {
                    None if link.pool.is_some_and(mixed) => 0,
                    _ => link.reused,
                })
            }
            Some(State::Postponed { .. } | State::Joining(_)) => Ok(0),
            Some(State::Broken { reused } | State::Attached { reused, .. }) => Ok(*reused),
            _ => Err(Error::Closed),
        }
    }

    /// Takes the result of the operation that the resumed coroutine waited for.
    #[inline(always)]
    pub fn take_outcome(&mut self, key: SessionKey, slot: Slot) -> Outcome {
        fault::point();
        let session = self.sessions.get_mut(key);
        let op = session.and_then(|session| match session.op(slot) {
            Some(op) if op.has_result() => session.take_op(slot),
            _ => None,
        });
        let Some(op) = op else {
            return self.end_coroutine(key, slot);
        };
        let (outcome, semaphore) = op.into_outcome();
        self.semaphores.give(semaphore);
        if outcome.is_large() && !self.dirty.is_empty() {
            // what others have asked for is not to wait for the making of it
            self.on_turn_end();
        }
        outcome
    }

    /// A coroutine was resumed that has no result, or must not go on.
    #[cold]
    fn end_coroutine(&mut self, key: SessionKey, slot: Slot) -> Outcome {
        let session = self.sessions.get_mut(key);
        let op = session.and_then(|session| match session.op(slot).map(|op| op.status()) {
            Some(Status::Done) => session.take_op(slot),
            _ => None,
        });
        let outcome = match op {
            Some(_) => Outcome::Ended,
            // nobody else may get the result later
            None => Outcome::Failed(Error::Closed),
        };
        if let Some(op) = op {
            self.semaphores.give(op.into_semaphore());
        }
        self.disconnect(key, State::Closed);
        outcome
    }
}
