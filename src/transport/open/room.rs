//! Whether a call will open a connection, for which nginx has to make room.

use std::ptr::NonNull;

use nginx_sys::ngx_http_request_t;

use crate::transport::ids::SessionKey;
use crate::transport::link::Link;
use crate::transport::peer::Peer;
use crate::transport::state::op::Op;
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

impl Worker {
    /// Whether a session's `connect` will open a connection.
    pub fn opens_to_connect(&self, request: NonNull<ngx_http_request_t>, peer: &Peer<'_>) -> bool {
        if peer.multiplex.connections > 0 {
            match self.known_trunk(peer, request) {
                None => return true,
                Some(trunk) if !self.uses_tls(trunk) => return !self.has_link(trunk),
                Some(_) => {}
            }
        }
        let pool = self.pool_names.get(&*peer.pool_name());
        let named = pool.and_then(|pool| self.pools.get(*pool));
        // idle TLS connections may not be what is wanted
        named.is_none_or(|named| named.tls || named.pool.idle().next().is_none())
    }

    /// Whether a session will open a connection for commands (`shared`: such as
    /// can be sent on a shared one) or raw data.
    pub fn opens_to_send(&mut self, key: SessionKey, shared: bool) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        match session.state {
            State::Attached { trunk, .. } if shared => self.opens_for_batch(key, trunk),
            State::Attached { .. } => {
                let named = self.private_pool(key).and_then(|pool| self.pools.get(pool));
                let plain = |link: &_| self.links.get(*link).is_some_and(|l| l.tls.is_none());
                !named.is_some_and(|named| named.pool.idle().any(plain))
            }
            State::Postponed { .. } => true,
            _ => false,
        }
    }

    /// Whether a session may open a connection for a TLS handshake: only a new
    /// one can do it.
    pub fn opens_for_handshake(&self, key: SessionKey) -> bool {
        let session = self.sessions.get(key);
        match session.map(|session| &session.state) {
            Some(State::Attached { .. } | State::Postponed { .. }) => true,
            Some(State::Linked(link)) => {
                let new = |link: &Link| link.tls.is_none() && link.reused == 0;
                !self.links.get(*link).is_some_and(new)
            }
            _ => false,
        }
    }

    /// Whether a session whose server's name was looked up will open a connection.
    pub fn opens_when_resolved(&self, key: SessionKey) -> bool {
        let Some(session) = self.sessions.get(key) else {
            return false;
        };
        let State::Resolving {
            resolution, trunk, ..
        } = &session.state
        else {
            return false;
        };
        resolution.has_address()
            && !session.reader.as_ref().is_none_or(Op::is_abandoned)
            && trunk.is_none_or(|trunk| !self.has_link(trunk))
    }
}
