//! The end of a session's use of shared connections.

use std::ptr::NonNull;

use nginx_sys::ngx_http_request_t;

use super::{Flight, Trunk};
use crate::fault;
use crate::nginx::Msec;
use crate::ngx_lua::Settings;
use crate::transport::Error;
use crate::transport::access::Denied;
use crate::transport::keepalive::KeepaliveError;
use crate::transport::session::State;
use crate::transport::worker::{LinkKey, PoolKey, SessionKey, TrunkKey, Worker};
use crate::upstream::{Admission, Fitness};

/// How many trunks there may be for those without connections to stay.
const MAX_LEARNED: usize = 1024;

impl Worker {
    /// The trunk that a session is attached to, if it is.
    ///
    /// # Errors
    ///
    /// It belongs to another active request.
    #[inline(always)]
    pub(in crate::transport) fn attached(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
    ) -> Result<Option<TrunkKey>, Denied> {
        match self.at_rest(key, request) {
            Some(&State::Attached { trunk, .. }) => Ok(Some(trunk)),
            Some(_) => Ok(None),
            None => self.attached_or_not(key, request),
        }
    }

    #[inline(never)]
    fn attached_or_not(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
    ) -> Result<Option<TrunkKey>, Denied> {
        self.reap(key);
        match self.sessions.get(key) {
            Some(session) => match session.state {
                State::Attached { .. } if session.request() != Some(request) => {
                    Err(Denied::BadRequest)
                }
                State::Attached { trunk, .. } => Ok(Some(trunk)),
                _ => Ok(None),
            },
            None => Ok(None),
        }
    }

    /// A session ends its use of a trunk; its state was changed already.
    pub(in crate::transport) fn leave_trunk(
        &mut self,
        trunk_key: TrunkKey,
        key: SessionKey,
        flight: Option<Flight>,
    ) {
        if let Some(session) = self.sessions.get_mut(key) {
            // what is under way is nobody's any more
            session.serial += 1;
        }
        self.stop_waiting(key, trunk_key);
        if let Some(trunk) = self.trunks.get_mut(trunk_key) {
            trunk.users = trunk.users.saturating_sub(1);
        }
        if let Some(flight) = flight {
            self.forsake(flight);
            fault::point();
            self.orphaned(flight, key);
        }
        self.drop_unused_trunk(trunk_key);
    }

    /// Retires an attached session that is at rest.
    #[inline(always)]
    fn detach(&mut self, key: SessionKey, trunk_key: TrunkKey) -> Option<usize> {
        if let Some(session) = self.sessions.get(key)
            && let State::Attached { flight: None, .. } = session.state
            && session.deadline.is_none()
            && let Some(trunk) = self.trunks.get_mut(trunk_key)
            && !trunk.links.is_empty()
        {
            // nothing is under way, and nobody waits for its place
            trunk.users = trunk.users.saturating_sub(1);
            return self.forget(key);
        }
        self.close_and_retire(key)
    }

    /// A trunk that nobody uses goes.
    pub(super) fn drop_unused_trunk(&mut self, key: TrunkKey) {
        // what was learned of servers is kept, but not of any number of them
        let learned = self.trunks.len() <= MAX_LEARNED;
        let unused =
            |trunk: &Trunk| trunk.users == 0 && trunk.links.is_empty() && !(trunk.tls && learned);
        if self.trunks.get(key).is_some_and(unused)
            && let Some(trunk) = self.trunks.remove(key)
        {
            self.trunk_names.remove(&trunk.name);
        }
    }

