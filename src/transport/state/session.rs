//! A session: one Lua object's side of a connection, and the operations that
//! its coroutines wait for.

use std::rc::Rc;

use crate::fault;
use crate::nginx::{Msec, Request, Timer};
use crate::ngx_lua::{Cleanup, Settings};
use crate::transport::connection::address::Address;
use crate::transport::connection::handlers::handlers;
use crate::transport::connection::resolve::Resolution;
use crate::transport::connection::tls::Pending;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, PoolKey, SessionKey, SharedPoolKey};
use crate::transport::state::op::{Op, Slot};
use crate::upstream::{Bounds, Place, Spot, Ticket};

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
    pub reader: Option<Op>,
    /// Waiting for raw data to go out.
    pub writer: Option<Box<Op>>,
    /// How many operations on shared connections may wait for room.
    pub backlog: Option<usize>,
    /// How much may wait on shared connections for its operations to be taken.
    pub bounds: Bounds,
    /// Number of the last operation on a shared connection.
    pub serial: u64,
    /// When the reader's operation times out, on a shared connection.
    pub deadline: Option<Ticket>,
    /// Its place among those who wait for shared connections, if it does.
    pub waits: Option<Waits>,
}

/// How a session stands.
#[derive(Default)]
pub enum State {
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
        shared_pool: Option<SharedPoolKey>,
    },
    /// A shared connection is being opened.
    Joining(SharedPoolKey),
    /// Connected by shared connections.
    Shared {
        shared_pool: SharedPoolKey,
        reused: u64,
        flight: Option<Flight>,
    },
    /// Connected, as far as Lua is told. Nothing is open yet: the handshake
    /// will show which of the pool's connections can be used, if it is done.
    /// The pool counts it.
    Deferred {
        pool: PoolKey,
        address: Box<Address>,
    },
    /// Connecting or connected.
    Private(ConnectionKey),
    /// The connection failed and is gone, but Lua did not call `close()` yet:
    /// the call will succeed once, as it does with cosockets.
    Broken { reused: u64 },
}

impl Session {
    pub fn connection(&self) -> Option<ConnectionKey> {
        match self.state {
            State::Private(connection) => Some(connection),
            _ => None,
        }
    }

    /// Changes the state. Mostly the old one has nothing to drop, which is seen
    /// without a call.
    #[inline(always)]
    pub fn enter(&mut self, state: State) {
        match self.state {
            State::Queued { .. } | State::Resolving { .. } | State::Deferred { .. } => {
                self.state = state;
            }
            State::Closed
            | State::Joining(_)
            | State::Shared { .. }
            | State::Private(_)
            | State::Broken { .. } => std::mem::forget(std::mem::replace(&mut self.state, state)),
        }
    }

    /// Makes it as good as new, but for what every session is given.
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
    pub fn queued_for(&self) -> (&[u8], u16) {
        match &self.state {
            State::Queued { host, port, .. } => (host, *port),
            _ => (&[], 0),
        }
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

    pub fn op(&mut self, slot: Slot) -> Option<&mut Op> {
        match slot {
            Slot::Reader => self.reader.as_mut(),
            Slot::Writer => self.writer.as_deref_mut(),
        }
    }

    pub fn put_op(&mut self, slot: Slot, op: Op) {
        match slot {
            Slot::Reader => self.reader = Some(op),
            Slot::Writer => self.writer = Some(Box::new(op)),
        }
    }

    pub fn take_op(&mut self, slot: Slot) -> Option<Op> {
        match slot {
            Slot::Reader => self.reader.take(),
            Slot::Writer => self.writer.take().map(|op| *op),
        }
    }

    #[inline(always)]
    pub fn has_ops(&self) -> bool {
        self.reader.is_some() || self.writer.is_some()
    }

    /// Nothing was done with it, or nothing is left of it.
    pub fn is_fresh(&self) -> bool {
        matches!(self.state, State::Closed) && self.cleanup.is_none() && !self.has_ops()
    }

    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        self.reader.iter().chain(self.writer.as_deref())
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

/// Where an operation is under way.
#[derive(Clone, Copy)]
pub struct Flight {
    pub connection: ConnectionKey,
    /// Numbers of its first and its last exchange.
    pub first: u64,
    pub last: u64,
    pub since: Msec,
    /// `since` accounts for the time that sending took.
    pub sent: bool,
    /// It was on another connection, which could not send it.
    pub moved: bool,
    /// It was asked on another connection, which was lost.
    pub retried: bool,
}

/// What a session waits for, and where.
#[derive(Clone, Copy)]
pub enum Waits {
    /// For a connection.
    Joining(Place),
    /// For room, with its operation.
    Queued(Spot),
}
