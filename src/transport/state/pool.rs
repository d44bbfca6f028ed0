//! A keepalive pool under its name.

use std::rc::Rc;

use slotmap::SlotMap;

use crate::transport::connection::Connection;
use crate::transport::ids::{ConnectionKey, OpKey};
use crate::transport::peer::{Peer, PoolName};
use crate::upstream::{Fitness, Pool};

/// A pool under its name.
#[derive(Debug)]
pub struct NamedPool {
    pub name: Rc<[u8]>,
    /// The peer that it has its name from, if it is known.
    pub default_peer: Option<DefaultPeer>,
    /// TLS connections were given to it: its connections are not all alike.
    pub tls: bool,
    pub pool: Pool<ConnectionKey, OpKey>,
}

/// A peer whose pool is named after it.
#[derive(Debug)]
pub struct DefaultPeer {
    pub host: Box<[u8]>,
    pub port: u16,
    pub with_port: bool,
}

impl NamedPool {
    pub fn is_for(&self, peer: &Peer<'_>) -> bool {
        match (peer.pool, &self.default_peer) {
            (PoolName::Given(name), _) => *self.name == *name,
            (PoolName::Default { with_port }, Some(peer_of)) => {
                peer_of.with_port == with_port
                    && peer_of.port == peer.port
                    && *peer_of.host == *peer.host
            }
            _ => false,
        }
    }
}

/// Whether an idle connection fits a connect to a host. A plain one does. A TLS connection to that
/// host may fit: that depends on the handshake that is asked for.
pub fn fitness(
    connections: &SlotMap<ConnectionKey, Connection>,
    tls: bool,
    connection: ConnectionKey,
    host: &[u8],
    port: u16,
) -> Fitness {
    if !tls {
        return Fitness::Fits;
    }
    match connections.get(connection) {
        Some(connection) if connection.tls.is_none() => Fitness::Fits,
        Some(connection) if connection.is_tls_to(host, port) => Fitness::MayFit,
        _ => Fitness::Unfit,
    }
}
