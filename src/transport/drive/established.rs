//! A connection that was being opened is established, or is not.

use crate::fault;
use crate::nginx::HttpBlock;
use crate::transport::connection::{Connection, Owner, Phase};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, OpKey, SessionKey};
use crate::transport::log::{log_connect_error, logs_errors};
use crate::transport::state::op::{Resolving, Stage, Target};
use crate::transport::state::outcome::{Opened, Outcome, Slot};
use crate::transport::state::postponed::Postponed;
use crate::transport::state::session::State;
use crate::transport::worker::Worker;
use crate::upstream::RETRY_DELAY;

impl Worker {
    /// A name was looked up for a session, or could not be.
    pub fn on_resolved(&mut self, key: SessionKey) {
        if self.opens_when_resolved(key) && self.lacks_room() {
            return self.postpone(Postponed::Resolved(key));
        }
        let op_key = self.sessions.get(key).and_then(|session| session.reads());
        let Some((op_key, op)) = op_key.and_then(|key| Some((key, self.ops.get_mut(key)?))) else {
            return;
        };
        let resolving = match std::mem::replace(&mut op.stage, Stage::New) {
            Stage::Resolving(resolving) => *resolving,
            other => {
                op.stage = other;
                return;
            }
        };
        let Resolving {
            mut resolution,
            port,
            target,
        } = resolving;
        let waits = self.sessions.get(key).is_some_and(|s| s.waits_for(op_key));
        let answer = match resolution.take_answer() {
            Some(Ok(_)) if !waits => Err(Error::Closed),
            Some(answer) => answer,
            None => Err(Error::Unknown),
        };
        drop(resolution);
        fault::point();
        let opened = match (answer, target) {
            (Ok(answer), Target::Private { pool, handshake }) => {
                let address = answer.address.with_port(port);
                let opened = self.open_for_op(op_key, key, address, pool, handshake);
                opened.inspect_err(|_| self.release_counted(pool))
            }
            (Err(error), Target::Private { pool, .. }) => {
                self.release_counted(pool);
                Err(error)
            }
            (Ok(answer), Target::Shared(shared_pool)) => {
                let joined = self.join_at_answer(key, shared_pool, &answer);
                let joined = match joined {
                    Ok(Opened::Pending) => self
                        .join_line(op_key, key, shared_pool)
                        .map(|()| Opened::Pending),
                    joined => joined,
                };
                joined.inspect_err(|_| self.leave_after_failure(shared_pool))
            }
            (Err(error), Target::Shared(shared_pool)) => {
                self.leave_after_failure(shared_pool);
                Err(error)
            }
        };
        self.go_on_connecting(op_key, key, opened);
    }

