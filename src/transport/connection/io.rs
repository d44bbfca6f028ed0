//! Bytes out and in.

use crate::fault;
use crate::nginx;
use crate::transport::connection::Connection;
use crate::transport::error::Error;

/// Bytes received at most before others have their turn.
pub const READ_AT_ONCE: usize = 1024 * 1024;

/// How far sending has got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// Everything, as far as it may be sent now.
    All,
    /// The socket takes no more now.
    Blocked,
}

impl Connection {
    /// Whether there is anything to deliver without reading more.
    pub fn has_received(&self) -> bool {
        !self.pipeline.buffered().is_empty() || self.pipeline.is_broken()
    }

    /// One read from the socket into the pipeline: how many bytes came, 0 at the end of the stream;
    /// `None` if there is nothing now.
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

    /// Sends what is unsent, as far as the socket takes it.
    #[inline(always)]
    pub fn write(&mut self) -> Result<Written, Error> {
        let until = self.sends_until();
        let mut wrote = false;
        let result = loop {
            let unsent = match (&mut self.tls, until) {
                (None, None) => self.pipeline.unsent(),
                (None, Some(number)) => self.pipeline.unsent_before(number),
                (Some(tls), _) => match tls.record.next(&self.pipeline) {
                    Some(record) => record,
                    None => break Err(Error::NoMemory),
                },
            };
            if unsent.is_empty() {
                break Ok(Written::All);
            }
            match self.nginx.send(unsent) {
                Ok(0) => break Ok(Written::Blocked),
                Ok(sent) => {
                    if let Some(tls) = &mut self.tls {
                        tls.record.taken(sent);
                    }
                    self.pipeline.sent(sent);
                    wrote = true;
                    fault::point();
                }
                Err(error) => break Err(error),
            }
        };
        if wrote && (self.progress.is_blocked() || !self.pipeline.unsent().is_empty()) {
            self.note_written();
        }
        result
    }

    /// The socket has taken unsent bytes: the send timeouts of the operations that waited for that
    /// begin again.
    pub fn note_written(&mut self) {
        let Connection {
            pipeline, progress, ..
        } = self;
        progress.write(
            pipeline.unsent().is_empty(),
            pipeline.oldest(),
            || pipeline.first_unsent(),
            nginx::now(),
        );
    }
}
