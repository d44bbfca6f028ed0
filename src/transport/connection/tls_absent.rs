//! In the place of `tls`, for an nginx that was built without TLS.

use std::rc::Rc;

use crate::transport::connection::nginx_connection::NgxConnection;

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

impl NgxConnection {
    /// There is nothing to end.
    pub fn end_tls(&mut self) {}
}
