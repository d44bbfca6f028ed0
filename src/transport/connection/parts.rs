//! What a connection is, its timers, and its end.

use std::rc::Rc;

use crate::nginx::{self, Msec};
use crate::protocol::{Pipeline, Record};
use crate::transport::connection::address::Address;
use crate::transport::connection::nginx_connection::NgxConnection;
use crate::transport::connection::sharing::Sharing;
use crate::transport::connection::tls::{Pending, Tls};
use crate::transport::ids::{PoolKey, SessionKey, SharedPoolKey};
use crate::upstream::Place;

/// Longest reply line accepted, in bytes. memcached's own limit on keys makes
/// the longest regular line much shorter.
pub const MAX_LINE: usize = 2048;

/// Whose connection it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// In use by a session; `connecting` until the connection stands.
    Session {
        session: SessionKey,
        connecting: bool,
    },
    /// Idle in a pool, at this place.
    Pool { pool: PoolKey, place: Place },
    /// Shared by many sessions; `connecting` until the connection stands.
    Shared {
        shared_pool: SharedPoolKey,
        connecting: bool,
    },
}

/// Whose reply it is that an exchange brings: the one of a session's
/// operations that had this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tag {
    pub session: SessionKey,
    pub serial: u64,
}

/// An open connection. Dropping it closes it.
pub struct Connection {
    pub nginx: NgxConnection,
    pub pipeline: Pipeline<Tag>,
    pub owner: Owner,
    /// The pool that counts this connection, idle or not.
    pub pool: Option<PoolKey>,
    /// The peer's.
    pub address: Address,
    /// When its read event times out, if it does; for a private connection. The
    /// timer may be armed for an earlier time, or for nothing.
    pub read_due: Option<Msec>,
    /// How often it was taken out of a pool.
    pub reused: u64,
    /// What a TLS connection was made with and to; `None`: it is plain.
    pub tls: Option<Rc<Tls>>,
    /// What TLS is sending; nothing on a plain connection.
    pub record: Record,
    /// The handshake to be done, or under way.
    pub handshake: Option<Pending>,
    /// Raw bytes were sent and nothing raw was received since: a reply may
    /// be under way.
    pub unanswered: bool,
    /// `quit` was sent; nothing may follow.
    pub quitting: bool,
    /// What only a shared connection has.
    pub sharing: Option<Box<Sharing>>,
}

/// What the read timer of a private connection says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadTimer {
    /// The event is not the timer's.
    Silent,
    /// It has expired early: nothing has happened.
    Early,
    Expired,
}

impl Connection {
    /// Has the read event time out after `timeout`. A timer that expires
    /// earlier is left as it is: mostly something else comes before that.
    pub fn limit_read(&mut self, timeout: Msec) {
        self.read_due = Some(nginx::now().saturating_add(timeout));
        self.nginx.advance_read_timer(timeout);
    }

    /// What a read event has to do with the timer, which goes on if it must.
    pub fn read_timer(&mut self) -> ReadTimer {
        if !self.nginx.take_read_timeout() {
            return ReadTimer::Silent;
        }
        let now = nginx::now();
        match self.read_due {
            None => ReadTimer::Early,
            Some(due) if due > now => {
                self.nginx.start_read_timer(due - now);
                ReadTimer::Early
            }
            Some(_) => ReadTimer::Expired,
        }
    }
}
