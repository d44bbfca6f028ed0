//! Sessions are attached to shared connections.

use std::ptr::NonNull;

use nginx_sys::{ngx_add_timer, ngx_http_request_t};
use slotmap::SlotMap;

use super::{Trunk, TrunkName, Waits};
use crate::conf::LocConf;
use crate::nginx::{self, Msec, stop_timer};
use crate::ngx_lua::Settings;
use crate::transport::Error;
use crate::transport::address::{Address, Parsed};
use crate::transport::connect::{Peer, PoolName};
use crate::transport::link::Link;
use crate::transport::op::{Op, Outcome, Work};
use crate::transport::open::Opened;
use crate::transport::resolve::Resolution;
use crate::transport::session::{Session, State};
use crate::transport::worker::{LinkKey, SessionKey, TrunkKey, Worker};

impl Trunk {
    fn is_for(&self, peer: &Peer<'_>, max_value: usize) -> bool {
        let named = match peer.pool {
            PoolName::Given(name) => *self.name.pool == *name,
            PoolName::Usual { with_port } => self.usual == Some(with_port),
        };
        named
            && *self.name.host == *peer.host
            && self.name.port == peer.port
            && self.name.max_value == max_value
    }

    /// Whether a link stands that takes work.
    fn is_standing(&self, links: &SlotMap<LinkKey, Link>) -> bool {
        let mut links = self.links.iter().filter_map(|link| links.get(*link));
        links.any(|link| !link.is_connecting() && link.takes_work())
    }

    /// Whether sessions are attached at once: so that they can be served, or as
    /// there are too many links for another.
    fn takes(&self, links: &SlotMap<LinkKey, Link>, connections: usize) -> bool {
        self.is_standing(links) || self.links.len() >= 2 * connections
    }

    fn attach(&mut self, key: TrunkKey, session: &mut Session) {
        session.enter(State::Attached {
            trunk: key,
            reused: if self.plain { self.served } else { 0 },
            flight: None,
        });
        self.served += 1;
    }
}

impl Link {
    /// One who has this timeout waits for the connection to stand, if it does
    /// not yet.
    pub(super) fn give_time_to_connect(&self, timeout: Msec) {
        if !self.is_connecting() {
            return;
        }
        let due = nginx::now().saturating_add(timeout);
        let c = self.connection.as_ptr();
        // SAFETY: the link's connection is open.
        unsafe {
            if (*(*c).write).timer.key < due {
                stop_timer((*c).write);
                ngx_add_timer((*c).write, timeout);
            }
        }
    }
}

impl Worker {
    /// Connects a session by shared connections. `None`: not to this peer.
    pub(in crate::transport) fn connect_shared(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        peer: &Peer<'_>,
    ) -> Option<Result<Opened, Error>> {
        let trunk_key = self.find_trunk(peer, request);
        let trunk = self.trunks.get_mut(trunk_key)?;
        if trunk.tls {
            return None;
        }
        let Some(session) = self.sessions.get_mut(key) else {
            return Some(Err(Error::Closed));
        };
        let connections = trunk.multiplex.connections;
        trunk.multiplex = peer.multiplex;
        // objects may ask for different numbers
        trunk.multiplex.connections = connections.max(peer.multiplex.connections);
        trunk.users += 1;
        session.backlog = peer.backlog;
        let enlisted = session.enlist(key, request, trunk.name.pool.clone());
        let joined = match enlisted {
            Ok(()) if trunk.takes(&self.links, peer.multiplex.connections) => {
                trunk.attach(trunk_key, session);
                Ok(Opened::Connected)
            }
            Ok(()) => self.join(key, trunk_key, request, peer),
            Err(error) => Err(error),
        };
        if joined.is_err() {
            self.leave_trunk(trunk_key, key, None);
        }
        Some(joined)
    }

    #[inline(always)]
    fn find_trunk(&mut self, peer: &Peer<'_>, request: NonNull<ngx_http_request_t>) -> TrunkKey {
        // SAFETY: the request is the running one.
        let conf = unsafe { LocConf::of(request) };
        let max_value = conf.map_or(usize::MAX, LocConf::max_value_size);
        let last = self.trunks.get(self.last_trunk);
        if last.is_some_and(|trunk| trunk.is_for(peer, max_value)) {
            return self.last_trunk;
        }
        self.find_trunk_named(peer, request, max_value)
    }

