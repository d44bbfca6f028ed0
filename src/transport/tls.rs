//! TLS: the handshake, and what makes one TLS connection another than the next.

use std::ffi::{CStr, c_int, c_void};
use std::ptr::{self, NonNull};
use std::rc::Rc;

use nginx_sys::{
    ERR_clear_error, EVP_PKEY, EVP_sha256, NGX_AGAIN, NGX_OK, NGX_SSL_BUFFER, NGX_SSL_CLIENT,
    OPENSSL_STACK, OPENSSL_sk_num, OPENSSL_sk_value, SSL_CTRL_CHAIN_CERT,
    SSL_CTRL_SET_TLSEXT_HOSTNAME, SSL_CTRL_SET_TLSEXT_STATUS_REQ_TYPE, SSL_SESSION,
    SSL_SESSION_free, SSL_ctrl, SSL_get_verify_result, SSL_use_PrivateKey, SSL_use_certificate,
    TLSEXT_NAMETYPE_host_name, TLSEXT_STATUSTYPE_ocsp, X509, X509_V_OK, X509_digest,
    X509_verify_cert_error_string, ngx_add_timer, ngx_connection_t, ngx_create_pool,
    ngx_destroy_pool, ngx_http_request_t, ngx_int_t, ngx_ssl_check_host, ngx_ssl_create_connection,
    ngx_ssl_get_session, ngx_ssl_handshake, ngx_ssl_set_session, ngx_ssl_shutdown, ngx_ssl_t,
    ngx_str_t,
};

use super::Error;
use super::events::on_connection_event;
use super::io::log_socket_error;
use super::link::{Connection, Link, Owner};
use super::op::{Begun, Op, Outcome, Work};
use super::open::Opened;
use super::session::{Denied, State};
use super::worker::{LinkKey, PoolKey, SessionKey, Worker, with};
use crate::conf::LocConf;
use crate::nginx::stop_timer;

/// Longest name of a server in SNI, in bytes.
const MAX_SERVER_NAME: usize = 255;

/// What a handshake is asked for (`tcpsock:sslhandshake`).
#[derive(Clone, Debug)]
pub struct Handshake {
    /// A session to resume; null: none. Belongs to the caller, who waits.
    pub session: *mut SSL_SESSION,
    /// For SNI and, if verified, for the certificate to match.
    pub server_name: Option<Vec<u8>>,
    /// Whether the certificate must be good.
    pub verify: bool,
    /// Whether to ask for an OCSP status.
    pub status_request: bool,
    /// Where the object is connected to, as `connect` was told.
    pub host: Vec<u8>,
    /// The port that `connect` was told; 0 with a unix socket.
    pub port: u16,
    /// A certificate of ours and its chain (`STACK_OF(X509)`), or null.
    pub certificates: *mut c_void,
    /// Its key, or null.
    pub key: *mut c_void,
}

/// What a TLS connection was made with and to: connections that differ in it
/// are never mixed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Tls {
    host: Vec<u8>,
    port: u16,
    /// The location's context: trusted certificates, protocols and so on.
    context: usize,
    server_name: Option<Vec<u8>>,
    verify: bool,
    /// SHA-256 of our certificate.
    certificate: Option<[u8; 32]>,
}

/// A handshake to be done, and what it makes of the connection.
pub(super) type Pending = (Handshake, Rc<Tls>);

