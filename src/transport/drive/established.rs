//! A connection that was being opened stands, or does not.

use crate::fault;
use crate::transport::connection::Owner;
use crate::transport::connection::dial::wants_nodelay;
use crate::transport::connection::resolve::Resolution;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, SessionKey, SharedPoolKey};
use crate::transport::log::{log_connect_error, log_timeout, logs_errors};
use crate::transport::open::shared::RETRY_DELAY;
use crate::transport::state::errands::Errand;
use crate::transport::state::op::{Op, Opened, Outcome};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

impl Worker {
    /// A name was looked up, or could not be.
    pub fn on_resolved(&mut self, key: SessionKey) {
        if self.opens_when_resolved(key) && self.lacks_room() {
            return self.wait_for_room(Errand::Resolved(key));
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let (mut resolution, port, pool, handshake) = match std::mem::take(&mut session.state) {
            State::Resolving {
                resolution,
                shared_pool: Some(shared_pool),
                ..
            } => return self.on_shared_resolved(key, shared_pool, resolution),
            State::Resolving {
                resolution,
                port,
                pool,
                handshake,
                ..
            } => (resolution, port, pool, handshake),
            other => {
                session.state = other;
                return;
            }
        };
        let abandoned = session.reader.as_ref().is_none_or(Op::is_abandoned);
        let answer = resolution.take_answer().unwrap_or(Err(Error::Unknown));
        drop(resolution);
        let opened = match answer {
            Ok(_) if abandoned => Err(Error::Closed),
            Ok(answer) => self.open_address(key, answer.address.with_port(port), pool),
            Err(error) => Err(error),
        };
        let connection = self
            .sessions
            .get(key)
            .and_then(|session| session.connection());
        if let Some(connection) =
            connection.and_then(|connection| self.connections.get_mut(connection))
        {
            connection.handshake = handshake.map(|pending| *pending);
        }
        let outcome = match (opened, connection) {
            (Ok(Opened::Connected), Some(connection)) => return self.after_connect(connection),
            (Ok(_), _) => return,
            (Err(error), _) => {
                if let Some(pool) = pool {
                    self.release(pool);
                }
                Outcome::Failed(error)
            }
        };
        if let Some(op) = self.sessions.get_mut(key).and_then(|s| s.reader.as_mut()) {
            op.finish(outcome);
        }
    }

    /// A connect in progress succeeded, failed or timed out.
    pub fn on_connected(&mut self, key: ConnectionKey) {
        fault::point();
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Owner::Session { session, .. } = connection.owner else {
            return;
        };
        let Some(request) = self.sessions.get(session).and_then(|s| s.request()) else {
            return;
        };
        let result = if connection.nginx.has_write_timed_out() {
            Err(Error::Timeout)
        } else if connection.nginx.is_closing() {
            // worker_shutdown_timeout
            Err(Error::Closed)
        } else {
            connection.nginx.stop_write_timer();
            match connection.nginx.socket_error() {
                // SAFETY: the request is live.
                0 => connection
                    .nginx
                    .arm_established(unsafe { wants_nodelay(request) }),
                errno => {
                    if logs_errors(request) {
                        log_connect_error(&connection.nginx, errno);
                    }
                    Err(Error::from_errno(errno))
                }
            }
        };
        match result {
            Ok(()) => {
                connection.owner = Owner::Session {
                    session,
                    connecting: false,
                };
                self.after_connect(key);
            }
            Err(error) => {
                if error == Error::Timeout {
                    let to = connection.address.text_and_port();
                    log_timeout(Some(request), connection.nginx.peer(), &to);
                }
                self.fail(key, error, State::Closed);
            }
        }
    }

    /// The name of a shared pool's server was looked up for a session, or could not
    /// be.
    pub fn on_shared_resolved(
        &mut self,
        key: SessionKey,
        shared_pool: SharedPoolKey,
        mut resolution: Box<Resolution>,
    ) {
        let answer = resolution.take_answer().unwrap_or(Err(Error::Unknown));
        drop(resolution);
        let session = self.sessions.get(key);
        let waits = session.and_then(|session| session.reader.as_ref());
        let joined = match answer {
            Ok(_) if waits.is_none_or(Op::is_abandoned) => Err(Error::Closed),
            Ok(answer) => self.join_at_answer(key, shared_pool, &answer),
            Err(error) => Err(error),
        };
        let outcome = match joined {
            Ok(Opened::Pending) => {
                return self.limit_joining(key);
            }
            Ok(Opened::Connected) => Outcome::Connected,
            Err(error) => {
                self.leave_shared_pool(shared_pool, key, None);
                Outcome::Failed(error)
            }
        };
        if let Some(op) = self.sessions.get_mut(key).and_then(|s| s.reader.as_mut()) {
            op.finish(outcome);
        }
    }

    /// A shared connection stands, or could not be opened.
    pub fn on_shared_connected(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(key) else {
            return;
        };
        let Owner::Shared { shared_pool, .. } = connection.owner else {
            return;
        };
        if connection.nginx.take_read_timeout() {
            // the time of a command that was given to it: it says nothing
            return self.arm_stall_check(key, RETRY_DELAY);
        }
        let nodelay = self
            .shared_pools
            .get(shared_pool)
            .is_some_and(|shared_pool| shared_pool.nodelay);
        let result = if connection.nginx.has_write_timed_out() {
            Err(Error::Timeout)
        } else if connection.nginx.is_closing() {
            // the worker exits, and nobody uses it yet
            Err(Error::Closed)
        } else {
            connection.nginx.stop_write_timer();
            match connection.nginx.socket_error() {
                0 => connection.nginx.arm_established(nodelay),
                errno => Err(Error::from_errno(errno)),
            }
        };
        match result {
            Ok(()) => {
                connection.owner = Owner::Shared {
                    shared_pool,
                    connecting: false,
                };
                let leaves = connection.is_leaving() && connection.pipeline.in_flight() == 0;
                self.admit_joining(shared_pool);
                if leaves {
                    return self.on_drained(key);
                }
                self.mark_idle(key);
                self.flush_shared(key);
                // its end may have come with it, and no event would tell
                if self
                    .connections
                    .get(key)
                    .is_some_and(|c| c.nginx.is_readable())
                {
                    self.read_shared(key);
                }
                self.serve_queue(shared_pool);
            }
            Err(error) => {
                if !connection.is_leaving() || !self.is_opening(shared_pool) {
                    self.refuse_joining(shared_pool, key, &error);
                }
                self.fail_shared(key, error);
            }
        }
    }

    /// A new connection was established whose handshake has been waited for,
    /// or there was none to do.
    pub fn after_connect(&mut self, key: ConnectionKey) {
        let Some(connection) = self.connections.get(key) else {
            return;
        };
        if connection.handshake.is_none() {
            self.finish_connect(key, Outcome::Connected);
            return;
        }
        let Owner::Session { session, .. } = connection.owner else {
            return;
        };
        // what it was asked with belongs to the coroutine
        let op = self.sessions.get(session).and_then(|s| s.reader.as_ref());
        if op.is_none_or(Op::is_abandoned) {
            self.disconnect(session, State::Closed);
            return;
        }
        match self.run_handshake(key) {
            Ok(true) => self.finish_connect(key, Outcome::Handshaken),
            Ok(false) => {}
            Err(error) => self.fail(key, error, State::Closed),
        }
    }

    /// A handshake that was waited for has come to an end.
    pub fn on_handshaken(&mut self, key: ConnectionKey) {
        match self.end_handshake(key) {
            Ok(()) => self.finish_connect(key, Outcome::Handshaken),
            Err(error) => self.fail(key, error, State::Closed),
        }
    }
}
