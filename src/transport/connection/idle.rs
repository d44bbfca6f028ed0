//! A private connection that becomes idle or busy.

use crate::conf::LocConf;
use crate::fault;
use crate::nginx::{self, Log, Msec, Request};
use crate::transport::connection::{Connection, Owner, Private};
use crate::transport::ids::SessionKey;

/// What an event of an idle connection has to do with its timer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IdleTimer {
    /// The event is not the timer's.
    Silent,
    /// It has expired early: nothing has happened.
    Early,
    Expired,
}

impl Connection {
    /// The peer has closed, and nginx knows, or was told to.
    pub fn has_ended(&self) -> bool {
        self.private().is_some_and(|private| private.quitting) || self.nginx.has_ended()
    }

    /// Serves a session of `request`, after it was idle.
    #[inline(always)]
    pub fn begin_use(&mut self, session: SessionKey, request: Option<Request>) {
        self.owner = Owner::Session(Private::new(session));
        self.reused += 1;
        fault::point();
        let Some(request) = request else { return };
        self.nginx.set_active();
        self.nginx.set_log(request.log());
        self.pipeline
            .set_max_value(LocConf::of(request).max_value_size());
    }

    /// Prepares for being idle for at most `timeout` milliseconds (0: for ever). When that time is
    /// over, and whether there is something to read already.
    #[inline(always)]
    pub fn make_idle(&mut self, timeout: Msec) -> (Option<Msec>, bool) {
        self.pipeline.shrink();
        if let Some(tls) = &mut self.tls {
            tls.record.shrink();
        }
        let due = (timeout != 0).then(|| nginx::now().saturating_add(timeout));
        if timeout != 0 {
            // a timer that expires earlier stays: most connections are used before it expires
            self.nginx.advance_read_timer(timeout);
        }
        self.nginx.set_idle();
        self.nginx.set_log(Log::of_cycle());
        (due, self.nginx.is_read_ready())
    }

    /// What an event of an idle connection has to do with its timer. If the timer expired early,
    /// arms it again.
    pub fn idle_timer(&mut self) -> IdleTimer {
        if !self.nginx.take_read_timeout() {
            return IdleTimer::Silent;
        }
        let now = nginx::now();
        let due = match &self.owner {
            Owner::Pool(idle) => idle.due,
            _ => None,
        };
        match due {
            None => IdleTimer::Early,
            Some(due) if due > now => {
                self.nginx.start_read_timer(due - now);
                IdleTimer::Early
            }
            Some(_) => IdleTimer::Expired,
        }
    }
}