impl Handshake {
    fn identity(&self, context: NonNull<ngx_ssl_t>) -> Result<Tls, Error> {
        let certificate = if self.certificates.is_null() {
            None
        } else {
            let mut digest = [0; 32];
            // SAFETY: the caller's chain is live; a SHA-256 has 32 bytes.
            unsafe {
                let leaf = certificate(self.certificates, 0)?;
                if X509_digest(leaf, EVP_sha256(), digest.as_mut_ptr(), ptr::null_mut()) == 0 {
                    return Err(failed("ssl fetch client certificate from chain failed"));
                }
            }
            Some(digest)
        };
        Ok(Tls {
            host: self.host.clone(),
            port: self.port,
            context: context.addr().get(),
            server_name: self.server_name.clone(),
            verify: self.verify,
            certificate,
        })
    }
}

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
        let context = conf.and_then(LocConf::ssl).ok_or(Error::NoTls)?;
        if handshake.server_name.as_deref().is_some_and(is_bad_name) {
            return Err(failed("SSL_set_tlsext_host_name failed"));
        }
        let tls = Rc::new(handshake.identity(context)?);
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let (link, pool) = match session.state {
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
        // one out of the pool that was made like that, or a new one
        let links = &self.links;
        let alike = |link: &LinkKey| {
            links
                .get(*link)
                .is_some_and(|l| l.tls.as_ref() == Some(&tls))
        };
        let named = pool.and_then(|pool| self.pools.get_mut(pool));
        let idle = named.and_then(|named| named.pool.take(alike));
        let kept = link.is_some_and(|link| self.put_back(link, request));
        if let Some(link) = link
            && !kept
        {
            // its place in the pool goes to the other one, if that is new
            self.links.remove(link);
            if idle.is_some()
                && let Some(pool) = pool
            {
                self.release_only(pool);
            }
        } else if idle.is_none()
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
            Some(State::Resolving { handshake, .. }) => *handshake = Some(pending),
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
        // configuration; the caller's session and certificates are live.
        unsafe {
            prepare(c, &handshake, identity.context as *mut ngx_ssl_t)?;
            let rc = ngx_ssl_handshake(c);
            if rc == NGX_AGAIN as ngx_int_t {
                stop_timer((*c).write);
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

    /// The session at an address that Lua passed, if it is one that it holds;
    /// else null.
    pub fn known_tls_session(&self, session: *mut SSL_SESSION) -> *mut SSL_SESSION {
        match self.tls_sessions.contains_key(&session.addr()) {
            true => session,
            false => ptr::null_mut(),
        }
    }
}

impl Link {
    /// Whether it is a TLS connection to this host.
    pub(super) fn is_tls_to(&self, host: &[u8], port: u16) -> bool {
        let tls = self.tls.as_ref();
        tls.is_some_and(|tls| tls.host == host && tls.port == port)
    }
}

/// Names that cannot go into SNI, or not into a log line.
fn is_bad_name(name: &[u8]) -> bool {
    name.is_empty() || name.len() > MAX_SERVER_NAME || name.iter().any(u8::is_ascii_control)
}

/// nginx's handshake is over, well or not.
unsafe extern "C" fn on_handshake(c: *mut ngx_connection_t) {
    // SAFETY: the connection is a link's, whose id is its data.
    let id = unsafe { (*c).data as usize as u64 };
    with(|worker| worker.on_handshaken(LinkKey::from_bits(id)));
}

/// Gives a connection its TLS part.
///
/// # Safety
///
/// `c` is open and has no TLS part; `context` and what `handshake` points to
/// are live.
unsafe fn prepare(
    c: *mut ngx_connection_t,
    handshake: &Handshake,
    context: *mut ngx_ssl_t,
) -> Result<(), Error> {
    let ok = NGX_OK as ngx_int_t;
    // SAFETY: by this function's contract.
    unsafe {
        if (*c).pool.is_null() {
            (*c).pool = ngx_create_pool(256, (*c).log);
            if (*c).pool.is_null() {
                return Err(Error::NoMemory);
            }
        }
        let flags = (NGX_SSL_BUFFER | NGX_SSL_CLIENT) as usize;
        if ngx_ssl_create_connection(context, c, flags) != ok {
            return Err(failed("failed to create ssl connection"));
        }
        (*c).set_sendfile(0);
        let ssl = (*(*c).ssl).connection;
        if !handshake.session.is_null() && ngx_ssl_set_session(c, handshake.session) != ok {
            return Err(failed("ssl set session failed"));
        }
        if !handshake.certificates.is_null() {
            let chain = handshake.certificates;
            if SSL_use_certificate(ssl, certificate(chain, 0)?) == 0 {
                return Err(failed("ssl set client certificate failed"));
            }
            for at in 1..OPENSSL_sk_num(chain.cast()) {
                // SSL_add1_chain_cert
                let added = SSL_ctrl(
                    ssl,
                    SSL_CTRL_CHAIN_CERT as c_int,
                    1,
                    certificate(chain, at)?.cast(),
                );
                if added == 0 {
                    return Err(failed("ssl set client intermediate certificate failed"));
                }
            }
            if SSL_use_PrivateKey(ssl, handshake.key.cast::<EVP_PKEY>()) == 0 {
                return Err(failed("ssl set client private key failed"));
            }
        }
        if let Some(name) = &handshake.server_name {
            let name = [name, &b"\0"[..]].concat();
            // SSL_set_tlsext_host_name
            let set = SSL_ctrl(
                ssl,
                SSL_CTRL_SET_TLSEXT_HOSTNAME as c_int,
                TLSEXT_NAMETYPE_host_name as _,
                name.as_ptr().cast_mut().cast(),
            );
            if set == 0 {
                return Err(failed("SSL_set_tlsext_host_name failed"));
            }
        }
        if handshake.status_request {
            // SSL_set_tlsext_status_type
            SSL_ctrl(
                ssl,
                SSL_CTRL_SET_TLSEXT_STATUS_REQ_TYPE as c_int,
                TLSEXT_STATUSTYPE_ocsp as _,
                ptr::null_mut(),
            );
        }
    }
    Ok(())
}

/// A certificate of a chain.
///
/// # Safety
///
/// `chain` is a live `STACK_OF(X509)`.
unsafe fn certificate(chain: *mut c_void, at: c_int) -> Result<*mut X509, Error> {
    // SAFETY: by this function's contract; an index out of range gives null.
    let certificate = unsafe { OPENSSL_sk_value(chain.cast::<OPENSSL_STACK>(), at) };
    if certificate.is_null() {
        return Err(failed("invalid client certificate chain"));
    }
    Ok(certificate.cast())
}

/// Whether the peer's certificate is good, and the peer's.
///
/// # Safety
///
/// `c` has done its handshake; `request` is live.
unsafe fn verify(
    c: *mut ngx_connection_t,
    server_name: Option<&[u8]>,
    request: Option<NonNull<ngx_http_request_t>>,
) -> Result<(), Error> {
    // SAFETY: by this function's contract; the texts of codes are static.
    unsafe {
        let code = SSL_get_verify_result((*(*c).ssl).connection);
        if code != X509_V_OK as std::ffi::c_long {
            let text = CStr::from_ptr(X509_verify_cert_error_string(code)).to_string_lossy();
            log_socket_error(
                request,
                format_args!("lua ssl certificate verify error: ({code}: {text})"),
            );
            return Err(Error::Tls(format!("{code}: {text}")));
        }
        let Some(name) = server_name else {
            return Ok(());
        };
        let mut text = ngx_str_t {
            len: name.len(),
            data: name.as_ptr().cast_mut(),
        };
        if ngx_ssl_check_host(c, &mut text) != NGX_OK as ngx_int_t {
            log_socket_error(
                request,
                format_args!(
                    "lua ssl certificate does not match host \"{}\"",
                    String::from_utf8_lossy(name)
                ),
            );
            return Err(failed("certificate host mismatch"));
        }
    }
    Ok(())
}

/// An error of this text. OpenSSL's own errors are forgotten, or nginx would
/// report them as stale later.
fn failed(text: &str) -> Error {
    // SAFETY: may be called at any time.
    unsafe { ERR_clear_error() };
    Error::Tls(text.to_owned())
}

/// Ends the TLS part of a connection, without a farewell, as cosockets do.
pub(super) fn shut_down(connection: &Connection) {
    let c = connection.as_ptr();
    // SAFETY: the connection is open; nginx frees what belongs to TLS.
    unsafe {
        if !(*c).ssl.is_null() {
            (*(*c).ssl).set_no_wait_shutdown(1);
            (*(*c).ssl).set_no_send_shutdown(1);
            ngx_ssl_shutdown(c);
        }
        if !(*c).pool.is_null() {
            ngx_destroy_pool((*c).pool);
            (*c).pool = ptr::null_mut();
        }
    }
}
