//! Opening shared connections, and telling those who wait for one.

use std::ptr::NonNull;

use nginx_sys::{ngx_add_timer, ngx_connection_error, ngx_cycle, ngx_http_request_t};

use super::Sharing;
use super::loss::RETRY_DELAY;
use crate::nginx::{self, Msec, stop_timer};
use crate::ngx_lua::Settings;
use crate::transport::Error;
use crate::transport::io::log_socket_error;
use crate::transport::keepalive::set_log;
use crate::transport::link::{Link, Owner};
use crate::transport::op::Outcome;
use crate::transport::open::{dial, settle, socket_error, wants_nodelay};
use crate::transport::session::State;
use crate::transport::worker::{LinkKey, SessionKey, TrunkKey, Worker};

impl Worker {
    /// Opens a further connection of a trunk on behalf of `request`.
    pub(super) fn open_shared(
        &mut self,
        trunk_key: TrunkKey,
        request: NonNull<ngx_http_request_t>,
        timeout: Msec,
    ) -> Result<LinkKey, Error> {
        self.links.try_reserve(1).map_err(|_| Error::NoMemory)?;
        let trunk = self.trunks.get_mut(trunk_key).ok_or(Error::Closed)?;
        let mut address = trunk.address.ok_or(Error::Closed)?;
        let max_value = trunk.name.max_value;
        // SAFETY: the request is live.
        let (connection, connecting) = unsafe {
            trunk.nodelay = wants_nodelay(request);
            dial(&mut address, request).inspect_err(|_| {
                trunk.retry_at = nginx::now().saturating_add(RETRY_DELAY);
            })?
        };
        let nodelay = trunk.nodelay;
        let owner = Owner::Trunk {
            trunk: trunk_key,
            connecting,
        };
        let (key, c) = self.new_link(connection, address, owner, None, max_value);
        // SAFETY: the link's connection is open; the cycle's log outlives it.
        let settled = unsafe {
            set_log(c, (*ngx_cycle).log);
            // a worker that exits does not wait for what nobody waits for
            (*(*c).read).set_cancelable(1);
            (*(*c).write).set_cancelable(1);
            if connecting {
                ngx_add_timer((*c).write, timeout);
                Ok(())
            } else {
                settle(c, nodelay)
            }
        };
        if let Err(error) = settled {
            self.links.remove(key);
            return Err(error);
        }
        if let Some(link) = self.links.get_mut(key) {
            link.sharing = Some(Box::new(Sharing {
                opened: nginx::now(),
                ..Sharing::default()
            }));
        }
        if let Some(trunk) = self.trunks.get_mut(trunk_key) {
            trunk.links.push(key);
        }
        if !connecting {
            self.rest(key);
        }
        Ok(key)
    }

    /// A shared connection stands, or could not be opened.
    pub(in crate::transport) fn on_trunk_connected(&mut self, key: LinkKey) {
        let Some(link) = self.links.get_mut(key) else {
            return;
        };
        let Owner::Trunk { trunk, .. } = link.owner else {
            return;
        };
        let c = link.connection.as_ptr();
        // SAFETY: the link's connection is open.
        if unsafe { (*(*c).read).timedout() } != 0 {
            // the time of a command that was given to it: it says nothing
            // SAFETY: as above.
            unsafe { (*(*c).read).set_timedout(0) };
            return self.arm_inspection(key, RETRY_DELAY);
        }
        let nodelay = self.trunks.get(trunk).is_some_and(|trunk| trunk.nodelay);
        // SAFETY: the link's connection is open.
        let result = unsafe {
            if (*(*c).write).timedout() != 0 {
                Err(Error::Timeout)
            } else if (*c).close() != 0 {
                // the worker exits, and nobody uses it yet
                Err(Error::Closed)
            } else {
                stop_timer((*c).write);
                match socket_error(c) {
                    0 => settle(c, nodelay),
                    errno => Err(Error::from_errno(errno)),
                }
            }
        };
        match result {
            Ok(()) => {
                link.owner = Owner::Trunk {
                    trunk,
                    connecting: false,
                };
                self.admit_joining(trunk);
                self.rest(key);
                self.flush_shared(key);
                // its end may have come with it, and no event would tell
                if self.links.get(key).is_some_and(Link::is_readable) {
                    self.read_shared(key);
                }
                self.serve_queue(trunk);
            }
            Err(error) => {
                self.refuse_joining(trunk, key, &error);
                self.fail_shared(key, error);
            }
        }
    }

