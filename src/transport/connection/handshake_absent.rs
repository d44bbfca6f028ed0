//! In the place of `handshake`, for an nginx that was built without TLS.

use crate::nginx::Request;
use crate::transport::connection::Connection;
use crate::transport::connection::tls::Pending;
use crate::transport::error::Error;

impl Connection {
    /// Never called.
    pub fn begin_handshake(&mut self, _: Box<Pending>, _: Option<Request>) -> Result<bool, Error> {
        Err(Error::NoTls)
    }

    /// Never called.
    pub fn end_handshake(&mut self, _: Option<Request>) -> Result<(), Error> {
        Err(Error::NoTls)
    }
}
