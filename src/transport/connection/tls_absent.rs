//! In the place of `tls`, for an nginx that was built without TLS.

use std::rc::Rc;

use nginx_sys::ngx_connection_t;

/// What a handshake is asked for; it cannot be done.
#[derive(Clone, Debug)]
pub struct Handshake;

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

/// There is nothing to end.
///
/// # Safety
///
/// None is needed.
pub unsafe fn shut_down(_: *mut ngx_connection_t) {}
