//! Who may use a session, and whether somebody does: whose it is, how it is
//! connected, what its coroutines are about.

use std::ptr::NonNull;

use nginx_sys::ngx_http_request_t;

use super::Error;
use super::session::{Session, State};
use super::worker::{LinkKey, SessionKey, Worker};

/// Use by another active request than the object's own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// Raised in Lua.
    #[error("bad request")]
    BadRequest,
}

impl Worker {
    /// The state of a session of `request` that nobody waits for: mostly this is
    /// all that there is to look at.
    #[inline(always)]
    pub(super) fn at_rest(
        &self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
    ) -> Option<&State> {
        let session = self.sessions.get(key)?;
        (session.request() == Some(request) && !session.has_ops()).then_some(&session.state)
    }

    /// The link of a connected session that `request` may use now. It may
    /// still be connecting, if it was postponed until now.
    ///
    /// # Errors
    ///
    /// Outer: it belongs to another active request. Inner: it is not
    /// connected.
    #[inline(always)]
    pub(super) fn connected(
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
    fn connected_or_not(
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

    /// Whether `request` uses a session whose connection is postponed.
    pub(super) fn is_postponed(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
    ) -> bool {
        let session = self.sessions.get(key);
        session.is_some_and(|session| {
            matches!(session.state, State::Postponed { .. }) && session.request() == Some(request)
        })
    }

    /// Whether `request` may connect this session: it belongs to no other
    /// active request.
    pub(super) fn may_connect(
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

    /// What another coroutine is doing with the session, if anything.
    #[inline(always)]
    pub(super) fn check_idle(&self, key: SessionKey) -> Result<(), Error> {
        match self.sessions.get(key) {
            // one that connects waits for it
            Some(session) if session.has_ops() => self.check_ops(key),
            _ => Ok(()),
        }
    }

    fn check_ops(&self, key: SessionKey) -> Result<(), Error> {
        let Some(session) = self.sessions.get(key) else {
            return Ok(());
        };
        if let State::Queued { .. } | State::Resolving { .. } | State::Joining(_) = session.state {
            return Err(Error::BusyConnecting);
        }
        self.check_reader(key)?;
        match session.writer {
            Some(_) => Err(Error::BusyWriting),
            None => Ok(()),
        }
    }

    /// As [`Self::check_idle`], for what only needs to read.
    pub(super) fn check_reader(&self, key: SessionKey) -> Result<(), Error> {
        let Some(session) = self.sessions.get(key) else {
            return Ok(());
        };
        let Some(op) = &session.reader else {
            return Ok(());
        };
        if op.is_connect() {
            return Err(Error::BusyConnecting);
        }
        let unsent = match session.state {
            State::Attached {
                flight: Some(flight),
                ..
            } => self.is_held_up(flight),
            _ => session
                .link()
                .and_then(|link| self.links.get(link))
                .is_some_and(|link| !link.pipeline.unsent().is_empty()),
        };
        Err(if unsent {
            Error::BusyWriting
        } else {
            Error::BusyReading
        })
    }
}
