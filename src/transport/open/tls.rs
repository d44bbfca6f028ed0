//! TLS handshakes of connections.

use nginx_sys::{NGX_AGAIN, ngx_int_t, ngx_ssl_handshake, ngx_ssl_t};

use crate::transport::connection::Owner;
use crate::transport::connection::handlers::handlers;
use crate::transport::connection::tls::{Pending, failed, prepare, verify};
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, PoolKey, SessionKey};
use crate::transport::state::op::Opened;
use crate::transport::state::session::State;
use crate::transport::worker::Worker;

impl Worker {
    /// Opens a connection and notes what handshake it is to do.
    pub fn open_for_handshake(
        &mut self,
        key: SessionKey,
        pending: Pending,
        pool: Option<PoolKey>,
    ) -> Result<Opened, Error> {
        let host = pending.0.host.clone();
        let opened = self.open(key, &host, pending.0.port, pool)?;
        match self.sessions.get_mut(key).map(|session| &mut session.state) {
            Some(State::Resolving { handshake, .. }) => *handshake = Some(Box::new(pending)),
            Some(State::Private(connection)) => {
                if let Some(connection) = self.connections.get_mut(*connection) {
                    connection.handshake = Some(pending);
                }
            }
            _ => {}
        }
        Ok(opened)
    }

    /// Starts the handshake a connection is to do. Whether it is done already; on
    /// failure the connection is of no use any more.
    pub fn run_handshake(&mut self, key: ConnectionKey) -> Result<bool, Error> {
        let connection = self.connections.get_mut(key).ok_or(Error::Closed)?;
        let Owner::Session {
            session,
            connecting: false,
        } = connection.owner
        else {
            return Err(Error::Closed);
        };
        let (handshake, identity) = connection.handshake.clone().ok_or(Error::Closed)?;
        let c = connection.nginx.as_ptr();
        let timeout = self.sessions.get(session).map(|s| s.connect_timeout());
        // SAFETY: the connection is open; the context belongs to the
        // configuration;
        unsafe {
            prepare(c, &handshake, identity.context as *mut ngx_ssl_t)?;
            let rc = ngx_ssl_handshake(c);
            if rc == NGX_AGAIN as ngx_int_t {
                (*(*c).ssl).handler = Some(handlers().handshake);
                connection.nginx.stop_write_timer();
                // instead of that of an earlier operation
                connection
                    .nginx
                    .start_read_timer(timeout.unwrap_or_default());
                return Ok(false);
            }
        }
        self.end_handshake(key).map(|()| true)
    }

    /// Judges a handshake that has come to an end.
    pub fn end_handshake(&mut self, key: ConnectionKey) -> Result<(), Error> {
        let connection = self.connections.get_mut(key).ok_or(Error::Closed)?;
        let Owner::Session { session, .. } = connection.owner else {
            return Err(Error::Closed);
        };
        let (handshake, identity) = connection.handshake.take().ok_or(Error::Closed)?;
        let request = self.sessions.get(session).and_then(|s| s.request());
        connection.nginx.set_handlers();
        if connection.nginx.has_read_timed_out() {
            return Err(Error::Timeout);
        }
        connection.nginx.stop_read_timer();
        let c = connection.nginx.as_ptr();
        // SAFETY: the connection is open and has its TLS part.
        unsafe {
            if (*(*c).ssl).handshaked() == 0 {
                return Err(failed("handshake failed"));
            }
            if handshake.verify {
                let peer = connection.nginx.peer();
                verify(c, handshake.server_name.as_deref(), request, peer)?;
            }
        }
        connection.tls = Some(identity);
        Ok(())
    }
}
