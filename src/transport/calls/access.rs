//! Who may use a session, and by what it is connected.

use std::ptr::NonNull;

use nginx_sys::ngx_http_request_t;

use crate::transport::error::{Denied, Error};
use crate::transport::ids::{LinkKey, SessionKey, TrunkKey};
use crate::transport::state::session::{Session, State};
use crate::transport::worker::Worker;
use crate::upstream::{Admission, Fitness};

impl Worker {
    /// The trunk that a session is attached to, if it is.
    ///
    /// # Errors
    ///
    /// It belongs to another active request.
    #[inline(always)]
    pub fn attached(
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
    pub fn attached_or_not(
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

    /// The link of a connected session that `request` may use now. It may
    /// still be connecting, if it was postponed until now.
    ///
    /// # Errors
    ///
    /// Outer: it belongs to another active request. Inner: it is not
    /// connected.
    #[inline(always)]
    pub fn connected(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
    ) -> Result<Result<LinkKey, Error>, Denied> {
        match self.at_rest(key, request) {
            Some(State::Linked(link)) => Ok(Ok(*link)),
            _ => self.connected_or_not(key, request),
        }
    }

    #[inline(never)]
    pub fn connected_or_not(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
    ) -> Result<Result<LinkKey, Error>, Denied> {
        self.reap(key);
        let Some(session) = self.sessions.get(key) else {
            return Ok(Err(Error::Closed));
        };
        match session.state {
            State::Closed | State::Broken { .. } => Ok(Err(Error::Closed)),
            _ if session.request() != Some(request) => Err(Denied::BadRequest),
            // as with cosockets, there is no connection yet to be busy
            State::Resolving { .. } | State::Queued { .. } => Ok(Err(Error::Closed)),
            State::Joining(_) => Ok(Err(Error::BusyConnecting)),
            State::Attached { trunk, .. } => Ok(self.leave_trunk_for_link(key, trunk)),
            State::Postponed { .. } => match self.open_postponed(key) {
                Ok(()) => self.connected(key, request),
                Err(error) => Ok(Err(error)),
            },
            State::Linked(link) => Ok(Ok(link)),
        }
    }

    /// Gives an attached session a connection of its own, which may still have
    /// to be opened.
    pub fn leave_trunk_for_link(
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

    /// Whether `request` may connect this session: it belongs to no other
    /// active request.
    pub fn may_connect(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
    ) -> Result<(), Denied> {
        self.reap(key);
        match self.sessions.get(key).and_then(Session::request) {
            Some(owner) if owner != request => Err(Denied::BadRequest),
            _ => Ok(()),
        }
    }

    /// Opens the plain connection of a session that was postponed.
    pub fn open_postponed(&mut self, key: SessionKey) -> Result<(), Error> {
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
}
