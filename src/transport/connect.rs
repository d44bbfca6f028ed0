//! Connecting: through a pool's idle connections, its queue, or anew.

use std::borrow::Cow;
use std::ptr::NonNull;
use std::rc::Rc;

use nginx_sys::ngx_http_request_t;
use slotmap::SlotMap;

use super::Error;
use super::access::Denied;
use super::events::{on_queue_timeout, on_request_end};
use super::io::log_socket_error;
use super::link::Link;
use super::op::{Op, Outcome, Work};
use super::open::Opened;
use super::room::Errand;
use super::session::{Session, State};
use super::worker::{LinkKey, NamedPool, PoolKey, SessionKey, UsualPeer, Worker};
use crate::MEMORY;
use crate::conf::Multiplex;
use crate::fault;
use crate::nginx::Timer;
use crate::ngx_lua::Cleanup;
use crate::protocol::Digits;
use crate::upstream::{Admission, Fitness, Place, Pool};

/// Where to connect to.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// An IP address or `unix:/path`.
    pub host: &'a [u8],
    /// The TCP port; 0 with a unix socket.
    pub port: u16,
    /// The pool's name.
    pub pool: PoolName<'a>,
    /// With a size the pool is created now, if there is none of this name.
    pub pool_size: Option<usize>,
    /// See [`Pool::new`].
    pub backlog: Option<usize>,
    /// Whether and how to share connections.
    pub multiplex: Multiplex,
}

/// The name of a pool, as it is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolName<'a> {
    /// As an option.
    Given(&'a [u8]),
    /// Not at all: it is the host, with a port `host:port`. Mostly the text is
    /// not needed.
    Usual {
        /// There is a port.
        with_port: bool,
    },
}

impl<'a> Peer<'a> {
    /// The name of the pool as text.
    pub(super) fn pool_name(&self) -> Cow<'a, [u8]> {
        match self.pool {
            PoolName::Given(name) => name.into(),
            PoolName::Usual { with_port: false } => self.host.into(),
            PoolName::Usual { with_port: true } => {
                let port = Digits::from(u64::from(self.port));
                [self.host, b":", port.as_bytes()].concat().into()
            }
        }
    }
}

impl Session {
    /// Notes what a session that connects needs in any case.
    #[inline(always)]
    pub(super) fn enlist(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        pool_name: Rc<[u8]>,
    ) -> Result<(), Error> {
        self.pool_name = Some(pool_name);
        if self.cleanup.is_none() {
            // SAFETY: the request is the running one.
            let cleanup = unsafe { Cleanup::register(request, on_request_end, key.to_bits()) };
            self.cleanup = Some(cleanup.ok_or(Error::NoMemory)?);
        }
        fault::point();
        Ok(())
    }
}

impl NamedPool {
    fn is_for(&self, peer: &Peer<'_>) -> bool {
        match (peer.pool, &self.usual) {
            (PoolName::Given(name), _) => *self.name == *name,
            (PoolName::Usual { with_port }, Some(usual)) => {
                usual.with_port == with_port && usual.port == peer.port && *usual.host == *peer.host
            }
            _ => false,
        }
    }
}

impl Worker {
    /// Connects a session on behalf of `request`. An existing connection is
    /// closed first.
    ///
    /// # Errors
    ///
    /// Outer: the session belongs to another active request. Inner: all else.
    pub fn connect(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        peer: &Peer<'_>,
    ) -> Result<Result<Opened, Error>, Denied> {
        fault::point();
        if !self.make_room_for(peer) {
            return Ok(Err(Error::NoMemory));
        }
        if !self.sessions.get(key).is_some_and(Session::is_fresh)
            && let Err(busy) = self.close_for_connect(key, request)?
        {
            return Ok(Err(busy));
        }
        if peer.multiplex.connections > 0
            && let Some(joined) = self.connect_shared(key, request, peer)
        {
            return Ok(joined);
        }
        Ok(self.start_connect(key, request, peer))
    }

    /// Closes what a session has, which is to be connected anew.
    #[cold]
    fn close_for_connect(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
    ) -> Result<Result<(), Error>, Denied> {
        self.may_connect(key, request)?;
        let idle = self.check_idle(key);
        if idle.is_ok() {
            self.disconnect(key, State::Closed);
        }
        Ok(idle)
    }

