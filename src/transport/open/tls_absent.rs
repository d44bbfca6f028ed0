//! In the place of `tls`, for an nginx that was built without TLS.

use crate::transport::error::Error;
use crate::transport::ids::ConnectionKey;
use crate::transport::worker::Worker;

impl Worker {
    /// Never called: no connection has a handshake to do.
    pub fn run_handshake(&mut self, _: ConnectionKey) -> Result<bool, Error> {
        Err(Error::NoTls)
    }

    /// As [`Self::run_handshake`].
    pub fn end_handshake(&mut self, _: ConnectionKey) -> Result<(), Error> {
        Err(Error::NoTls)
    }
}
