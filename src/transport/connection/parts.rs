//! What a connection is.
//!
//! ```text
//!     Connecting ----> Established ----> Handshaking ----> Established
//!         |                (a TLS handshake is asked for)
//!         +---- to do a TLS handshake ----> Handshaking
//! ```
//!
//! Its [`Owner`] is a session, a shared pool, a background queue or a probe, from the beginning. A
//! private connection that no session uses belongs to a keepalive pool.

use std::rc::Rc;

use crate::nginx::Msec;
use crate::protocol::{Pipeline, Record};
use crate::transport::connection::address::Address;
use crate::transport::connection::nginx_connection::NgxConnection;
use crate::transport::connection::sharing::Sharing;
use crate::transport::connection::tls::{Pending, Tls};
use crate::transport::ids::ProbeKey;
use crate::transport::ids::{OpKey, PoolKey, QueueKey, SessionKey};
use crate::upstream::{Place, Progress};

/// Longest reply line accepted, in bytes. memcached's own limit on keys makes the longest regular
/// line much shorter.
pub const MAX_LINE: usize = 2048;

/// A connection. Dropping it closes it.
pub struct Connection {
    pub nginx: NgxConnection,
    pub pipeline: Pipeline<OpKey>,
    pub owner: Owner,
    pub phase: Phase,
    /// `None`: it is plain.
    pub tls: Option<TlsLayer>,
    pub progress: Progress,
    /// The peer's.
    pub address: Address,
    /// The keepalive pool that counts this connection, idle or not.
    pub pool: Option<PoolKey>,
    /// How often it was taken out of a pool.
    pub reused: u64,
}

/// How far opening a connection has got.
pub enum Phase {
    /// The handshake of TCP is under way. Then one of TLS is to be done, if any.
    Connecting(Option<Box<Pending>>),
    /// A TLS handshake is under way.
    Handshaking(Box<Pending>),
    /// Commands can be sent.
    Established,
}

/// Whose connection it is.
pub enum Owner {
    /// A session uses it.
    Session(Private),
    /// It is idle in a keepalive pool.
    Pool(Idle),
    /// Many sessions share it.
    Shared(Box<Sharing>),
    /// A background queue sends its writes over it.
    Queue(QueueKey),
    /// The worker asks a question by itself.
    Probe(ProbeKey),
}

/// Of a connection that a session uses.
#[derive(Clone, Copy, Debug)]
pub struct Private {
    pub session: SessionKey,
    /// Raw bytes were sent and nothing raw was received since: a reply may be under way.
    pub unanswered: bool,
    /// `quit` was sent; nothing may follow.
    pub quitting: bool,
    /// Its server was removed from the list: it is not kept.
    pub leaving: bool,
}

/// Of a connection that is idle.
#[derive(Clone, Copy, Debug)]
pub struct Idle {
    pub pool: PoolKey,
    pub place: Place,
    /// When its time is over; `None`: it has no end. The read timer may be armed for an earlier
    /// time, or for nothing.
    pub due: Option<Msec>,
}

/// The TLS part of a connection.
pub struct TlsLayer {
    /// The peer and the options that its handshake was done with.
    pub identity: Rc<Tls>,
    /// What is being sent.
    pub record: Record,
}

impl Private {
    pub fn new(session: SessionKey) -> Private {
        Private {
            session,
            unanswered: false,
            quitting: false,
            leaving: false,
        }
    }
}

impl Connection {
    /// Whether the handshake of TCP is under way.
    pub fn is_connecting(&self) -> bool {
        matches!(self.phase, Phase::Connecting(_))
    }

    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Established)
    }

    /// Whether exchanges are to be sent, and nothing of them was sent yet.
    pub fn has_begun_none(&self) -> bool {
        self.pipeline.in_flight() > 0 && !self.pipeline.has_begun_oldest()
    }

    /// The session that uses it, if one does.
    #[inline(always)]
    pub fn session(&self) -> Option<SessionKey> {
        match &self.owner {
            Owner::Session(private) => Some(private.session),
            _ => None,
        }
    }

    /// The background queue that owns it, if one does.
    pub fn queue(&self) -> Option<QueueKey> {
        match self.owner {
            Owner::Queue(queue) => Some(queue),
            _ => None,
        }
    }

    #[inline(always)]
    pub fn private(&self) -> Option<&Private> {
        match &self.owner {
            Owner::Session(private) => Some(private),
            _ => None,
        }
    }

    #[inline(always)]
    pub fn private_mut(&mut self) -> Option<&mut Private> {
        match &mut self.owner {
            Owner::Session(private) => Some(private),
            _ => None,
        }
    }

    #[inline(always)]
    pub fn sharing(&self) -> Option<&Sharing> {
        match &self.owner {
            Owner::Shared(sharing) => Some(sharing),
            _ => None,
        }
    }

    #[inline(always)]
    pub fn sharing_mut(&mut self) -> Option<&mut Sharing> {
        match &mut self.owner {
            Owner::Shared(sharing) => Some(sharing),
            _ => None,
        }
    }

    /// Whether it is a TLS connection to this host.
    pub fn is_tls_to(&self, host: &[u8], port: u16) -> bool {
        self.tls
            .as_ref()
            .is_some_and(|tls| tls.identity.is_to(host, port))
    }
}
