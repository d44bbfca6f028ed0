//! A private connection that becomes idle or busy.

use crate::conf::LocConf;
use crate::fault;
use crate::nginx::{Log, Msec, Request};
use crate::transport::connection::{Connection, Owner};
use crate::transport::ids::SessionKey;

impl Connection {
    /// The peer has closed, and nginx knows, or was told to.
    pub fn has_ended(&self) -> bool {
        self.quitting || self.nginx.has_ended()
    }

    /// Serves a session of `request`, after it was idle.
    #[inline(always)]
    pub fn begin_use(&mut self, session: SessionKey, request: Option<Request>) {
        self.owner = Owner::Session {
            session,
            connecting: false,
        };
        self.reused += 1;
        fault::point();
        self.read_due = None;
        let Some(request) = request else { return };
        self.nginx.set_active();
        self.nginx.set_log(request.log());
        self.pipeline
            .set_max_value(LocConf::of(request).max_value_size());
    }

    /// Prepares for being idle for at most `timeout` milliseconds (0: for
    /// ever). Whether there is something to read already.
    pub fn make_idle(&mut self, timeout: Msec) -> bool {
        self.pipeline.shrink();
        if self.tls.is_some() {
            self.record.shrink();
        }
        self.read_due = None;
        if timeout != 0 {
            self.limit_read(timeout);
        }
        self.nginx.set_idle();
        self.nginx.set_log(Log::of_cycle());
        self.nginx.stop_write_timer();
        self.nginx.is_read_ready()
    }
}

impl Connection {
    /// Whether it is a TLS connection to this host.
    pub fn is_tls_to(&self, host: &[u8], port: u16) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_to(host, port))
    }
}
