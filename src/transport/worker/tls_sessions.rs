//! TLS sessions that Lua holds.

use std::ptr::{self, NonNull};
use std::rc::Rc;

use nginx_sys::{SSL_SESSION, SSL_SESSION_free};

use crate::transport::connection::tls::TlsSession;
use crate::transport::ids::SessionKey;
use crate::transport::worker::Worker;

impl Worker {
    /// Lends the TLS session of a session's connection to Lua, until
    /// [`Self::take_back_tls_session`]; null if there is none.
    pub fn lend_tls_session(&mut self, key: SessionKey) -> *mut SSL_SESSION {
        let connection = self
            .sessions
            .get(key)
            .and_then(|session| session.connection());
        let connection = connection.and_then(|connection| self.connections.get(connection));
        let session = match connection {
            Some(connection) if connection.tls.is_some() => connection.nginx.tls_session(),
            _ => ptr::null_mut(),
        };
        if !session.is_null() {
            *self.tls_sessions.entry(session.addr()).or_default() += 1;
        }
        session
    }

    /// Takes a TLS session back from Lua. Addresses of anything else are ignored.
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
    pub fn take_back_tls_sessions(&mut self) {
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
