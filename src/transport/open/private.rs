//! Opening a private connection.

use crate::transport::connection::address::{Address, Parsed};
use crate::transport::connection::resolve::Resolution;
use crate::transport::connection::tls::Pending;
use crate::transport::error::Error;
use crate::transport::ids::{Asker, ConnectionKey, OpKey, PoolKey, SessionKey};
use crate::transport::peer::Peer;
use crate::transport::state::op::{Assignment, PoolQueue, Resolving, Stage, Target, Work};
use crate::transport::state::outcome::{Opened, Outcome, Slot};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;
use crate::upstream::Admission;
use crate::{fault, nginx};

impl Worker {
    /// Opens a connection for a connect operation that waits already. On failure the session is
    /// closed, and what the pool counted is still counted.
    pub fn open(
        &mut self,
        op: OpKey,
        key: SessionKey,
        peer: (&[u8], u16),
        pool: Option<PoolKey>,
        handshake: Option<Box<Pending>>,
    ) -> Result<Opened, Error> {
        let (host, port) = peer;
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        let request = session.request().ok_or(Error::Closed)?;
        match Address::parse(host, port, request.log())? {
            Parsed::Address(address) => self.open_for_op(op, key, address, pool, handshake),
            Parsed::Name => {
                let mut resolution =
                    Resolution::start(host, Asker::Session(key), request.resolver())?;
                if let Some(answer) = resolution.take_answer() {
                    let address = answer?.address.with_port(port);
                    return self.open_for_op(op, key, address, pool, handshake);
                }
                session.enter(State::Connecting);
                if let Some(op) = self.ops.get_mut(op) {
                    op.stage = Stage::Resolving(Box::new(Resolving {
                        resolution,
                        port,
                        target: Target::Private { pool, handshake },
                    }));
                }
                Ok(Opened::Pending)
            }
        }
    }

    /// Opens a connection to an address for a connect operation. With a `handshake`, `Connected`
    /// means that it is to be done now.
    pub fn open_for_op(
        &mut self,
        op: OpKey,
        key: SessionKey,
        address: Address,
        pool: Option<PoolKey>,
        handshake: Option<Box<Pending>>,
    ) -> Result<Opened, Error> {
        let (connection, opened) = self.open_address(key, address, pool, handshake)?;
        if let Some(op) = self.ops.get_mut(op) {
            op.stage = Stage::Assigned(Assignment::new(connection, nginx::now()));
        }
        Ok(opened)
    }

    /// Opens a connection for a connect operation. On failure as with [`Self::open`], and there is
    /// no operation.
    pub fn begin_open(
        &mut self,
        key: SessionKey,
        peer: (&[u8], u16),
        pool: Option<PoolKey>,
    ) -> Result<Opened, Error> {
        let op = self.begin(key, Slot::Reader, Work::Connect, Stage::New)?;
        let opened = self.open(op, key, peer, pool, None);
        if !matches!(opened, Ok(Opened::Pending)) {
            self.take_back(key, Slot::Reader);
        }
        opened
    }

    /// Queues a connect operation in a full pool.
    pub fn enqueue(
        &mut self,
        key: SessionKey,
        pool: PoolKey,
        peer: &Peer<'_>,
    ) -> Result<Opened, Error> {
        let begun = self.begin(key, Slot::Reader, Work::Connect, Stage::New);
        let Some(named) = self.pools.get_mut(pool) else {
            return Err(Error::Closed);
        };
        let op_key = begun.inspect_err(|_| named.pool.release())?;
        let place = named.pool.enqueue(op_key);
        fault::point();
        if let (Some(session), Some(op)) = (self.sessions.get_mut(key), self.ops.get_mut(op_key)) {
            session.enter(State::Connecting);
            op.stage = Stage::PoolQueue(Box::new(PoolQueue {
                pool,
                place,
                host: peer.host.to_vec(),
                port: peer.port,
            }));
        }
        Ok(Opened::Pending)
    }

    /// Goes on with a connect operation that has waited in a pool's queue. False if it is over at
    /// once and the place is free again.
    pub fn resume_connect(
        &mut self,
        op_key: OpKey,
        pool: PoolKey,
        admission: Admission<ConnectionKey>,
    ) -> bool {
        let queued = self.ops.get_mut(op_key).and_then(|op| {
            let session = op.waiters.sessions().first().copied()?;
            match std::mem::replace(&mut op.stage, Stage::New) {
                Stage::PoolQueue(queued) => Some((session, queued)),
                other => {
                    op.stage = other;
                    None
                }
            }
        });
        let waits = |session: SessionKey| {
            let session = self.sessions.get(session);
            session.is_some_and(|session| session.waits_for(op_key))
        };
        let queued = queued.filter(|(session, _)| waits(*session));
        if let Admission::Replace(unfit) = admission {
            self.connections.remove(unfit);
        }
        let Some((key, queued)) = queued else {
            match admission {
                Admission::Reuse(connection) => self.put_idle_again(pool, connection),
                _ => self.release_only(pool),
            }
            return false;
        };
        let PoolQueue { host, port, .. } = *queued;
        let started = match admission {
            Admission::Reuse(connection) => {
                self.take_idle(connection, key);
                Ok(Opened::Connected)
            }
            Admission::Undecided => {
                self.defer(key, pool, &host, port);
                Ok(Opened::Connected)
            }
            _ => self.open(op_key, key, (&host, port), Some(pool), None),
        };
        let outcome = match started {
            Ok(Opened::Pending) => {
                // the time of waiting for a place does not count
                self.limit_call(key, Slot::Reader);
                return true;
            }
            Ok(Opened::Connected) => Outcome::Connected,
            Err(error) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.enter(State::Closed);
                }
                self.release_only(pool);
                Outcome::Failed(error)
            }
        };
        let over = matches!(outcome, Outcome::Failed(_));
        self.complete(op_key, outcome);
        !over
    }
}
