//! A keepalive pool under its name.

use std::rc::Rc;

use slotmap::SlotMap;

use crate::transport::connection::Connection;
use crate::transport::ids::{ConnectionKey, SessionKey};
use crate::transport::peer::{Peer, PoolName};
use crate::upstream::{Fitness, Pool};

/// A pool under its name.
#[derive(Debug)]
pub struct NamedPool {
    pub name: Rc<[u8]>,
    /// Who it has its name of, if it is known.
    pub usual: Option<UsualPeer>,
    /// TLS connections were given to it: its connections are not all alike.
    pub tls: bool,
    pub pool: Pool<ConnectionKey, SessionKey>,
}

/// A peer whose pool is named after it.
#[derive(Debug)]
pub struct UsualPeer {
    pub host: Box<[u8]>,
    pub port: u16,
    pub with_port: bool,
}

impl NamedPool {
    pub fn is_for(&self, peer: &Peer<'_>) -> bool {
        match (peer.pool, &self.usual) {
            (PoolName::Given(name), _) => *self.name == *name,
            (PoolName::Usual { with_port }, Some(usual)) => {
                usual.with_port == with_port && usual.port == peer.port && *usual.host == *peer.host
            }
            _ => false,
        }
    }
}

/// Whether an idle connection is what a connect to a host wants: a plain one
/// is, as far as it is known now; a TLS one to that host may turn out to be.
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
