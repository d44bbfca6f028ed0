//! In the place of `tls_sessions`, for an nginx that was built without TLS.

use super::Worker;

impl Worker {
    /// There are none.
    pub fn take_back_tls_sessions(&mut self) {}
}
