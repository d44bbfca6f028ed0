//! Opening a connection of a session's own.

use crate::conf::LocConf;
use crate::fault;
use crate::nginx::Timer;
use crate::transport::connection::Owner;
use crate::transport::connection::address::{Address, Parsed};
use crate::transport::connection::dial::{dial, wants_nodelay};
use crate::transport::connection::handlers::handlers;
use crate::transport::connection::resolve::Resolution;
use crate::transport::error::Error;
use crate::transport::ids::{Asker, ConnectionKey, PoolKey, SessionKey};
use crate::transport::log::log_socket_error;
use crate::transport::peer::Peer;
use crate::transport::state::op::{Op, Opened, Outcome, Work};
use crate::transport::state::session::State;
use crate::transport::state::sessions::Sessions;
use crate::transport::worker::Worker;
use crate::upstream::Admission;

impl Worker {
    /// Opens a connection to a host. On failure as with [`Self::begin_open`].
    pub fn open(
        &mut self,
        key: SessionKey,
        host: &[u8],
        port: u16,
        pool: Option<PoolKey>,
    ) -> Result<Opened, Error> {
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        let request = session.request().ok_or(Error::Closed)?;
        // SAFETY: a session's request is live.
        match unsafe { Address::parse(host, port, request)? } {
            Parsed::Address(address) => self.open_address(key, address, pool),
            Parsed::Name => {
                // SAFETY: as above.
                let started = unsafe { Resolution::start(host, Asker::Session(key), request) };
                let mut resolution = started?;
                if let Some(answer) = resolution.take_answer() {
                    return self.open_address(key, answer?.address.with_port(port), pool);
                }
                session.state = State::Resolving {
                    resolution,
                    port,
                    pool,
                    handshake: None,
                    shared_pool: None,
                };
                Ok(Opened::Pending)
            }
        }
    }

    pub fn open_address(
        &mut self,
        key: SessionKey,
        mut address: Address,
        pool: Option<PoolKey>,
    ) -> Result<Opened, Error> {
        self.connections
            .try_reserve(1)
            .map_err(|_| Error::NoMemory)?;
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        let request = session.request().ok_or(Error::Closed)?;
        // SAFETY: the request is live while the session has it.
        let (opened, connecting, max_value) = unsafe {
            let (opened, connecting) = dial(&mut address, request)?;
            let conf = LocConf::of(request);
            let max_value = conf.map_or(usize::MAX, LocConf::max_value_size);
            (opened, connecting, max_value)
        };
        let owner = Owner::Session {
            session: key,
            connecting,
        };
        let connection_key = self.new_connection(opened, address, owner, pool, max_value);
        set_private(&mut self.sessions, key, connection_key);
        fault::point();
        let connection = self.connections.get_mut(connection_key);
        let (Some(connection), Some(session)) = (connection, self.sessions.get_mut(key)) else {
            return Err(Error::Closed);
        };
        if connecting {
            connection
                .nginx
                .start_write_timer(session.connect_timeout());
            return Ok(Opened::Pending);
        }
        // SAFETY: as above.
        let nodelay = unsafe { wants_nodelay(request) };
        if let Err(error) = connection.nginx.arm_established(nodelay) {
            session.state = State::Closed;
            self.connections.remove(connection_key);
            return Err(error);
        }
        Ok(Opened::Connected)
    }

    /// Opens a connection for a connect operation. On failure the session is
    /// closed, and what the pool counted is still counted.
    pub fn begin_open(
        &mut self,
        key: SessionKey,
        host: &[u8],
        port: u16,
        pool: Option<PoolKey>,
    ) -> Result<Opened, Error> {
        if self.open(key, host, port, pool)? == Opened::Connected {
            return Ok(Opened::Connected);
        }
        let op = self.new_op(Work::Connect);
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        match op {
            Ok(op) => {
                session.reader = Some(op);
                Ok(Opened::Pending)
            }
            Err(error) => {
                let connection = session.connection();
                session.state = State::Closed;
                connection.and_then(|connection| self.connections.remove(connection));
                Err(error)
            }
        }
    }

