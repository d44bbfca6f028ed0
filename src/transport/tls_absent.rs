//! In the place of `tls`, for an nginx that was built without TLS.

use std::ptr::NonNull;
use std::rc::Rc;

use nginx_sys::ngx_http_request_t;

use super::Error;
use super::link::{Connection, Link};
use super::op::{Begun, Outcome};
use super::session::Denied;
use super::worker::{LinkKey, SessionKey, Worker};

/// What a handshake is asked for; it cannot be done.
#[derive(Clone, Debug)]
pub struct Handshake;

/// There are no TLS connections.
#[derive(Debug)]
pub(super) enum Tls {}

/// As in `tls`, never made.
pub(super) type Pending = (Handshake, Rc<Tls>);

impl Worker {
    /// Always refused.
    pub fn handshake(
        &mut self,
        key: SessionKey,
        request: NonNull<ngx_http_request_t>,
        _: Handshake,
    ) -> Result<Result<Begun, Error>, Denied> {
        Ok(self.connected(key, request)?.and(Err(Error::NoTls)))
    }

    pub(super) fn go_on_with_handshake(&mut self, key: LinkKey) {
        self.finish_connect(key, Outcome::Connected);
    }
}

impl Link {
    pub(super) fn is_tls_to(&self, _: &[u8], _: u16) -> bool {
        false
    }
}

pub(super) fn shut_down(_: &Connection) {}
