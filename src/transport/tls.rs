//! `sslhandshake`: which connection it is done on, and waiting for it.

use std::ptr::{self, NonNull};
use std::rc::Rc;

use nginx_sys::{
    NGX_AGAIN, SSL_SESSION, SSL_SESSION_free, ngx_add_timer, ngx_connection_t, ngx_http_request_t,
    ngx_int_t, ngx_ssl_get_session, ngx_ssl_handshake, ngx_ssl_t,
};

use super::Error;
use super::access::Denied;
use super::events::on_connection_event;
use super::handshake::{Handshake, Pending, TlsSession, failed, is_bad_name, prepare, verify};
use super::link::Owner;
use super::op::{Begun, Op, Outcome, Work};
use super::open::Opened;
use super::session::State;
use super::worker::{LinkKey, PoolKey, SessionKey, Worker, with};
use crate::conf::{Context, LocConf};
use crate::nginx::stop_timer;

impl Worker {
    /// `sslhandshake`. The outcome is `Handshaken`, or `Connected` if nothing
    /// had to be done. The identity of a connection taken from a pool is
    /// checked; one that was not made as asked for now is replaced by a new
    /// one.
    ///
    /// # Errors
    ///
    /// As with [`Worker::submit`].
    pub fn handshake(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        handshake: Handshake,
    ) -> Result<Result<Begun, Error>, Denied> {
        if !self.is_postponed(key, request)
            && self.attached(key, request)?.is_none()
            && let Err(error) = self.connected(key, request)?
        {
            return Ok(Err(error));
        }
        Ok(self.start_handshake(key, request, handshake))
    }

