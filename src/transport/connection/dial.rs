//! Sockets: opening them and what came of it.

use std::ptr::NonNull;

use nginx_sys::{
    NGX_AGAIN, NGX_OK, ngx_connection_log_error_e_NGX_ERROR_ERR as NGX_ERROR_ERR,
    ngx_event_connect_peer, ngx_event_get_peer, ngx_int_t, ngx_peer_connection_t, ngx_str_t,
};

use crate::nginx::{self, Log, PeerLog, Request};
use crate::transport::connection::address::Address;
use crate::transport::connection::{Connection, NgxConnection};
use crate::transport::error::Error;
use crate::transport::log::connect_failed;

/// Settings of a new socket. They come from the request or the queue that it is opened for.
#[derive(Clone, Copy)]
pub struct Socket {
    pub log: Log,
    /// `tcp_nodelay`
    pub nodelay: bool,
}

impl Socket {
    /// For a socket that is opened on behalf of a request.
    pub fn of(request: Request) -> Socket {
        Socket {
            log: request.log(),
            nodelay: request.tcp_nodelay(),
        }
    }
}

/// Opens a socket and begins to connect. The new connection writes to `own_log`. True: it is not
/// established yet.
pub fn dial(address: &mut Address, own_log: Log) -> Result<(NgxConnection, bool), Error> {
    // nginx writes the path of a unix socket as it is
    let text = address.text().replace(|c: char| c.is_control(), "?");
    let mut peer_log = PeerLog::new(text);
    let log = peer_log.stand_for(own_log);
    let mut name = ngx_str_t {
        len: peer_log.peer().len(),
        data: peer_log.peer().as_ptr().cast_mut(),
    };
    // of the lines about a server that cannot be reached, a few are written, and the others counted
    let told = nginx::would_admit(connect_failed(peer_log.peer()));
    let log = if told { log } else { Log::silent() };
    // SAFETY: address and name live for the call; the logs are valid, and so is a new connection,
    // of which nobody else knows.
    unsafe {
        let mut peer: ngx_peer_connection_t = std::mem::zeroed();
        peer.sockaddr = address.as_ptr();
        peer.socklen = address.len();
        peer.name = &mut name;
        peer.get = Some(ngx_event_get_peer);
        peer.log = log.as_ptr();
        peer.set_log_error(NGX_ERROR_ERR as _);
        // ngx_event_connect_peer sets no errno if nginx has no free connection
        *libc::__errno_location() = 0;
        let rc = nginx::without_draining(|| ngx_event_connect_peer(&mut peer));
        let errno = nginx::last_errno();
        match NonNull::new(peer.connection) {
            Some(connection) if rc == NGX_OK as ngx_int_t || rc == NGX_AGAIN as ngx_int_t => {
                let connecting = rc == NGX_AGAIN as ngx_int_t;
                let connection = NgxConnection::from_raw(connection, peer_log, own_log);
                Ok((connection, connecting))
            }
            None if errno == 0 => Err(Error::NoConnection),
            _ => {
                // nginx has written the line, if there was to be one
                if !own_log.is_silent() {
                    nginx::admit(connect_failed(peer_log.peer()));
                }
                Err(Error::from_errno(errno))
            }
        }
    }
}

impl Connection {
    /// The handshake of TCP has come to an end.
    ///
    /// # Errors
    ///
    /// The connection is not established.
    pub fn end_connecting(&mut self, nodelay: bool) -> Result<(), Error> {
        if self.nginx.has_write_timed_out() {
            return Err(Error::Timeout);
        }
        if self.nginx.is_closing() {
            // the worker exits, and its time is over or nobody uses the connection
            return Err(Error::Closed);
        }
        self.nginx.stop_write_timer();
        match self.nginx.socket_error() {
            0 => self.nginx.arm_established(nodelay),
            errno => Err(Error::from_errno(errno)),
        }
    }
}