    /// The trunk that a session will be attached to, if there is one.
    pub(in crate::transport) fn known_trunk(
        &self,
        peer: &Peer<'_>,
        request: NonNull<ngx_http_request_t>,
    ) -> Option<TrunkKey> {
        // SAFETY: the request is the running one.
        let conf = unsafe { LocConf::of(request) };
        let name = TrunkName {
            pool: peer.pool_name().into(),
            host: peer.host.into(),
            port: peer.port,
            max_value: conf.map_or(usize::MAX, LocConf::max_value_size),
        };
        self.trunk_names.get(&name).copied()
    }

    /// Whether a trunk's server is spoken to by TLS.
    pub(in crate::transport) fn uses_tls(&self, trunk: TrunkKey) -> bool {
        self.trunks.get(trunk).is_some_and(|trunk| trunk.tls)
    }

    /// Whether a link stands that takes work, or is being opened.
    pub(in crate::transport) fn has_link(&self, trunk: TrunkKey) -> bool {
        self.is_standing(trunk) || self.is_opening(trunk)
    }

    #[inline(never)]
    fn find_trunk_named(
        &mut self,
        peer: &Peer<'_>,
        request: NonNull<ngx_http_request_t>,
        max_value: usize,
    ) -> TrunkKey {
        let name = TrunkName {
            pool: peer.pool_name().into(),
            host: peer.host.into(),
            port: peer.port,
            max_value,
        };
        let found = self.trunk_names.get(&name).copied();
        let trunk = found.unwrap_or_else(|| {
            // SAFETY: as above.
            let settings = unsafe { Settings::of(request) };
            let trunk = self.trunks.insert(Trunk {
                name: name.clone(),
                usual: None,
                address: None,
                links: Vec::new(),
                turn: 0,
                current: None,
                joining: Default::default(),
                queue: Default::default(),
                users: 0,
                served: 0,
                plain: false,
                multiplex: peer.multiplex,
                nodelay: false,
                keepalive: settings.map_or(0, |settings| settings.keepalive_timeout()),
                kept: false,
                retry_at: 0,
                tls: false,
                loads: Vec::new(),
            });
            self.trunk_names.insert(name, trunk);
            trunk
        });
        if let PoolName::Usual { with_port } = peer.pool
            && let Some(trunk) = self.trunks.get_mut(trunk)
        {
            trunk.usual = Some(with_port);
        }
        self.last_trunk = trunk;
        trunk
    }

    /// Attaches a session when there is a connection.
    #[cold]
    fn join(
        &mut self,
        key: SessionKey,
        trunk: TrunkKey,
        request: NonNull<ngx_http_request_t>,
        peer: &Peer<'_>,
    ) -> Result<Opened, Error> {
        if self.is_opening(trunk) {
            self.wait_for_link(key, trunk)?;
            return self.begin_joining(key);
        }
        // SAFETY: the request is the running one.
        match unsafe { Address::parse(peer.host, peer.port, request)? } {
            Parsed::Address(address) => match self.join_at(key, trunk, address)? {
                Opened::Connected => Ok(Opened::Connected),
                Opened::Pending => self.begin_joining(key),
            },
            Parsed::Name => {
                // SAFETY: as above.
                let started = unsafe { Resolution::start(peer.host, key.to_bits(), request) };
                let mut resolution = started?;
                if let Some(answer) = resolution.take_answer() {
                    let address = answer?.with_port(peer.port);
                    return match self.join_at(key, trunk, address)? {
                        Opened::Connected => Ok(Opened::Connected),
                        Opened::Pending => self.begin_joining(key),
                    };
                }
                let op = self.new_op(Work::Connect)?;
                let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
                session.reader = Some(op);
                session.state = State::Resolving {
                    resolution,
                    port: peer.port,
                    pool: None,
                    handshake: None,
                    trunk: Some(trunk),
                };
                Ok(Opened::Pending)
            }
        }
    }

    fn trunk_links(&self, trunk: TrunkKey) -> impl Iterator<Item = &Link> {
        let links = self.trunks.get(trunk).map(|trunk| trunk.links.as_slice());
        let links = links.unwrap_or_default().iter();
        links.filter_map(|link| self.links.get(*link))
    }

