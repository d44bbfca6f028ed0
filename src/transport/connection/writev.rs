//! Sending a large value from where it is, without copying it first.

use crate::protocol::VALUE_END;
use crate::transport::connection::Connection;
use crate::transport::error::Error;

impl Connection {
    /// Sends what is unsent, with `value` and its line end behind it. What the socket does not take
    /// is queued. Not for TLS, nor while connecting.
    pub fn send_with(&mut self, value: &[u8]) -> Result<(), Error> {
        let sent = self
            .nginx
            .write_parts([self.pipeline.unsent(), value, VALUE_END])?;
        let queued = self.pipeline.sent_with(sent, value);
        self.note_written();
        match queued {
            true => Ok(()),
            false => Err(Error::NoMemory),
        }
    }
}
