//! Whether a call will open a connection, for which nginx has to make room.

use crate::nginx::Request;
use crate::transport::connection::Connection;
use crate::transport::ids::{PipelineKey, SessionKey};
use crate::transport::peer::Peer;
use crate::transport::state::op::{Stage, Target};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

impl Worker {
    /// Whether a session's `connect` will open a connection.
    pub fn opens_to_connect(&self, request: Request, peer: &Peer<'_>) -> bool {
        if peer.multiplex.connections > 0 {
            match self.known_shared_pool(peer, request) {
                None => return true,
                Some(shared_pool) if !self.uses_tls(shared_pool) => {
                    return !self.has_connection(shared_pool);
                }
                Some(_) => {}
            }
        }
        let pool = self.pool_names.get(&*peer.pool_name());
        let named = pool.and_then(|pool| self.pools.get(*pool));
        // idle TLS connections may not be what is wanted
        named.is_none_or(|named| named.tls || named.pool.idle().next().is_none())
    }

    /// Whether a session will open a connection for commands (`shared`: such as can be sent on a
    /// shared one) or raw data.
    pub fn opens_to_send(&mut self, key: SessionKey, shared: bool) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        match session.state {
            State::Shared { shared_pool, .. } if shared => self.opens_for_batch(key, shared_pool),
            State::Shared { .. } => {
                let named = self
                    .pool_for_private(key)
                    .and_then(|pool| self.pools.get(pool));
                let plain = |connection: &_| {
                    self.connections
                        .get(*connection)
                        .is_some_and(|connection| connection.tls.is_none())
                };
                !named.is_some_and(|named| named.pool.idle().any(plain))
            }
            State::Deferred { .. } => true,
            _ => false,
        }
    }

    /// Whether a session will open a connection for a pipeline.
    pub fn opens_to_commit(&mut self, key: SessionKey, pipeline: PipelineKey) -> bool {
        let open = self.pipelines.get(pipeline);
        let can_share = open.is_some_and(|open| open.batch.can_share());
        self.opens_to_send(key, can_share)
    }

    /// Whether a session may open a connection for a TLS handshake: only a new one can do it.
    pub fn opens_for_handshake(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        match session.map(|session| &session.state) {
            Some(State::Shared { .. } | State::Deferred { .. }) => true,
            Some(State::Private(connection)) => {
                let new =
                    |connection: &Connection| connection.tls.is_none() && connection.reused == 0;
                !self.connections.get(*connection).is_some_and(new)
            }
            _ => false,
        }
    }

    /// Whether a session whose server's name was looked up will open a connection.
    pub fn opens_when_resolved(&self, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let op = session.reads().and_then(|op| Some((op, self.ops.get(op)?)));
        let Some((op, Stage::Resolving(resolving))) = op.map(|(key, op)| (key, &op.stage)) else {
            return false;
        };
        let opens = match resolving.target {
            Target::Private { .. } => true,
            Target::Shared(shared_pool) => !self.has_connection(shared_pool),
        };
        opens && resolving.resolution.has_address() && session.waits_for(op)
    }
}