    /// Whether a link stands that takes work.
    pub(super) fn is_standing(&self, trunk: TrunkKey) -> bool {
        let trunk = self.trunks.get(trunk);
        trunk.is_some_and(|trunk| trunk.is_standing(&self.links))
    }

    /// Whether a link is being opened.
    fn is_opening(&self, trunk: TrunkKey) -> bool {
        self.trunk_links(trunk).any(Link::is_connecting)
    }

    /// Makes an operation of waiting for a connection.
    fn begin_joining(&mut self, key: SessionKey) -> Result<Opened, Error> {
        match self.new_op(Work::Connect) {
            Ok(op) => {
                let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
                session.reader = Some(op);
                self.limit_joining(key);
                Ok(Opened::Pending)
            }
            Err(error) => {
                if let Some(session) = self.sessions.get_mut(key) {
                    session.state = State::Closed;
                }
                Err(error)
            }
        }
    }

    /// Limits the time that a session waits for a connection; the connection
    /// is given as long as the one that waits longest.
    fn limit_joining(&mut self, key: SessionKey) {
        let Some(session) = self.sessions.get(key) else {
            return;
        };
        let State::Joining(trunk) = session.state else {
            return;
        };
        let timeout = session.connect_timeout();
        for link in self.trunk_links(trunk) {
            link.give_time_to_connect(timeout);
        }
        self.set_deadline(key, timeout);
    }

    /// Attaches a session to the trunk of a server at `address`.
    fn join_at(
        &mut self,
        key: SessionKey,
        trunk: TrunkKey,
        address: Address,
    ) -> Result<Opened, Error> {
        if let Some(trunk) = self.trunks.get_mut(trunk) {
            trunk.address = Some(address);
        }
        if !self.has_link(trunk) {
            let session = self.sessions.get(key).ok_or(Error::Closed)?;
            let request = session.request().ok_or(Error::Closed)?;
            let timeout = session.connect_timeout();
            self.open_shared(trunk, request, timeout)?;
        }
        if self.is_standing(trunk) {
            self.attach(key, trunk);
            return Ok(Opened::Connected);
        }
        self.wait_for_link(key, trunk)?;
        Ok(Opened::Pending)
    }

    fn wait_for_link(&mut self, key: SessionKey, trunk_key: TrunkKey) -> Result<(), Error> {
        let trunk = self.trunks.get_mut(trunk_key).ok_or(Error::Closed)?;
        let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
        let place = trunk.joining.try_push_back(key).ok_or(Error::NoMemory)?;
        session.waits = Some(Waits::Joining(place));
        session.state = State::Joining(trunk_key);
        Ok(())
    }

    pub(super) fn attach(&mut self, key: SessionKey, trunk_key: TrunkKey) {
        let (Some(trunk), Some(session)) =
            (self.trunks.get_mut(trunk_key), self.sessions.get_mut(key))
        else {
            return;
        };
        trunk.attach(trunk_key, session);
    }

    /// The name of a trunk's server was looked up for a session, or could not
    /// be.
    pub(in crate::transport) fn on_trunk_resolved(
        &mut self,
        key: SessionKey,
        trunk: TrunkKey,
        mut resolution: Box<Resolution>,
        port: u16,
    ) {
        let answer = resolution.take_answer().unwrap_or(Err(Error::Unknown));
        drop(resolution);
        let session = self.sessions.get(key);
        let waits = session.and_then(|session| session.reader.as_ref());
        let joined = match answer {
            Ok(_) if waits.is_none_or(Op::is_abandoned) => Err(Error::Closed),
            Ok(address) => self.join_at(key, trunk, address.with_port(port)),
            Err(error) => Err(error),
        };
        let outcome = match joined {
            Ok(Opened::Pending) => {
                return self.limit_joining(key);
            }
            Ok(Opened::Connected) => Outcome::Connected,
            Err(error) => {
                self.leave_trunk(trunk, key, None);
                Outcome::Failed(error)
            }
        };
        if let Some(op) = self.sessions.get_mut(key).and_then(|s| s.reader.as_mut()) {
            op.finish(outcome);
        }
    }
}
