//! Hosts and ports to socket addresses, by nginx's own URL parser.

use std::ptr::NonNull;

use nginx_sys::{
    NGX_OK, ngx_create_pool, ngx_destroy_pool, ngx_inet_get_port, ngx_int_t, ngx_parse_url,
    ngx_pool_t, ngx_sock_ntop, ngx_str_t, ngx_url_t, sockaddr, sockaddr_storage, socklen_t, u_char,
};

use crate::nginx::Log;
use crate::transport::error::Error;

/// Room for the longest address as text, that of a unix socket.
const TEXT_LEN: usize = 128;

/// A socket address.
#[derive(Clone, Copy)]
pub struct Address {
    storage: sockaddr_storage,
    len: socklen_t,
}

impl PartialEq for Address {
    fn eq(&self, other: &Address) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

/// What a host turned out to be.
pub enum Parsed {
    Address(Address),
    /// A name to be looked up.
    Name,
}

/// Memory for one parse: connecting often must not grow the request's pool.
struct ScratchPool(NonNull<ngx_pool_t>);

impl Drop for ScratchPool {
    fn drop(&mut self) {
        // SAFETY: created below and not used after.
        unsafe { ngx_destroy_pool(self.0.as_ptr()) };
    }
}

impl Address {
    /// The address of `host`, if it is an IP address or `unix:/path`. A port within it goes before
    /// `port`.
    ///
    /// # Errors
    ///
    /// What nginx's parser finds wrong.
    pub fn parse(host: &[u8], port: u16, log: Log) -> Result<Parsed, Error> {
        // SAFETY: the log is valid; the text is copied into the pool and ends with NUL as nginx
        // expects; what the parser allocates is copied before the pool goes.
        unsafe {
            let pool = ngx_create_pool(1024, log.as_ptr());
            let pool = NonNull::new(pool).ok_or(Error::NoMemory)?;
            let pool = ScratchPool(pool);
            let text = ngx_str_t::from_bytes(pool.0.as_ptr(), &[host, b"\0"].concat())
                .ok_or(Error::NoMemory)?;
            let mut url: ngx_url_t = std::mem::zeroed();
            url.url = ngx_str_t {
                len: host.len(),
                data: text.data,
            };
            url.default_port = port;
            url.set_no_resolve(1);
            let rc = ngx_parse_url(pool.0.as_ptr(), &mut url);
            if rc != NGX_OK as ngx_int_t {
                let mut text = format!(
                    "failed to parse host name \"{}\"",
                    String::from_utf8_lossy(host)
                );
                if !url.err.is_null() {
                    text.push_str(": ");
                    text.push_str(&std::ffi::CStr::from_ptr(url.err).to_string_lossy());
                }
                return Err(Error::Host(text));
            }
            if url.addrs.is_null() || (*url.addrs).sockaddr.is_null() {
                return Ok(Parsed::Name);
            }
            let first = url.addrs;
            Ok(Parsed::Address(Address::copy(
                (*first).sockaddr,
                (*first).socklen,
            )))
        }
    }

    /// # Safety
    ///
    /// `len` bytes at `address` are a socket address.
    pub unsafe fn copy(address: *const sockaddr, len: socklen_t) -> Address {
        // SAFETY: all zeros is a valid sockaddr_storage; it is large enough for every address
        // family.
        unsafe {
            let mut storage: sockaddr_storage = std::mem::zeroed();
            let len = (len as usize).min(size_of::<sockaddr_storage>());
            std::ptr::copy_nonoverlapping(
                address.cast::<u8>(),
                (&raw mut storage).cast::<u8>(),
                len,
            );
            Address {
                storage,
                len: len as socklen_t,
            }
        }
    }

    /// The same address with another port.
    pub fn with_port(mut self, port: u16) -> Address {
        let address = self.as_ptr();
        // SAFETY: the storage holds a complete address of its family.
        unsafe {
            match i32::from((*address).sa_family) {
                libc::AF_INET => (*address.cast::<libc::sockaddr_in>()).sin_port = port.to_be(),
                libc::AF_INET6 => (*address.cast::<libc::sockaddr_in6>()).sin6_port = port.to_be(),
                _ => {}
            }
        }
        self
    }

    fn as_bytes(&self) -> &[u8] {
        // SAFETY: the storage was zeroed and then copied to, and is at least as long as the
        // address.
        unsafe { std::slice::from_raw_parts((&raw const self.storage).cast(), self.len as usize) }
    }

    pub fn as_ptr(&mut self) -> *mut sockaddr {
        (&raw mut self.storage).cast()
    }

    pub fn len(&self) -> socklen_t {
        self.len
    }

    /// As in log lines: `127.0.0.1:11211`, `unix:/path`.
    pub fn text(&mut self) -> String {
        self.ntop(1)
    }

    /// As cosockets name it when connecting takes too long: address, `:` and port, which is 0 for a
    /// unix socket.
    pub fn text_and_port(&mut self) -> String {
        // SAFETY: the storage holds a complete address.
        let port = unsafe { ngx_inet_get_port(self.as_ptr()) };
        format!("{}:{port}", self.ntop(0))
    }

    fn ntop(&mut self, port: usize) -> String {
        let mut text = [0 as u_char; TEXT_LEN];
        // SAFETY: the buffer is as long as the longest address.
        let len =
            unsafe { ngx_sock_ntop(self.as_ptr(), self.len, text.as_mut_ptr(), text.len(), port) };
        String::from_utf8_lossy(text.get(..len).unwrap_or_default()).into_owned()
    }
}
