//! In the place of `tls`, for an nginx that was built without TLS.

use std::rc::Rc;

use crate::nginx::Request;
use crate::transport::connection::{Connection, NgxConnection};
use crate::transport::error::Error;

/// What a handshake is asked for; it cannot be done.
#[derive(Clone, Debug)]
pub struct Handshake;

impl Handshake {
    /// Never called.
    pub fn peer(&self) -> (&[u8], u16) {
        (b"", 0)
    }
}

/// There are no TLS connections.
#[derive(Debug)]
pub enum Tls {}

/// As in `tls`, never made.
pub type Pending = (Handshake, Rc<Tls>);

impl Tls {
    pub fn is_to(&self, _: &[u8], _: u16) -> bool {
        match *self {}
    }
}

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

impl NgxConnection {
    /// There is nothing to end.
    pub fn end_tls(&mut self) {}
}
