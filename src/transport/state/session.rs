//! A session: one Lua object's side of a connection, and the calls of it that wait.

use std::rc::Rc;

use crate::fault;
use crate::nginx::{Msec, Request};
use crate::ngx_lua::{Cleanup, Settings};
use crate::transport::connection::address::Address;
use crate::transport::connection::handlers::handlers;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, OpKey, PoolKey, SessionKey, SharedPoolKey};
use crate::transport::state::call::Call;
use crate::transport::state::outcome::Slot;
use crate::upstream::Bounds;

/// Timeouts of an object, in milliseconds; 0 stands for the location's `lua_socket_*_timeout`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timeouts {
    /// Of a connect, and of waiting for a place in a full pool.
    pub connect: Msec,
    /// Between two successful writes.
    pub send: Msec,
    /// Between two successful reads.
    pub read: Msec,
}

/// The object that `connect` is called on.
pub enum Connecting {
    /// It has been connected before.
    Again(SessionKey),
    /// It is new, with these timeouts; `handle` is the address of what Lua will collect with it.
    New { timeouts: Timeouts, handle: usize },
}

/// One Lua object's side of a connection.
#[derive(Default)]
pub struct Session {
    /// Registered with the request that the object belongs to.
    pub cleanup: Option<Cleanup>,
    pub state: State,
    pub timeouts: Timeouts,
    /// Address of the Lua object whose collection ends it.
    pub handle: usize,
    /// Name of the pool that `setkeepalive` goes to.
    pub pool_name: Option<Rc<[u8]>>,
    /// Connecting, or waiting for replies or for raw data.
    pub reader: Option<Call>,
    /// Waiting for raw data to go out.
    pub writer: Option<Box<Call>>,
    /// How many operations on shared connections may wait for room.
    pub backlog: Option<usize>,
    /// How much may wait on shared connections for its operations to be taken.
    pub bounds: Bounds,
}

/// How a session stands. ARCHITECTURE.md has a drawing.
#[derive(Default)]
pub enum State {
    /// Not connected.
    #[default]
    Closed,
    /// Its operation waits for a place in a pool, for the server's name, or for a shared
    /// connection.
    Connecting,
    /// Connected, as far as Lua is told. Nothing is open yet: the handshake will show which of the
    /// pool's connections can be used, if it is done. The pool counts it.
    Deferred {
        pool: PoolKey,
        address: Box<Address>,
    },
    /// It has a connection of its own, which may not be established yet.
    Private(ConnectionKey),
    /// Connected by shared connections.
    Shared {
        shared_pool: SharedPoolKey,
        reused: u64,
    },
    /// The connection failed and is gone, but Lua did not call `close()` yet: the call will succeed
    /// once, as it does with cosockets.
    Broken { reused: u64 },
}

impl Session {
    pub fn connection(&self) -> Option<ConnectionKey> {
        match self.state {
            State::Private(connection) => Some(connection),
            _ => None,
        }
    }

    /// Changes the state. Mostly the old one has nothing to drop, which is seen without a call.
    #[inline(always)]
    pub fn enter(&mut self, state: State) {
        match self.state {
            State::Deferred { .. } => self.state = state,
            State::Closed
            | State::Connecting
            | State::Shared { .. }
            | State::Private(_)
            | State::Broken { .. } => std::mem::forget(std::mem::replace(&mut self.state, state)),
        }
    }

    /// Resets it for reuse. Timeouts, handle and bounds stay: they are set again before they are
    /// used.
    #[inline(always)]
    pub fn clear(&mut self) {
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
        } = self;
        *cleanup = None;
        *pool_name = None;
        if reader.is_some() || writer.is_some() {
            (*reader, *writer) = (None, None);
        }
        *backlog = None;
    }

    /// A timeout of the object, else of the location.
    pub fn timeout(&self, own: Msec, setting: fn(&Settings) -> Msec) -> Msec {
        if own != 0 {
            return own;
        }
        let settings = self.request().and_then(Settings::of);
        settings.map_or(own, |settings| setting(&settings))
    }

    pub fn connect_timeout(&self) -> Msec {
        self.timeout(self.timeouts.connect, Settings::connect_timeout)
    }

    pub fn send_timeout(&self) -> Msec {
        self.timeout(self.timeouts.send, Settings::send_timeout)
    }

    /// `lua_socket_send_lowat` of the location.
    pub fn send_lowat(&self) -> usize {
        let settings = self.request().and_then(Settings::of);
        settings.map_or(0, |settings| settings.send_lowat())
    }

    pub fn read_timeout(&self) -> Msec {
        self.timeout(self.timeouts.read, Settings::read_timeout)
    }

    #[inline(always)]
    pub fn call(&self, slot: Slot) -> Option<&Call> {
        match slot {
            Slot::Reader => self.reader.as_ref(),
            Slot::Writer => self.writer.as_deref(),
        }
    }

    /// A command was sent, and no coroutine waits for its reply yet.
    pub fn has_begun(&self) -> bool {
        self.reader.as_ref().is_some_and(Call::is_running)
    }

    #[inline(always)]
    pub fn call_mut(&mut self, slot: Slot) -> Option<&mut Call> {
        match slot {
            Slot::Reader => self.reader.as_mut(),
            Slot::Writer => self.writer.as_deref_mut(),
        }
    }

    #[inline(always)]
    pub fn put_call(&mut self, slot: Slot, call: Call) {
        match slot {
            Slot::Reader => self.reader = Some(call),
            Slot::Writer => self.writer = Some(Box::new(call)),
        }
    }

    #[inline(always)]
    pub fn take_call(&mut self, slot: Slot) -> Option<Call> {
        match slot {
            Slot::Reader => self.reader.take(),
            Slot::Writer => self.writer.take().map(|call| *call),
        }
    }

    #[inline(always)]
    pub fn has_calls(&self) -> bool {
        self.reader.is_some() || self.writer.is_some()
    }

    pub fn calls(&self) -> impl Iterator<Item = &Call> {
        self.reader.iter().chain(self.writer.as_deref())
    }

    /// The operation that its reader waits for.
    #[inline(always)]
    pub fn reads(&self) -> Option<OpKey> {
        self.reader.as_ref()?.pending()
    }

    /// Whether its reader waits for this operation, and its coroutine has not ended.
    #[inline(always)]
    pub fn waits_for(&self, op: OpKey) -> bool {
        let call = self.reader.as_ref();
        call.is_some_and(|call| call.pending() == Some(op) && !call.is_abandoned())
    }

    /// Whether it was never used, or is fully closed.
    pub fn is_fresh(&self) -> bool {
        matches!(self.state, State::Closed) && self.cleanup.is_none() && !self.has_calls()
    }

    pub fn request(&self) -> Option<Request> {
        self.cleanup.as_ref().map(Cleanup::request)
    }
}

impl Session {
    /// Notes what a session that connects needs in any case.
    #[inline(always)]
    pub fn bind_to_request(
        &mut self,
        key: SessionKey,
        request: Request,
        pool_name: Rc<[u8]>,
    ) -> Result<(), Error> {
        self.pool_name = Some(pool_name);
        if self.cleanup.is_none() {
            let cleanup = Cleanup::register(request, handlers().request_end, key.to_bits());
            self.cleanup = Some(cleanup.ok_or(Error::NoMemory)?);
        }
        fault::point();
        Ok(())
    }
}