    /// Whether there is memory for a further session, with something to spare.
    #[inline(always)]
    fn make_room_for(&mut self, peer: &Peer<'_>) -> bool {
        let name = match peer.pool {
            PoolName::Given(name) => name.len(),
            PoolName::Usual { .. } => 0,
        };
        MEMORY.fill()
            && has_room_for_names(name.saturating_add(peer.host.len()))
            && (peer.multiplex.connections == 0 || self.deadlines.make_room(self.sessions.len()))
    }

    fn start_connect(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        peer: &Peer<'_>,
    ) -> Result<Opened, Error> {
        let pool = self.find_pool(peer);
        let named = pool.and_then(|pool| Some((pool, self.pools.get_mut(pool)?)));
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        let Some((pool, named)) = named else {
            session.enlist(key, request, peer.pool_name().into())?;
            return self.begin_open(key, peer.host, peer.port, None);
        };
        session.enlist(key, request, named.name.clone())?;
        let (links, tls) = (&self.links, named.tls);
        let fitness = |link: &LinkKey| fitness(links, tls, *link, peer.host, peer.port);
        match named.pool.admit(fitness) {
            Admission::Reuse(idle) => {
                if let Some(link) = self.links.get_mut(idle) {
                    session.enter(State::Linked(idle));
                    link.make_busy(key, Some(request));
                }
                Ok(Opened::Connected)
            }
            Admission::Undecided => {
                self.postpone(key, pool, peer.host, peer.port);
                Ok(Opened::Connected)
            }
            Admission::Wait => self.enqueue(key, pool, peer),
            Admission::Refuse => Err(Error::TooManyWaiting),
            admission @ (Admission::Connect | Admission::Replace(_)) => {
                if let Admission::Replace(unfit) = admission {
                    self.links.remove(unfit);
                }
                let begun = self.begin_open(key, peer.host, peer.port, Some(pool));
                if begun.is_err() {
                    self.release(pool);
                }
                begun
            }
        }
    }

    #[inline(always)]
    fn find_pool(&mut self, peer: &Peer<'_>) -> Option<PoolKey> {
        if let Some(last) = self.last_pool
            && let Some(named) = self.pools.get(last)
            && named.is_for(peer)
        {
            return Some(last);
        }
        self.find_pool_named(peer)
    }

    #[inline(never)]
    fn find_pool_named(&mut self, peer: &Peer<'_>) -> Option<PoolKey> {
        let name = peer.pool_name();
        let Some(pool) = self.pool_names.get(&*name).copied() else {
            return Some(self.create_pool(name.into(), peer.pool_size?, peer.backlog));
        };
        self.last_pool = Some(pool);
        if let PoolName::Usual { with_port } = peer.pool
            && let Some(named) = self.pools.get_mut(pool)
        {
            named.usual = Some(UsualPeer {
                host: peer.host.into(),
                port: peer.port,
                with_port,
            });
        }
        Some(pool)
    }

    pub(super) fn create_pool(
        &mut self,
        name: Rc<[u8]>,
        size: usize,
        backlog: Option<usize>,
    ) -> PoolKey {
        let pool = self.pools.insert(NamedPool {
            name: name.clone(),
            usual: None,
            tls: false,
            pool: Pool::new(size, backlog),
        });
        self.pool_names.insert(name, pool);
        pool
    }

    /// Marks a session as connected by one of a pool's TLS connections to a
    /// host, if it will do its handshake, or else to be connected anew. Until
    /// then nothing is opened.
    fn postpone(&mut self, key: SessionKey, pool: PoolKey, host: &[u8], port: u16) {
        let Some(named) = self.pools.get(pool) else {
            return;
        };
        let to_host = |link: &&LinkKey| {
            self.links
                .get(**link)
                .is_some_and(|l| l.is_tls_to(host, port))
        };
        let model = named.pool.idle().find(to_host);
        if let Some(model) = model.and_then(|model| self.links.get(*model))
            && let Some(session) = self.sessions.get_mut(key)
        {
            session.state = State::Postponed {
                pool,
                address: Box::new(model.address),
            };
        }
    }

    /// Opens the plain connection of a session that was postponed.
    pub(super) fn open_postponed(&mut self, key: SessionKey) -> Result<(), Error> {
        let Some(session) = self.sessions.get_mut(key) else {
            return Ok(());
        };
        let State::Postponed { pool, address } = &session.state else {
            return Ok(());
        };
        let (pool, address) = (*pool, **address);
        session.state = State::Closed;
        self.claim(pool);
        match self.open_address(key, address, Some(pool)) {
            Ok(_) => Ok(()),
            Err(error) => {
                self.release(pool);
                Err(error)
            }
        }
    }

