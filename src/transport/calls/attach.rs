//! Sessions that stay for the next call: those of a client's objects, on shared connections. Each
//! call attaches one, on behalf of the request that makes it, and gives it back.

use crate::fault;
use crate::nginx::{self, Msec, Request};
use crate::transport::ids::SessionKey;
use crate::transport::peer::Peer;
use crate::transport::state::session::{Session, State};
use crate::transport::worker::Worker;

impl Worker {
    /// Attaches a session that has no connection to the peer's shared connections, as `connect`
    /// does. False if that is not possible at once; then nothing was done.
    #[inline(always)]
    pub fn attach_again(&mut self, key: SessionKey, request: Request, peer: &Peer<'_>) -> bool {
        fault::point();
        if peer.multiplex.connections == 0
            || !self.sessions.get(key).is_some_and(Session::is_fresh)
            || !self.make_room_for(peer)
        {
            return false;
        }
        let shared_key = self.find_shared_pool(peer, request);
        let (Some(shared_pool), Some(session)) = (
            self.shared_pools.get_mut(shared_key),
            self.sessions.get_mut(key),
        ) else {
            return false;
        };
        if shared_pool.tls
            || nginx::now() >= shared_pool.renew_at
            || !shared_pool.takes(&self.connections, peer.multiplex.connections)
        {
            return false;
        }
        session.backlog = None;
        session.bounds = peer.multiplex.bounds;
        let name = shared_pool.name.pool.clone();
        if session.bind_to_request(key, request, name).is_err() {
            session.clear();
            return false;
        }
        shared_pool.usage.enter(peer.multiplex.connections);
        shared_pool.attach(shared_key, session);
        true
    }

    /// Detaches a session that is at rest, as `setkeepalive` does, but keeps it for the next call.
    /// False if it is not attached or not at rest; then it stays as it was.
    #[inline(always)]
    pub fn give_back(&mut self, key: SessionKey, request: Request, timeout: Option<Msec>) -> bool {
        let Some(&State::Shared { shared_pool, .. }) = self.at_rest(key, request) else {
            return false;
        };
        self.note_keepalive(shared_pool, request, timeout);
        fault::point();
        let (Some(shared_pool), Some(session)) = (
            self.shared_pools.get_mut(shared_pool),
            self.sessions.get_mut(key),
        ) else {
            return false;
        };
        if shared_pool.connections.is_empty() {
            return false;
        }
        // the session has no operation, and nobody waits for its place: there is no more to clean
        // up
        shared_pool.usage.leave();
        let cleanup = session.cleanup.take();
        session.clear();
        if let Some(cleanup) = cleanup {
            // SAFETY: a handler that ran has left no cleanup in the session.
            unsafe { cleanup.cancel() };
        }
        true
    }
}
