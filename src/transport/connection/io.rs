//! Bytes in, and what a connection that fails has to say.

use nginx_sys::{NGX_ERROR, ngx_connection_t};

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

    /// Whether the socket may have something to read.
    pub fn is_readable(&self) -> bool {
        let c: *mut ngx_connection_t = self.nginx.as_ptr();
        // SAFETY: the connection is open.
        unsafe {
            let read = (*c).read;
            (*read).ready() != 0 || (*read).eof() != 0 || (*read).active() == 0
        }
    }

    /// One read from the socket into the pipeline: how many bytes came, 0 at
    /// the end of the stream; `None` if there is nothing now.
    pub fn receive(&mut self) -> Option<Result<usize, Error>> {
        let c = self.nginx.as_ptr();
        let target = self.pipeline.read_buf();
        if target.max == 0 {
            return Some(Err(Error::NoMemory));
        }
        let room = target.buf.spare_capacity_mut();
        let len = target.max.min(room.len());
        // SAFETY: the connection is open; its receive function fills at most
        // `len` bytes of the spare capacity, and tells how many.
        unsafe {
            let got = match (*c).recv {
                Some(recv) => recv(c, room.as_mut_ptr().cast(), len),
                None => NGX_ERROR as isize,
            };
            match got {
                got if got >= 0 => {
                    let got = got.unsigned_abs();
                    target.buf.set_len(target.buf.len() + got);
                    Some(Ok(got))
                }
                got if got == NGX_ERROR as isize => {
                    Some(Err(Error::from_errno(nginx::last_errno())))
                }
                _ => None,
            }
        }
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
