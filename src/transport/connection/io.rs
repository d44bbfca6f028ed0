//! Bytes in, and what a connection that fails has to say.

use crate::nginx;
use crate::transport::connection::sharing::Sharing;
use crate::transport::connection::{Connection, Owner};
use crate::transport::error::Error;

/// Bytes read at most from a connection that fails.
pub const READ_AT_ONCE: usize = 1024 * 1024;

impl Connection {
    /// Whether the connection does not stand yet.
    pub fn is_connecting(&self) -> bool {
        matches!(
            self.owner,
            Owner::Session {
                connecting: true,
                ..
            } | Owner::Shared {
                connecting: true,
                ..
            }
        )
    }

    /// Whether there is anything to deliver without reading more.
    pub fn has_received(&self) -> bool {
        !self.pipeline.buffered().is_empty() || self.pipeline.is_broken()
    }

    /// One read from the socket into the pipeline: how many bytes came, 0 at
    /// the end of the stream; `None` if there is nothing now.
    pub fn receive(&mut self) -> Option<Result<usize, Error>> {
        let target = self.pipeline.read_buf();
        let room = target.buf.spare_capacity_mut();
        let len = target.max.min(room.len());
        let Some(room) = room.get_mut(..len).filter(|room| !room.is_empty()) else {
            return Some(Err(Error::NoMemory));
        };
        let got = self.nginx.receive(room)?;
        if let Ok(got) = got {
            // SAFETY: so many bytes of the spare capacity were written.
            unsafe { target.buf.set_len(target.buf.len() + got) };
        }
        Some(got)
    }
}

impl Connection {
    /// Some of what is to be sent was, for which the timeouts of those who had
    /// to wait for that begin again.
    pub fn note_written(&mut self) {
        let Some(Sharing { blocked, .. }) = self.sharing.as_deref_mut() else {
            return;
        };
        let all = self.pipeline.unsent().is_empty();
        if all && !blocked.now {
            return;
        }
        // unless those who had to wait before still need it
        if !blocked.now && blocked.from < self.pipeline.oldest() {
            blocked.from = self.pipeline.first_unsent();
        }
        blocked.now = !all;
        blocked.written = nginx::now();
    }
}
