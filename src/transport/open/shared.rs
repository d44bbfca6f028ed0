//! Opening a shared connection, and telling those who wait for one.

use std::ptr::NonNull;

use nginx_sys::{ngx_add_timer, ngx_cycle, ngx_http_request_t};

use crate::nginx::{self, Msec};
use crate::transport::error::Error;
use crate::transport::ids::{Asker, LinkKey, SessionKey, TrunkKey};
use crate::transport::link::Owner;
use crate::transport::link::address::{Address, Parsed};
use crate::transport::link::dial::{dial, settle, wants_nodelay};
use crate::transport::link::idle::set_log;
use crate::transport::link::resolve::{Answer, Resolution};
use crate::transport::link::sharing::Sharing;
use crate::transport::peer::Peer;
use crate::transport::state::op::{Opened, Outcome, Work};
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

/// How long no further connection is tried after one that failed, in
/// milliseconds.
pub const RETRY_DELAY: Msec = 1000;

impl Worker {
    /// Opens a further connection of a trunk on behalf of `request`.
    pub fn open_shared(
        &mut self,
        trunk_key: TrunkKey,
        request: NonNull<ngx_http_request_t>,
        timeout: Msec,
    ) -> Result<LinkKey, Error> {
        self.links.try_reserve(1).map_err(|_| Error::NoMemory)?;
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
            link.sharing = Some(Box::new(Sharing {
                opened: nginx::now(),
                ..Sharing::default()
            }));
        }
        if let Some(trunk) = self.trunks.get_mut(trunk_key) {
            trunk.links.push(key);
        }
        if !connecting {
            self.rest(key);
        }
        Ok(key)
    }

    /// Opens a further connection on behalf of a session.
    pub fn open_for(&mut self, trunk: TrunkKey, key: SessionKey) -> Result<LinkKey, Error> {
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let request = session.request().ok_or(Error::Closed)?;
        let timeout = session.connect_timeout();
        self.open_shared(trunk, request, timeout)
    }

    /// Attaches a session when there is a connection.
    #[cold]
    pub fn join(
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
            Parsed::Address(address) => match self.join_at(key, trunk, address, Msec::MAX)? {
                Opened::Connected => Ok(Opened::Connected),
                Opened::Pending => self.begin_joining(key),
            },
            Parsed::Name => {
                let asker = Asker::Session(key);
                // SAFETY: as above.
                let started = unsafe { Resolution::start(peer.host, asker, request) };
                let mut resolution = started?;
                if let Some(answer) = resolution.take_answer() {
                    return match self.join_at_answer(key, trunk, &answer?)? {
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

    /// Attaches a session to the trunk of a server at `address`, which holds
    /// for this time.
    pub fn join_at(
        &mut self,
        key: SessionKey,
        trunk: TrunkKey,
        address: Address,
        life: Msec,
    ) -> Result<Opened, Error> {
        if let Some(trunk) = self.trunks.get_mut(trunk) {
            trunk.address = Some(address);
            trunk.renew_after(life);
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

    /// Attaches a session to a trunk whose server's name was looked up.
    pub fn join_at_answer(
        &mut self,
        key: SessionKey,
        trunk_key: TrunkKey,
        answer: &Answer,
    ) -> Result<Opened, Error> {
        let trunk = self.trunks.get(trunk_key).ok_or(Error::Closed)?;
        let address = answer.address.with_port(trunk.name.port);
        self.join_at(key, trunk_key, address, answer.life)
    }

    /// Those who waited for a connection have one.
    pub fn admit_joining(&mut self, trunk_key: TrunkKey) {
        let joining = self.end_joining(trunk_key);
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
}
