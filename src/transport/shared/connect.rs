//! Sessions come and go, and connections are opened for them.

use std::ptr::NonNull;

use nginx_sys::{ngx_add_timer, ngx_connection_error, ngx_cycle, ngx_http_request_t};

use super::loss::RETRY_DELAY;
use super::{Sharing, Trunk, TrunkName};
use crate::conf::LocConf;
use crate::nginx::{self, Msec, stop_timer};
use crate::ngx_lua::Settings;
use crate::transport::Error;
use crate::transport::address::{Address, Parsed};
use crate::transport::connect::{Peer, PoolName};
use crate::transport::io::log_socket_error;
use crate::transport::keepalive::set_log;
use crate::transport::link::Owner;
use crate::transport::op::{Begun, Op, Outcome, Work};
use crate::transport::open::{Opened, dial, settle, socket_error, wants_nodelay};
use crate::transport::resolve::Resolution;
use crate::transport::session::State;
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
}

impl Worker {
    /// Connects a session by shared connections. `None`: not to this peer.
    pub(in crate::transport) fn connect_shared(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        peer: &Peer<'_>,
    ) -> Option<Result<Begun, Error>> {
        let trunk = self.find_trunk(peer, request);
        let found = self.trunks.get_mut(trunk)?;
        if found.tls {
            return None;
        }
        let connections = found.multiplex.connections;
        found.multiplex = peer.multiplex;
        // objects may ask for different numbers
        found.multiplex.connections = connections.max(peer.multiplex.connections);
        found.users += 1;
        let pool_name = found.name.pool.clone();
        let begun = self
            .enlist(key, request, pool_name)
            .and_then(|()| self.join(key, trunk, request, peer));
        if begun.is_err() {
            self.leave_trunk(trunk, key, None);
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.backlog = peer.backlog;
        }
        Some(begun)
    }

