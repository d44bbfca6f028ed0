//! In the place of `tls`, for an nginx that was built without TLS.

use std::ptr::NonNull;

use nginx_sys::ngx_http_request_t;

use super::Error;
use super::access::Denied;
use super::handshake::Handshake;
use super::op::{Begun, Outcome};
use super::worker::{LinkKey, SessionKey, Worker};

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

    pub(super) fn take_back_tls_sessions(&mut self) {}
}
