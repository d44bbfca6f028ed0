//! Sending a large value from where it is, without copying it first.

use nginx_sys::ngx_connection_error;

use crate::nginx;
use crate::protocol::VALUE_END;
use crate::transport::connection::Connection;
use crate::transport::error::Error;

impl Connection {
    /// Sends what is unsent, with `value` and its line end behind it. What the
    /// socket does not take is queued. Not for TLS, nor while connecting.
    pub fn send_with(&mut self, value: &[u8]) -> Result<(), Error> {
        let sent = self.write_parts([self.pipeline.unsent(), value, VALUE_END])?;
        match self.pipeline.sent_with(sent, value) {
            true => Ok(()),
            false => Err(Error::NoMemory),
        }
    }

    /// What `ngx_unix_send` does for one part. How many bytes the socket took.
    pub fn write_parts(&self, parts: [&[u8]; 3]) -> Result<usize, Error> {
        let vectors = parts.map(|part| libc::iovec {
            iov_base: part.as_ptr().cast_mut().cast(),
            iov_len: part.len(),
        });
        let len: usize = parts.iter().map(|part| part.len()).sum();
        let c = self.nginx.as_ptr();
        loop {
            // SAFETY: the connection is open; the parts are only read.
            let sent = unsafe { libc::writev((*c).fd, vectors.as_ptr(), vectors.len() as _) };
            if let Ok(sent) = usize::try_from(sent) {
                // SAFETY: as above.
                unsafe {
                    (*c).sent += sent as libc::off_t;
                    if sent < len {
                        (*(*c).write).set_ready(0);
                    }
                }
                return Ok(sent);
            }
            match nginx::last_errno() {
                libc::EINTR => {}
                libc::EAGAIN => {
                    // SAFETY: as above.
                    unsafe { (*(*c).write).set_ready(0) };
                    return Ok(0);
                }
                errno => {
                    // SAFETY: as above; the text is static, and only read.
                    unsafe {
                        (*(*c).write).set_error(1);
                        let text = c"send() failed".as_ptr().cast_mut();
                        ngx_connection_error(c, errno, text.cast());
                    }
                    return Err(Error::from_errno(errno));
                }
            }
        }
    }
}