    fn find_trunk(&mut self, peer: &Peer<'_>, request: NonNull<ngx_http_request_t>) -> TrunkKey {
        // SAFETY: the request is the running one.
        let conf = unsafe { LocConf::of(request) };
        let max_value = conf.map_or(usize::MAX, LocConf::max_value_size);
        let last = self.trunks.get(self.last_trunk);
        if last.is_some_and(|trunk| trunk.is_for(peer, max_value)) {
            return self.last_trunk;
        }
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
                joining: Vec::new(),
                queue: Default::default(),
                users: 0,
                served: 0,
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

    /// Attaches a session, at once or when there is a connection.
    fn join(
        &mut self,
        key: SessionKey,
        trunk: TrunkKey,
        request: NonNull<ngx_http_request_t>,
        peer: &Peer<'_>,
    ) -> Result<Begun, Error> {
        let links = self.trunks.get(trunk).map_or(0, |trunk| trunk.links.len());
        let (standing, opening) = self.standing(trunk);
        if standing || links >= 2 * peer.multiplex.connections {
            self.attach(key, trunk);
            return Ok(Begun::Ready(Outcome::Connected));
        }
        if opening {
            self.wait_for_link(key, trunk);
            return self.begin_joining(key);
        }
        // SAFETY: the request is the running one.
        match unsafe { Address::parse(peer.host, peer.port, request)? } {
            Parsed::Address(address) => match self.join_at(key, trunk, address)? {
                Opened::Connected => Ok(Begun::Ready(Outcome::Connected)),
                Opened::Pending => self.begin_joining(key),
            },
            Parsed::Name => {
                // SAFETY: as above.
                let started = unsafe { Resolution::start(peer.host, key.to_bits(), request) };
                let mut resolution = started?;
                if let Some(answer) = resolution.take_answer() {
                    let address = answer?.with_port(peer.port);
                    return match self.join_at(key, trunk, address)? {
                        Opened::Connected => Ok(Begun::Ready(Outcome::Connected)),
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
                Ok(Begun::Waiting)
            }
        }
    }

    /// Whether a link stands that takes work, and whether one is being opened.
    fn standing(&self, trunk: TrunkKey) -> (bool, bool) {
        let links = self.trunks.get(trunk).map(|trunk| trunk.links.as_slice());
        let links = links.unwrap_or_default().iter();
        let (mut standing, mut opening) = (false, false);
        for link in links.filter_map(|link| self.links.get(*link)) {
            match link.is_connecting() {
                true => opening = true,
                false => standing |= !link.is_overdue(),
            }
        }
        (standing, opening)
    }

    /// Makes an operation of waiting for a connection.
    fn begin_joining(&mut self, key: SessionKey) -> Result<Begun, Error> {
        match self.new_op(Work::Connect) {
            Ok(op) => {
                let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
                session.reader = Some(op);
                self.limit_joining(key);
                Ok(Begun::Waiting)
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
        let due = nginx::now().saturating_add(timeout);
        let links = self.trunks.get(trunk).map(|trunk| trunk.links.as_slice());
        let links = links.unwrap_or_default().iter();
        let links = links.filter_map(|link| self.links.get(*link));
        for link in links.filter(|link| link.is_connecting()) {
            let c = link.connection.as_ptr();
            // SAFETY: the link's connection is open.
            unsafe {
                if (*(*c).write).timer.key < due {
                    stop_timer((*c).write);
                    ngx_add_timer((*c).write, timeout);
                }
            }
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
        let (standing, opening) = self.standing(trunk);
        if !standing && !opening {
            let session = self.sessions.get(key).ok_or(Error::Closed)?;
            let request = session.request().ok_or(Error::Closed)?;
            let timeout = session.connect_timeout();
            self.open_shared(trunk, request, timeout)?;
        }
        if self.standing(trunk).0 {
            self.attach(key, trunk);
            return Ok(Opened::Connected);
        }
        self.wait_for_link(key, trunk);
        Ok(Opened::Pending)
    }

    fn wait_for_link(&mut self, key: SessionKey, trunk_key: TrunkKey) {
        let (Some(trunk), Some(session)) =
            (self.trunks.get_mut(trunk_key), self.sessions.get_mut(key))
        else {
            return;
        };
        trunk.joining.push(key);
        session.state = State::Joining(trunk_key);
    }

    fn attach(&mut self, key: SessionKey, trunk_key: TrunkKey) {
        let (Some(trunk), Some(session)) =
            (self.trunks.get_mut(trunk_key), self.sessions.get_mut(key))
        else {
            return;
        };
        session.state = State::Attached {
            trunk: trunk_key,
            reused: trunk.served,
            flight: None,
        };
        trunk.served += 1;
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

    /// Opens a further connection of a trunk on behalf of `request`.
    pub(super) fn open_shared(
        &mut self,
        trunk_key: TrunkKey,
        request: NonNull<ngx_http_request_t>,
        timeout: Msec,
    ) -> Result<LinkKey, Error> {
        let trunk = self.trunks.get_mut(trunk_key).ok_or(Error::Closed)?;
        let mut address = trunk.address.ok_or(Error::Closed)?;
        let max_value = trunk.name.max_value;
        // SAFETY: the request is live.
        let (connection, connecting) = unsafe {
            trunk.nodelay = wants_nodelay(request);
            dial(&mut address, request).inspect_err(|_| {
                trunk.retry_at = nginx::now().saturating_add(RETRY_DELAY);
            })?
        };
        let nodelay = trunk.nodelay;
        let owner = Owner::Trunk {
            trunk: trunk_key,
            connecting,
        };
        let (key, c) = self.new_link(connection, address, owner, None, max_value);
        // SAFETY: the link's connection is open; the cycle's log outlives it.
        let settled = unsafe {
            set_log(c, (*ngx_cycle).log);
            // a worker that exits does not wait for what nobody waits for
            (*(*c).read).set_cancelable(1);
            (*(*c).write).set_cancelable(1);
            if connecting {
                ngx_add_timer((*c).write, timeout);
                Ok(())
            } else {
                settle(c, nodelay)
            }
        };
        if let Err(error) = settled {
            self.links.remove(key);
            return Err(error);
        }
        if let Some(link) = self.links.get_mut(key) {
            link.sharing = Some(Box::new(Sharing::default()));
        }
        if let Some(trunk) = self.trunks.get_mut(trunk_key) {
            trunk.links.push(key);
        }
        if !connecting {
            self.rest(key);
        }
        Ok(key)
    }

    /// A shared connection stands, or could not be opened.
    pub(in crate::transport) fn on_trunk_connected(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Owner::Trunk { trunk, .. } = link.owner else {
            return;
        };
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open.
        if unsafe { (*(*c).read).timedout() } != 0 {
            // the time of a command that was given to it: it says nothing
            // SAFETY: as above.
            unsafe { (*(*c).read).set_timedout(0) };
            return self.arm_inspection(key, RETRY_DELAY);
        }
        let nodelay = self.trunks.get(trunk).is_some_and(|trunk| trunk.nodelay);
        // SAFETY: the link's connection is open.
        let result = unsafe {
            if (*(*c).write).timedout() != 0 {
                Err(Error::Timeout)
            } else if (*c).close() != 0 {
                // the worker exits, and nobody uses it yet
                Err(Error::Closed)
            } else {
                stop_timer((*c).write);
                match socket_error(c) {
                    0 => settle(c, nodelay),
                    errno => Err(Error::from_errno(errno)),
                }
            }
        };
        match result {
            Ok(()) => {
                link.owner = Owner::Trunk {
                    trunk,
                    connecting: false,
                };
                self.admit_joining(trunk);
                self.rest(key);
                self.flush_shared(key);
                self.serve_queue(trunk);
            }
            Err(error) => {
                self.refuse_joining(trunk, key, &error);
                self.fail_shared(key, error);
            }
        }
    }

    /// Those who waited for a connection have one.
    fn admit_joining(&mut self, trunk_key: TrunkKey) {
        let trunk = self.trunks.get_mut(trunk_key);
        let joining = trunk.map(|trunk| std::mem::take(&mut trunk.joining));
        let joining = joining.unwrap_or_default();
        let many = joining.len() as u64;
        for key in joining {
            self.attach(key, trunk_key);
            if let Some(trunk) = self.trunks.get_mut(trunk_key) {
                // the connection is as new to each of them
                trunk.served -= 1;
            }
            self.finish_reader(key, Outcome::Connected);
        }
        if let Some(trunk) = self.trunks.get_mut(trunk_key) {
            trunk.served += many;
        }
    }

    /// Those who waited for a connection do not get one.
    fn refuse_joining(&mut self, trunk_key: TrunkKey, link: LinkKey, error: &Error) {
        let trunk = self.trunks.get_mut(trunk_key);
        let joining = trunk.map(|trunk| std::mem::take(&mut trunk.joining));
        let Some(link) = self.links.get_mut(link) else {
            return;
        };
        let c = link.connection.as_ptr();
        let peer = link.address.text_and_port();
        let joining = joining.unwrap_or_default();
        if let (Error::Os(errno), true) = (error, joining.is_empty()) {
            // nobody is told the reason
            // SAFETY: the link's connection is open.
            unsafe {
                ngx_connection_error(c, *errno, c"connect() failed".as_ptr().cast_mut().cast());
            }
        }
        for key in joining {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            session.state = State::Closed;
            if let Some(request) = session.request() {
                // SAFETY: the link's connection is open, the request live; the
                // log is lent for one line.
                unsafe { log_refusal(c, request, error, &peer) };
            }
            self.finish_reader(key, Outcome::Failed(error.clone()));
            self.leave_trunk(trunk_key, key, None);
        }
    }
}

/// Logs on behalf of a request that a connection could not be opened.
///
/// # Safety
///
/// `c` is open and `request` live.
unsafe fn log_refusal(
    c: *mut nginx_sys::ngx_connection_t,
    request: NonNull<ngx_http_request_t>,
    error: &Error,
    peer: &str,
) {
    match error {
        Error::Timeout => log_timeout(Some(request), peer),
        Error::Os(errno) => {
            // SAFETY: by this function's contract; the log is put back.
            unsafe {
                if !Settings::of(request).is_some_and(|s| s.log_errors()) {
                    return;
                }
                let log = (*c).log;
                (*c).log = (*(*request.as_ptr()).connection).log;
                ngx_connection_error(c, *errno, c"connect() failed".as_ptr().cast_mut().cast());
                (*c).log = log;
            }
        }
        _ => {}
    }
}

/// Logs on behalf of a request that it waited too long for a connection.
pub(super) fn log_timeout(request: Option<NonNull<ngx_http_request_t>>, peer: &str) {
    log_socket_error(
        request,
        format_args!("lua tcp socket connect timed out, when connecting to {peer}"),
    );
}