    /// `setkeepalive` of an attached session that is at rest, see
    /// [`Worker::set_keepalive`].
    #[inline(always)]
    pub(in crate::transport) fn keep_shared(
        &mut self,
        key: SessionKey,
        trunk_key: TrunkKey,
        request: NonNull<ngx_http_request_t>,
        timeout: Option<Msec>,
        pool_size: Option<i64>,
    ) -> Result<Option<usize>, KeepaliveError> {
        if let Some(trunk) = self.trunks.get_mut(trunk_key) {
            if let Some(size) = pool_size.filter(|size| *size <= 0 && !trunk.kept) {
                return Err(KeepaliveError::BadPoolSize(size));
            }
            trunk.kept = true;
            trunk.plain = true;
            // SAFETY: the request is the running one.
            let settings = || unsafe { Settings::of(request) };
            let usual = || settings().map_or(0, |settings| settings.keepalive_timeout());
            let now = timeout.unwrap_or_else(usual);
            let before = std::mem::replace(&mut trunk.keepalive, now);
            if now != 0 && (now < before || before == 0) {
                self.rest_all(trunk_key);
            }
        }
        fault::point();
        Ok(self.detach(key, trunk_key))
    }

    /// Lets links that are idle already go sooner.
    #[cold]
    fn rest_all(&mut self, trunk: TrunkKey) {
        let links = self.trunks.get(trunk).map(|trunk| trunk.links.clone());
        for link in links.unwrap_or_default() {
            self.rest(link);
        }
    }

    /// Gives an attached session a connection of its own, which may still have
    /// to be opened.
    pub(in crate::transport) fn leave_trunk_for_link(
        &mut self,
        key: SessionKey,
        trunk: TrunkKey,
    ) -> Result<LinkKey, Error> {
        self.check_idle(key)?;
        let trunk = self.trunks.get_mut(trunk).ok_or(Error::Closed)?;
        trunk.plain = true;
        let address = trunk.address.ok_or(Error::Closed)?;
        self.disconnect(key, State::Closed);
        let pool = self.private_pool(key);
        let links = &self.links;
        let named = pool.and_then(|pool| self.pools.get_mut(pool));
        let admission = named.map(|named| {
            named.pool.admit(|link| match links.get(*link) {
                Some(link) if link.tls.is_none() => Fitness::Fits,
                _ => Fitness::Unfit,
            })
        });
        match admission {
            Some(Admission::Reuse(link)) => {
                self.take_idle(link, key);
                return Ok(link);
            }
            Some(Admission::Wait) => {
                self.release_counted(pool);
                return Err(Error::TooManyWaiting);
            }
            Some(Admission::Refuse) => return Err(Error::TooManyWaiting),
            Some(Admission::Replace(unfit)) => drop(self.links.remove(unfit)),
            Some(Admission::Connect | Admission::Undecided) | None => {}
        }
        let opened = self.open_address(key, address, pool);
        if opened.is_err() {
            self.release_counted(pool);
        }
        opened?;
        let session = self.sessions.get(key).and_then(|session| session.link());
        session.ok_or(Error::Closed)
    }

    /// Detaches a session for a TLS handshake, which is done on a connection of
    /// its own; so are those that will follow. The pool that counts it.
    pub(in crate::transport) fn leave_trunk_for_tls(
        &mut self,
        key: SessionKey,
        trunk: TrunkKey,
    ) -> Result<Option<PoolKey>, Error> {
        if let Some(trunk) = self.trunks.get_mut(trunk) {
            trunk.tls = true;
        }
        self.disconnect(key, State::Closed);
        let pool = self.private_pool(key);
        let named = pool.and_then(|pool| self.pools.get_mut(pool));
        match named.map(|named| named.pool.admit(|_| Fitness::Unfit)) {
            Some(Admission::Wait) => {
                self.release_counted(pool);
                Err(Error::TooManyWaiting)
            }
            Some(Admission::Refuse) => Err(Error::TooManyWaiting),
            Some(Admission::Replace(unfit)) => {
                self.links.remove(unfit);
                Ok(pool)
            }
            _ => Ok(pool),
        }
    }

    /// The pool of a session's connections of its own, if there is one.
    pub(in crate::transport) fn private_pool(&self, key: SessionKey) -> Option<PoolKey> {
        let name = self.sessions.get(key)?.pool_name.as_ref()?;
        self.pool_names.get(name).copied()
    }

    fn release_counted(&mut self, pool: Option<PoolKey>) {
        if let Some(pool) = pool {
            self.release(pool);
        }
    }
}
