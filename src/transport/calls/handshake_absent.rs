//! In the place of `handshake`, for an nginx that was built without TLS.

use crate::nginx::Request;
use crate::transport::connection::tls::Handshake;
use crate::transport::error::Error;
use crate::transport::ids::SessionKey;
use crate::transport::state::outcome::Begun;
use crate::transport::worker::Worker;

impl Worker {
    /// Always refused.
    pub fn handshake(
        &mut self,
        key: SessionKey,
        request: Request,
        _: Handshake,
    ) -> Result<Begun, Error> {
        self.private_connection(key, request)?;
        Err(Error::NoTls)
    }
}
