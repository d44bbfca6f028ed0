//! A connection to a server: its nginx connection and what is under way on it.

use std::ptr::NonNull;
use std::rc::Rc;

use nginx_sys::{ngx_add_timer, ngx_close_connection, ngx_connection_t};

use super::address::Address;
use super::handshake::{self, Pending, Tls};
use super::shared::Sharing;
use super::worker::{PoolKey, SessionKey, TrunkKey};
use crate::nginx::{self, Msec, stop_timer};
use crate::protocol::{Pipeline, Record};
use crate::upstream::Place;

/// Whose link it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    /// In use by a session; `connecting` until the connection stands.
    Session {
        session: SessionKey,
        connecting: bool,
    },
    /// Idle in a pool, at this place.
    Pool { pool: PoolKey, place: Place },
    /// Shared by many sessions; `connecting` until the connection stands.
    Trunk { trunk: TrunkKey, connecting: bool },
}

/// Whose reply it is that an exchange brings: the one of a session's
/// operations that had this number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    pub(super) session: SessionKey,
    pub(super) serial: u64,
}

/// An open connection. Dropping it closes it.
pub(super) struct Link {
    pub(super) connection: Connection,
    pub(super) pipeline: Pipeline<Tag>,
    pub(super) owner: Owner,
    /// The pool that counts this connection, idle or not.
    pub(super) pool: Option<PoolKey>,
    /// The peer's.
    pub(super) address: Address,
    /// When its read event times out, if it does; for a private link. The
    /// timer may be armed for an earlier time, or for nothing.
    pub(super) read_due: Option<Msec>,
    /// How often it was taken out of a pool.
    pub(super) reused: u64,
    /// What a TLS connection was made with and to; `None`: it is plain.
    pub(super) tls: Option<Rc<Tls>>,
    /// What TLS is sending; nothing on a plain connection.
    pub(super) record: Record,
    /// The handshake to be done, or under way.
    pub(super) handshake: Option<Pending>,
    /// Raw bytes were sent and nothing raw was received since: a reply may
    /// be under way.
    pub(super) unanswered: bool,
    /// `quit` was sent; nothing may follow.
    pub(super) quitting: bool,
    /// What only a shared link has.
    pub(super) sharing: Option<Box<Sharing>>,
}

/// What the read timer of a private link says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReadTimer {
    /// The event is not the timer's.
    Silent,
    /// It has expired early: nothing has happened.
    Early,
    Expired,
}

impl Link {
    /// Has the read event time out after `timeout`. A timer that expires
    /// earlier is left as it is: mostly something else comes before that.
    pub(super) fn limit_read(&mut self, timeout: Msec) {
        let due = nginx::now().saturating_add(timeout);
        self.read_due = Some(due);
        // SAFETY: the link's connection is open.
        unsafe {
            let read = (*self.connection.as_ptr()).read;
            if (*read).timer_set() == 0 || (*read).timer.key > due {
                stop_timer(read);
                ngx_add_timer(read, timeout);
            }
        }
    }

    /// What a read event has to do with the timer, which goes on if it must.
    pub(super) fn read_timer(&mut self) -> ReadTimer {
        // SAFETY: the link's connection is open.
        unsafe {
            let read = (*self.connection.as_ptr()).read;
            if (*read).timedout() == 0 {
                return ReadTimer::Silent;
            }
            (*read).set_timedout(0);
            let now = nginx::now();
            match self.read_due {
                None => ReadTimer::Early,
                Some(due) if due > now => {
                    ngx_add_timer(read, due - now);
                    ReadTimer::Early
                }
                Some(_) => ReadTimer::Expired,
            }
        }
    }
}

/// An nginx connection that is closed when dropped.
pub(super) struct Connection(NonNull<ngx_connection_t>);

impl Connection {
    /// # Safety
    ///
    /// `connection` is open and nobody else closes it.
    pub(super) unsafe fn from_raw(connection: NonNull<ngx_connection_t>) -> Connection {
        Connection(connection)
    }

    pub(super) fn as_ptr(&self) -> *mut ngx_connection_t {
        self.0.as_ptr()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        handshake::shut_down(self);
        // SAFETY: it is open until here; nginx deletes its timers and its
        // events, posted ones included.
        unsafe { ngx_close_connection(self.0.as_ptr()) };
    }
}