    fn start_handshake(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        handshake: Handshake,
    ) -> Result<Begun, Error> {
        self.check_idle(key)?;
        // SAFETY: the request is the running one.
        let conf = unsafe { LocConf::of(request) };
        let context = match conf.map_or(Context::None, LocConf::ssl) {
            Context::Made(context) => context,
            Context::Unusable => return Err(Error::NoContext),
            Context::None => return Err(Error::NoTls),
        };
        if handshake.server_name.as_deref().is_some_and(is_bad_name) {
            return Err(failed("SSL_set_tlsext_host_name failed"));
        }
        let tls = Rc::new(handshake.identity(context)?);
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let (link, pool) = match session.state {
            State::Attached { trunk, .. } => (None, self.leave_trunk_for_tls(key, trunk)?),
            State::Postponed { pool, .. } => (None, Some(pool)),
            State::Linked(link) => (Some(link), self.links.get(link).and_then(|l| l.pool)),
            _ => return Err(Error::Closed),
        };
        if let Some(link_key) = link
            && let Some(link) = self.links.get_mut(link_key)
        {
            match &link.tls {
                _ if link.quitting => return Err(Error::Closed),
                // nothing to do
                Some(known) if *known == tls => return Ok(Begun::Ready(Outcome::Connected)),
                None if link.reused == 0 => {
                    if !link.pipeline.is_quiet() {
                        return Err(Error::Unsolicited);
                    }
                    link.handshake = Some((handshake, tls));
                    let done = self.run_handshake(link_key);
                    return self.begin_handshake(key, done);
                }
                _ => {}
            }
        }
        // one out of the pool that was made like that, or a new one, in the
        // place that is counted for what there is now
        if let Some(link) = link
            && !self.put_back(link, request)
        {
            self.links.remove(link);
        }
        let links = &self.links;
        let alike = |link: &LinkKey| {
            links
                .get(*link)
                .is_some_and(|l| l.tls.as_ref() == Some(&tls))
        };
        let named = pool.and_then(|pool| self.pools.get_mut(pool));
        let idle = named.and_then(|named| named.pool.take(alike));
        if idle.is_none()
            && let Some(pool) = pool
        {
            self.claim(pool);
        }
        if let Some(session) = self.sessions.get_mut(key) {
            session.state = State::Closed;
        }
        if let Some(idle) = idle {
            self.take_idle(idle, key);
            return Ok(Begun::Ready(Outcome::Connected));
        }
        let done = self.open_for_handshake(key, (handshake, tls), pool);
        if done.is_err()
            && let Some(pool) = pool
        {
            self.release(pool);
            return done.map(|_| Begun::Waiting);
        }
        match done {
            Ok(Opened::Pending) => self.begin_handshake(key, Ok(false)),
            Ok(Opened::Connected) => {
                let link = self.sessions.get(key).and_then(|session| session.link());
                let done = link.map_or(Err(Error::Closed), |link| self.run_handshake(link));
                self.begin_handshake(key, done)
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a connection and notes what handshake it is to do.
    fn open_for_handshake(
        &mut self,
        key: SessionKey,
        pending: Pending,
        pool: Option<PoolKey>,
    ) -> Result<Opened, Error> {
        let host = pending.0.host.clone();
        let opened = self.open(key, &host, pending.0.port, pool)?;
        match self.sessions.get_mut(key).map(|session| &mut session.state) {
            Some(State::Resolving { handshake, .. }) => *handshake = Some(Box::new(pending)),
            Some(State::Linked(link)) => {
                if let Some(link) = self.links.get_mut(*link) {
                    link.handshake = Some(pending);
                }
            }
            _ => {}
        }
        Ok(opened)
    }

    /// Makes an operation of a handshake that is under way.
    fn begin_handshake(
        &mut self,
        key: SessionKey,
        done: Result<bool, Error>,
    ) -> Result<Begun, Error> {
        match done {
            Ok(true) => Ok(Begun::Ready(Outcome::Handshaken)),
            Err(error) => {
                self.disconnect(key, State::Closed);
                Err(error)
            }
            Ok(false) => {
                let op = self.new_op(Work::Connect);
                let op = op.inspect_err(|_| self.disconnect(key, State::Closed))?;
                let session = self.sessions.get_mut(key).ok_or(Error::Closed)?;
                session.reader = Some(op);
                Ok(Begun::Waiting)
            }
        }
    }

    /// Starts the handshake a link is to do. Whether it is done already; on
    /// failure the link is of no use any more.
    pub(super) fn run_handshake(&mut self, key: LinkKey) -> Result<bool, Error> {
        let link = self.links.get_mut(key).ok_or(Error::Closed)?;
        let Owner::Session {
            session,
            connecting: false,
        } = link.owner
        else {
            return Err(Error::Closed);
        };
        let (handshake, identity) = link.handshake.clone().ok_or(Error::Closed)?;
        let c = link.connection.as_ptr();
        let timeout = self.sessions.get(session).map(|s| s.connect_timeout());
        // SAFETY: the link's connection is open; the context belongs to the
        // configuration;
        unsafe {
            prepare(c, &handshake, identity.context as *mut ngx_ssl_t)?;
            let rc = ngx_ssl_handshake(c);
            if rc == NGX_AGAIN as ngx_int_t {
                stop_timer((*c).write);
                // that of an earlier operation
                stop_timer((*c).read);
                ngx_add_timer((*c).read, timeout.unwrap_or_default());
                (*(*c).ssl).handler = Some(on_handshake);
                return Ok(false);
            }
        }
        self.end_handshake(key).map(|()| true)
    }

    /// Judges a handshake that has come to an end.
    fn end_handshake(&mut self, key: LinkKey) -> Result<(), Error> {
        let link = self.links.get_mut(key).ok_or(Error::Closed)?;
        let Owner::Session { session, .. } = link.owner else {
            return Err(Error::Closed);
        };
        let (handshake, identity) = link.handshake.take().ok_or(Error::Closed)?;
        let request = self.sessions.get(session).and_then(|s| s.request());
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open and has its TLS part.
        unsafe {
            (*(*c).read).handler = Some(on_connection_event);
            (*(*c).write).handler = Some(on_connection_event);
            if (*(*c).read).timedout() != 0 {
                return Err(Error::Timeout);
            }
            stop_timer((*c).read);
            if (*(*c).ssl).handshaked() == 0 {
                return Err(failed("handshake failed"));
            }
            if handshake.verify {
                verify(c, handshake.server_name.as_deref(), request)?;
            }
        }
        link.tls = Some(identity);
        Ok(())
    }

    /// A handshake that was waited for has come to an end.
    fn on_handshaken(&mut self, key: LinkKey) {
        match self.end_handshake(key) {
            Ok(()) => self.finish_connect(key, Outcome::Handshaken),
            Err(error) => self.fail(key, error, State::Closed),
        }
    }

    /// A new connection was established whose handshake has been waited for,
    /// or there was none to do.
    pub(super) fn go_on_with_handshake(&mut self, key: LinkKey) {
        let Some(link) = self.links.get(key) else {
            return;
        };
        if link.handshake.is_none() {
            self.finish_connect(key, Outcome::Connected);
            return;
        }
        let Owner::Session { session, .. } = link.owner else {
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

    /// Lends the TLS session of a session's connection to Lua, until
    /// [`Self::take_back_tls_session`]; null if there is none.
    pub fn lend_tls_session(&mut self, key: SessionKey) -> *mut SSL_SESSION {
        let link = self.sessions.get(key).and_then(|session| session.link());
        let session = match link.and_then(|link| self.links.get(link)) {
            // SAFETY: the link's connection is open and has its TLS part.
            Some(link) if link.tls.is_some() => unsafe {
                ngx_ssl_get_session(link.connection.as_ptr())
            },
            _ => ptr::null_mut(),
        };
        if !session.is_null() {
            *self.tls_sessions.entry(session.addr()).or_default() += 1;
        }
        session
    }

    /// Takes a TLS session back from Lua. Addresses of anything else are
    /// ignored.
    pub fn take_back_tls_session(&mut self, session: *mut SSL_SESSION) {
        let Some(count) = self.tls_sessions.get_mut(&session.addr()) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            self.tls_sessions.remove(&session.addr());
        }
        // SAFETY: it was lent with a reference of its own.
        unsafe { SSL_SESSION_free(session) };
    }

    /// Takes back all that Lua still holds: what collects it comes too late.
    pub(super) fn take_back_tls_sessions(&mut self) {
        for (address, count) in self.tls_sessions.drain() {
            let session = ptr::with_exposed_provenance_mut(address);
            for _ in 0..count {
                // SAFETY: it was lent with a reference of its own each time.
                unsafe { SSL_SESSION_free(session) };
            }
        }
    }

    /// The session at an address that Lua passed, if it is one that it holds.
    pub fn known_tls_session(&self, session: *mut SSL_SESSION) -> Option<Rc<TlsSession>> {
        let known = self.tls_sessions.contains_key(&session.addr());
        let session = NonNull::new(session).filter(|_| known)?;
        // SAFETY: Lua holds it, with a reference of its own.
        Some(Rc::new(unsafe { TlsSession::hold(session) }))
    }
}

/// nginx's handshake is over, well or not.
unsafe extern "C" fn on_handshake(c: *mut ngx_connection_t) {
    // SAFETY: the connection is a link's, whose id is its data.
    let id = unsafe { (*c).data as usize as u64 };
    with(|worker| worker.on_handshaken(LinkKey::from_bits(id)));
}
