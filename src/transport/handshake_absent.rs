//! In the place of `handshake`, for an nginx that was built without TLS.

use std::rc::Rc;

use super::link::{Connection, Link};

/// What a handshake is asked for; it cannot be done.
#[derive(Clone, Debug)]
pub struct Handshake;

/// There are no TLS connections.
#[derive(Debug)]
pub(super) enum Tls {}

/// As in `handshake`, never made.
pub(super) type Pending = (Handshake, Rc<Tls>);

impl Link {
    pub(super) fn is_tls_to(&self, _: &[u8], _: u16) -> bool {
        false
    }
}

pub(super) fn shut_down(_: &Connection) {}
