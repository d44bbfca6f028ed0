//! The TLS handshake of a connection, from its beginning to its end.

use crate::nginx::Request;
use crate::protocol::Record;
use crate::transport::connection::tls::{Pending, failed};
use crate::transport::connection::{Connection, Phase, TlsLayer};
use crate::transport::error::Error;

impl Connection {
    /// Begins the handshake that was asked for. Whether it is done already; on failure the
    /// connection is of no use any more.
    pub fn begin_handshake(
        &mut self,
        pending: Box<Pending>,
        request: Option<Request>,
    ) -> Result<bool, Error> {
        let (handshake, identity) = &*pending;
        self.nginx.add_tls(handshake, identity.context)?;
        self.phase = Phase::Handshaking(pending);
        if self.nginx.handshake() {
            return self.end_handshake(request).map(|()| true);
        }
        // the timer may be that of an earlier operation
        self.nginx.stop_write_timer();
        Ok(false)
    }

    /// Judges a handshake that has come to an end. What is wrong with the peer's certificate is
    /// logged on behalf of `request`.
    pub fn end_handshake(&mut self, request: Option<Request>) -> Result<(), Error> {
        let phase = std::mem::replace(&mut self.phase, Phase::Established);
        let Phase::Handshaking(pending) = phase else {
            self.phase = phase;
            return Err(Error::Closed);
        };
        let (handshake, identity) = *pending;
        self.nginx.set_handlers();
        if !self.nginx.has_handshaken() {
            return Err(failed("handshake failed"));
        }
        if handshake.verify {
            self.nginx
                .verify(handshake.server_name.as_deref(), request)?;
        }
        self.tls = Some(TlsLayer {
            identity,
            record: Record::default(),
        });
        Ok(())
    }
}