    /// A connect operation whose server's name was looked up waits for its connection, has it, or
    /// fails.
    pub fn go_on_connecting(&mut self, op: OpKey, key: SessionKey, opened: Result<Opened, Error>) {
        let session = self.sessions.get_mut(key);
        match (opened, session.and_then(|session| session.connection())) {
            (Ok(Opened::Pending), _) => self.limit_call(key, Slot::Reader),
            (Ok(Opened::Connected), Some(connection)) => self.after_connect(connection),
            (Ok(Opened::Connected), None) => self.complete(op, Outcome::Connected),
            (Err(error), _) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.enter(State::Closed);
                }
                self.complete(op, Outcome::Failed(error));
            }
        }
    }

    /// A connect in progress succeeded, failed or timed out.
    pub fn on_connected(&mut self, key: ConnectionKey) {
        fault::point();
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let session = connection.session().and_then(|key| self.sessions.get(key));
        let request = session.and_then(|session| session.request());
        let nodelay = match &connection.owner {
            Owner::Shared(sharing) => {
                if connection.nginx.take_read_timeout() {
                    // the timer was armed for a command that waits on this connection: it says
                    // nothing about connecting
                    return self.arm_stall_check(key, RETRY_DELAY);
                }
                let shared_pool = self.shared_pools.get(sharing.shared_pool);
                shared_pool.is_some_and(|shared_pool| shared_pool.nodelay)
            }
            Owner::Queue(_) => HttpBlock::current().is_none_or(HttpBlock::tcp_nodelay),
            Owner::Probe(_) => true,
            Owner::Session(_) | Owner::Pool(_) => {
                request.is_some_and(|request| request.tcp_nodelay())
            }
        };
        match connection.end_connecting(nodelay) {
            Ok(()) => self.after_connect(key),
            Err(error) => {
                if let (Error::Os(errno), Some(request)) = (&error, request)
                    && logs_errors(request)
                {
                    log_connect_error(&connection.nginx, *errno);
                }
                self.fail_connecting(key, error);
            }
        }
    }

    /// A connection could not be opened.
    #[cold]
    pub fn fail_connecting(&mut self, key: ConnectionKey, error: Error) {
        if self.queue_with(key).is_some() {
            return self.fail_queue_opening(key, &error);
        }
        if self.is_probe(key) {
            return self.fail_probe_with(key, &error);
        }
        let Some(shared_pool) = self.shared_pool_with(key) else {
            return self.fail_private(key, &error, true);
        };
        let leaves = self
            .connections
            .get(key)
            .is_some_and(Connection::is_leaving);
        if !leaves || !self.is_opening(shared_pool) {
            self.refuse_joining(shared_pool, key, &error);
        }
        self.fail_shared(key, error);
    }

    /// A connection is established, but for a TLS handshake that is to be done.
    pub fn after_connect(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        match std::mem::replace(&mut connection.phase, Phase::Established) {
            Phase::Connecting(Some(pending)) => {
                let Some(session) = connection.session() else {
                    return;
                };
                // if nobody waits any more, the request that has the SSL context may be gone
                let waiting = self.sessions.get(session);
                let op = waiting.and_then(|session| session.reads());
                if !op.is_some_and(|op| waiting.is_some_and(|s| s.waits_for(op))) {
                    return self.disconnect(session, State::Closed);
                }
                match self.run_handshake(key, pending) {
                    Ok(true) => self.finish_connect(key, Outcome::Handshaken),
                    // it has as much time as connecting had
                    Ok(false) => self.limit_call(session, Slot::Reader),
                    Err(error) => self.fail_private(key, &error, true),
                }
            }
            Phase::Connecting(None) | Phase::Established => match connection.owner {
                Owner::Shared(_) => self.after_shared_connect(key),
                Owner::Queue(queue) => self.after_queue_connect(queue, key),
                Owner::Probe(_) => self.after_probe_connect(key),
                Owner::Session(_) | Owner::Pool(_) => {
                    self.finish_connect(key, Outcome::Connected);
                }
            },
            phase @ Phase::Handshaking(_) => connection.phase = phase,
        }
    }

    /// A shared connection is established.
    pub fn after_shared_connect(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        let leaves = connection.is_leaving() && connection.pipeline.in_flight() == 0;
        let Some(shared_pool) = self.shared_pool_with(key) else {
            return;
        };
        self.admit_joining(shared_pool);
        if leaves {
            return self.on_drained(key);
        }
        self.mark_idle(key);
        self.flush(key);
        self.read_early(key);
        self.serve_queue(shared_pool);
    }

    /// A handshake that was waited for has come to an end.
    pub fn on_handshaken(&mut self, key: ConnectionKey) {
        match self.end_handshake(key) {
            Ok(()) => self.finish_connect(key, Outcome::Handshaken),
            Err(error) => self.fail_private(key, &error, true),
        }
    }

    /// Tells the coroutine that waits for a private connection; or sends what has waited for that,
    /// if the connection had been deferred.
    pub fn finish_connect(&mut self, key: ConnectionKey, outcome: Outcome) {
        fault::point();
        let session_key = self.connections.get(key).and_then(Connection::session);
        let Some(session_key) = session_key else {
            return;
        };
        let op = self.sessions.get(session_key).and_then(|s| s.reads());
        let connects = op
            .and_then(|op| self.ops.get(op))
            .is_some_and(|op| op.is_connect());
        match op.filter(|_| connects) {
            Some(op) => self.complete(op, outcome),
            None => {
                // what a killed light thread asked for is not sent
                self.reap(session_key);
                for slot in [Slot::Reader, Slot::Writer] {
                    self.begin_to_wait(session_key, slot);
                }
                self.flush(key);
                self.read_if_due(key);
            }
        }
    }
}