    /// Those who wait for a connection; they do no more.
    fn end_joining(&mut self, trunk: TrunkKey) -> Vec<SessionKey> {
        let trunk = self.trunks.get_mut(trunk);
        let joining = trunk.map(|trunk| std::mem::take(&mut trunk.joining));
        let joining: Vec<SessionKey> = joining.unwrap_or_default().into_iter().collect();
        for key in &joining {
            if let Some(session) = self.sessions.get_mut(*key) {
                session.waits = None;
            }
        }
        joining
    }

    /// Those who waited for a connection have one.
    fn admit_joining(&mut self, trunk_key: TrunkKey) {
        let joining = self.end_joining(trunk_key);
        let many = joining.len() as u64;
        for key in joining {
            self.attach(key, trunk_key);
            if let Some(trunk) = self.trunks.get_mut(trunk_key) {
                // the connection is as new to each of them
                trunk.served -= 1;
            }
            self.finish_reader(key, Outcome::Connected);
        }
        if let Some(trunk) = self.trunks.get_mut(trunk_key) {
            trunk.served += many;
        }
    }

    /// Those who waited for a connection do not get one.
    fn refuse_joining(&mut self, trunk_key: TrunkKey, link: LinkKey, error: &Error) {
        let joining = self.end_joining(trunk_key);
        let Some(link) = self.links.get_mut(link) else {
            return;
        };
        let c = link.connection.as_ptr();
        let peer = link.address.text_and_port();
        if let (Error::Os(errno), true) = (error, joining.is_empty()) {
            // nobody is told the reason
            // SAFETY: the link's connection is open.
            unsafe {
                ngx_connection_error(c, *errno, c"connect() failed".as_ptr().cast_mut().cast());
            }
        }
        for key in joining {
            let Some(session) = self.sessions.get_mut(key) else {
                continue;
            };
            session.state = State::Closed;
            if let Some(request) = session.request() {
                // SAFETY: the link's connection is open, the request live; the
                // log is lent for one line.
                unsafe { log_refusal(c, request, error, &peer) };
            }
            self.finish_reader(key, Outcome::Failed(error.clone()));
            self.leave_trunk(trunk_key, key, None);
        }
    }
}

/// Logs on behalf of a request that a connection could not be opened.
///
/// # Safety
///
/// `c` is open and `request` live.
unsafe fn log_refusal(
    c: *mut nginx_sys::ngx_connection_t,
    request: NonNull<ngx_http_request_t>,
    error: &Error,
    peer: &str,
) {
    match error {
        Error::Timeout => log_timeout(Some(request), peer),
        Error::Os(errno) => {
            // SAFETY: by this function's contract; the log is put back.
            unsafe {
                if !Settings::of(request).is_some_and(|s| s.log_errors()) {
                    return;
                }
                let log = (*c).log;
                (*c).log = (*(*request.as_ptr()).connection).log;
                ngx_connection_error(c, *errno, c"connect() failed".as_ptr().cast_mut().cast());
                (*c).log = log;
            }
        }
        _ => {}
    }
}

/// Logs on behalf of a request that it waited too long for a connection.
pub(super) fn log_timeout(request: Option<NonNull<ngx_http_request_t>>, peer: &str) {
    log_socket_error(
        request,
        format_args!("lua tcp socket connect timed out, when connecting to {peer}"),
    );
}