    /// Counts a connection to be opened for a session that was postponed.
    pub(super) fn claim(&mut self, pool: PoolKey) {
        let evicted = self
            .pools
            .get_mut(pool)
            .and_then(|named| named.pool.claim());
        if let Some(evicted) = evicted {
            // the pool does not count it any more
            self.links.remove(evicted);
        }
    }

    pub(super) fn new_op(&mut self, work: Work) -> Result<Op, Error> {
        let semaphore = self.semaphores.take().ok_or(Error::NoMemory)?;
        Ok(Op::new(semaphore, work))
    }

    /// Queues a connect operation in a full pool.
    fn enqueue(
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
        let mut timer =
            unsafe { Timer::new(on_queue_timeout, key.to_bits(), (*nginx_sys::ngx_cycle).log) };
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

    /// Takes a session out of a pool's queue.
    pub(super) fn leave_queue(&mut self, pool: PoolKey, place: Place) {
        if let Some(named) = self.pools.get_mut(pool) {
            named.pool.abandon(place);
        }
        self.drop_unused_pool(pool);
    }

    /// The `connect_timeout` of a queued operation expired.
    pub(super) fn on_queue_timeout(&mut self, key: SessionKey) {
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
        log_socket_error(
            request,
            format_args!(
                "lua tcp socket queued connect timed out, when trying to connect to {}:{port}",
                String::from_utf8_lossy(&host)
            ),
        );
    }

    /// A pool has room again: whoever waits longest gets it.
    pub(super) fn resume_waiting(&mut self, pool: PoolKey) {
        loop {
            let opens = |named: &NamedPool| named.pool.opens_next();
            if self.pools.get(pool).is_some_and(opens) && self.lacks_room() {
                return self.wait_for_room(Errand::Pool(pool));
            }
            let (links, sessions) = (&self.links, &self.sessions);
            let resumed = self.pools.get_mut(pool).and_then(|named| {
                let tls = named.tls;
                let target = named
                    .pool
                    .next_waiting()
                    .and_then(|waiter| sessions.get(*waiter));
                let (host, port) = target.map_or((&[][..], 0), Session::queued_for);
                named
                    .pool
                    .resume(|link| fitness(links, tls, *link, host, port))
            });
            let Some((waiter, admission)) = resumed else {
                break;
            };
            if self.resume_connect(waiter, pool, admission) {
                break;
            }
        }
        self.drop_unused_pool(pool);
    }

    /// Carries on a queued connect. False if it is over at once and the room
    /// is free again.
    fn resume_connect(
        &mut self,
        key: SessionKey,
        pool: PoolKey,
        admission: Admission<LinkKey>,
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
            self.links.remove(unfit);
        }
        let Some((host, port)) = queued.filter(|_| !abandoned) else {
            match admission {
                Admission::Reuse(link) => self.put_idle(pool, link, true),
                _ => self.release_only(pool),
            }
            return false;
        };
        let started = match admission {
            Admission::Reuse(link) => {
                self.take_idle(link, key);
                Ok(Opened::Connected)
            }
            Admission::Undecided => {
                self.postpone(key, pool, &host, port);
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

/// Whether an idle connection is what a connect to a host wants: a plain one
/// is, as far as it is known now; a TLS one to that host may turn out to be.
fn fitness(
    links: &SlotMap<LinkKey, Link>,
    tls: bool,
    link: LinkKey,
    host: &[u8],
    port: u16,
) -> Fitness {
    if !tls {
        return Fitness::Fits;
    }
    match links.get(link) {
        Some(link) if link.tls.is_none() => Fitness::Fits,
        Some(link) if link.is_tls_to(host, port) => Fitness::MayFit,
        _ => Fitness::Unfit,
    }
}

/// Whether there is memory for the copies of names of so many bytes. Usual ones are small.
fn has_room_for_names(bytes: usize) -> bool {
    /// Bytes of names that are worth no look.
    const SMALL: usize = 4 * 1024;
    /// The pool's name, the host, the name in messages and while it is looked up, and as much again.
    const COPIES: usize = 8;
    bytes <= SMALL
        || Vec::<u8>::new()
            .try_reserve_exact(bytes.saturating_mul(COPIES))
            .is_ok()
}
