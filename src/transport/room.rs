//! Room for connections to be opened.
//!
//! nginx keeps a sixteenth of `worker_connections` free: before it gives away
//! one of those, it closes idle clients. That can end requests, whose log phase
//! and clean-up may run any code, and so must not happen while the worker's
//! state is in use. So room is made before, if a connection will be opened:
//! what Lua calls foresees that ([`before`]), and what comes with an event waits
//! for an event of its own ([`Worker::lacks_room`]).

use std::collections::VecDeque;
use std::ptr::NonNull;

use nginx_sys::{ngx_cycle, ngx_http_request_t};

use super::Error;
use super::connect::Peer;
use super::events::on_room;
use super::link::Link;
use super::op::Op;
use super::session::State;
use super::worker::{LinkKey, PoolKey, SessionKey, TrunkKey, Worker, with};
use crate::nginx::{self, Posted};

/// What waits for room.
pub(super) enum Errand {
    /// A session whose server's name was looked up.
    Resolved(SessionKey),
    /// A pool with operations that wait for a connection.
    Pool(PoolKey),
    /// A trunk with operations that wait for room there.
    Queue(TrunkKey),
    /// A shared connection that failed, and why. Its commands may need another.
    Lost(LinkKey, Error),
}

/// All that waits for room.
#[derive(Default)]
pub(super) struct Errands {
    /// Longest waiting first.
    waiting: VecDeque<Errand>,
    event: Option<Posted>,
    /// Room was made for one connection.
    granted: bool,
}

/// Makes room ahead of a call, if connections are scarce and `opens` says that
/// it will open one. To be called by what Lua calls, while nothing is in use.
#[inline(always)]
pub fn before(opens: impl FnOnce(&mut Worker) -> bool) {
    if nginx::is_scarce() && with(opens) {
        nginx::make_room();
    }
}

/// The time of those that wait for room.
pub(super) fn run_errands() {
    let mut left = 0;
    with(|worker| left = worker.errands.waiting.len());
    for _ in 0..left {
        nginx::make_room();
        with(Worker::run_errand);
    }
}

impl Worker {
    /// Whether room has to be made before a connection is opened: then
    /// [`Self::wait_for_room`] is to be called.
    pub(super) fn lacks_room(&mut self) -> bool {
        nginx::is_scarce()
            && !std::mem::take(&mut self.errands.granted)
            && self.errands.waiting.try_reserve(1).is_ok()
    }

    /// Goes on with an errand in this turn of the event loop.
    pub(super) fn wait_for_room(&mut self, errand: Errand) {
        self.errands.waiting.push_back(errand);
        let event = self.errands.event.get_or_insert_with(|| {
            // SAFETY: the cycle's log lives until `finish_errands`.
            unsafe { Posted::new(on_room, (*ngx_cycle).log) }
        });
        event.post();
    }

    /// Does what has waited longest, for which room was made.
    fn run_errand(&mut self) {
        let Some(errand) = self.errands.waiting.pop_front() else {
            return;
        };
        self.errands.granted = true;
        match errand {
            Errand::Resolved(key) => self.on_resolved(key),
            Errand::Pool(pool) => self.resume_waiting(pool),
            Errand::Queue(trunk) => self.serve_queue(trunk),
            Errand::Lost(link, error) => self.fail_shared(link, error),
        }
        self.errands.granted = false;
    }

    /// The cycle, whose log the event has, goes.
    pub(super) fn finish_errands(&mut self) {
        while !self.errands.waiting.is_empty() {
            self.run_errand();
        }
        self.errands = Errands::default();
    }

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
            State::Attached { trunk, .. } if shared => self.opens_for_batch(trunk),
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
    pub(super) fn opens_when_resolved(&self, key: SessionKey) -> bool {
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