    /// Queues a connect operation in a full pool.
    pub fn enqueue(
        &mut self,
        key: SessionKey,
        pool: PoolKey,
        peer: &Peer<'_>,
    ) -> Result<Opened, Error> {
        let op = self.new_op(Work::Connect);
        let (Some(session), Some(named)) = (self.sessions.get_mut(key), self.pools.get_mut(pool))
        else {
            return Err(Error::Closed);
        };
        let op = op.inspect_err(|_| named.pool.release())?;
        // SAFETY: the cycle's log outlives the session's queueing.
        let mut timer = unsafe {
            Timer::new(
                handlers().queue_timeout,
                key.to_bits(),
                (*nginx_sys::ngx_cycle).log,
            )
        };
        timer.start(session.connect_timeout());
        let place = named.pool.enqueue(key);
        fault::point();
        session.reader = Some(op);
        session.state = State::Queued {
            pool,
            place,
            host: peer.host.to_vec(),
            port: peer.port,
            _timer: timer,
        };
        Ok(Opened::Pending)
    }

    /// The `connect_timeout` of a queued operation expired.
    pub fn on_queue_timeout(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        let request = session.request();
        if !matches!(session.state, State::Queued { .. }) {
            return;
        }
        let State::Queued {
            pool,
            place,
            host,
            port,
            ..
        } = std::mem::take(&mut session.state)
        else {
            return;
        };
        if let Some(op) = &mut session.reader {
            op.fail(Error::Timeout, false);
        }
        self.leave_queue(pool, place);
        let to = format!("{}:{port}", String::from_utf8_lossy(&host));
        log_socket_error(
            request,
            &to,
            "lua tcp socket queued connect timed out",
            format_args!(", when trying to connect to {to}"),
        );
    }

    /// Carries on a queued connect. False if it is over at once and the room
    /// is free again.
    pub fn resume_connect(
        &mut self,
        key: SessionKey,
        pool: PoolKey,
        admission: Admission<ConnectionKey>,
    ) -> bool {
        let queued = self.sessions.get_mut(key).and_then(|session| {
            match std::mem::take(&mut session.state) {
                State::Queued { host, port, .. } => Some((host, port)),
                other => {
                    session.state = other;
                    None
                }
            }
        });
        let abandoned = self
            .sessions
            .get(key)
            .and_then(|session| session.reader.as_ref())
            .is_none_or(Op::is_abandoned);
        if let Admission::Replace(unfit) = admission {
            self.connections.remove(unfit);
        }
        let Some((host, port)) = queued.filter(|_| !abandoned) else {
            match admission {
                Admission::Reuse(connection) => self.put_idle(pool, connection, true),
                _ => self.release_only(pool),
            }
            return false;
        };
        let started = match admission {
            Admission::Reuse(connection) => {
                self.take_idle(connection, key);
                Ok(Opened::Connected)
            }
            Admission::Undecided => {
                self.defer(key, pool, &host, port);
                Ok(Opened::Connected)
            }
            _ => self.open(key, &host, port, Some(pool)),
        };
        let outcome = match started {
            Ok(Opened::Pending) => return true,
            Ok(Opened::Connected) => Outcome::Connected,
            Err(error) => {
                self.release_only(pool);
                Outcome::Failed(error)
            }
        };
        let over = matches!(outcome, Outcome::Failed(_));
        if let Some(op) = self.sessions.get_mut(key).and_then(|s| s.reader.as_mut()) {
            op.finish(outcome);
        }
        !over
    }
}

/// The session has a connection.
pub fn set_private(sessions: &mut Sessions, key: SessionKey, connection: ConnectionKey) {
    if let Some(session) = sessions.get_mut(key) {
        session.state = State::Private(connection);
    }
}
