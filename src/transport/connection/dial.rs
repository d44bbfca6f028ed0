//! Sockets: opening them and what came of it.

use std::ptr::NonNull;

use nginx_sys::{
    NGX_AGAIN, NGX_OK, ngx_connection_log_error_e_NGX_ERROR_ERR as NGX_ERROR_ERR,
    ngx_event_connect_peer, ngx_event_get_peer, ngx_http_core_loc_conf_t, ngx_http_core_module,
    ngx_http_request_t, ngx_int_t, ngx_peer_connection_t, ngx_str_t,
};

use crate::nginx::{self, PeerLog};
use crate::transport::connection::NgxConnection;
use crate::transport::connection::address::Address;
use crate::transport::error::Error;
use crate::transport::log::connect_failed;

/// Begins a connection on behalf of a request, whose log it gets. Whether it
/// is still to be waited for.
///
/// # Safety
///
/// `request` is live.
pub unsafe fn dial(
    address: &mut Address,
    request: NonNull<ngx_http_request_t>,
) -> Result<(NgxConnection, bool), Error> {
    // SAFETY: by this function's contract; its connection has a log.
    unsafe {
        // nginx writes the path of a unix socket as it is
        let text = address.text().replace(|c: char| c.is_control(), "?");
        let mut log = PeerLog::new(text);
        let request_log = (*(*request.as_ptr()).connection).log;
        let own_log = log.stand_for(request_log);
        let mut name = ngx_str_t {
            len: log.peer().len(),
            data: log.peer().as_ptr().cast_mut(),
        };
        let mut peer: ngx_peer_connection_t = std::mem::zeroed();
        peer.sockaddr = address.as_ptr();
        peer.socklen = address.len();
        peer.name = &mut name;
        peer.get = Some(ngx_event_get_peer);
        // a server that is away is told a few times, and counted after that
        peer.log = match nginx::would_admit(connect_failed(log.peer())) {
            true => own_log,
            false => nginx::silent_log(),
        };
        peer.set_log_error(NGX_ERROR_ERR as _);
        // it says nothing of it if there is no free connection
        *libc::__errno_location() = 0;
        let rc = nginx::without_draining(|| ngx_event_connect_peer(&mut peer));
        let errno = nginx::last_errno();
        match NonNull::new(peer.connection) {
            Some(connection) if rc == NGX_OK as ngx_int_t || rc == NGX_AGAIN as ngx_int_t => {
                let connecting = rc == NGX_AGAIN as ngx_int_t;
                let mut connection = NgxConnection::from_raw(connection, log);
                connection.set_log(request_log);
                Ok((connection, connecting))
            }
            None if errno == 0 => Err(Error::NoConnection),
            _ => {
                // nginx has written the line, if there was to be one
                nginx::admit(connect_failed(log.peer()));
                Err(Error::from_errno(errno))
            }
        }
    }
}

/// `tcp_nodelay` at a request's location.
///
/// # Safety
///
/// `request` is live.
pub unsafe fn wants_nodelay(request: NonNull<ngx_http_request_t>) -> bool {
    // SAFETY: every request has nginx's core configuration.
    unsafe {
        let conf = *(*request.as_ptr())
            .loc_conf
            .add(ngx_http_core_module.ctx_index);
        (*conf.cast::<ngx_http_core_loc_conf_t>()).tcp_nodelay != 0
    }
}
