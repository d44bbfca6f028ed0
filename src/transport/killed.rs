//! Light threads that are killed while they, or coroutines inside them, wait.

use super::events::on_watch;
use super::op::Op;
use super::session::{Session, State};
use super::worker::{SessionKey, Worker};
use crate::nginx::{Msec, Timer};

/// How often killed light threads are looked for, in milliseconds.
const WATCH_INTERVAL: Msec = 100;

impl Worker {
    /// Nobody tells us when ngx_lua kills a waiting light thread, but its
    /// semaphore shows it. The object finds out when it is used next; for
    /// those that are not, a timer looks now and then while coroutines wait.
    pub(super) fn watch_waiters(&mut self) {
        if self.watch.is_none() {
            // SAFETY: the cycle's log lives until `forget_cycle`.
            let log = unsafe { (*nginx_sys::ngx_cycle).log };
            // SAFETY: as above.
            let mut timer = unsafe { Timer::new(on_watch, 0, log) };
            timer.start_cancelable(WATCH_INTERVAL);
            self.watch = Some(timer);
        }
    }

    /// Closes the connections of killed light threads.
    pub(super) fn on_watch(&mut self) {
        self.watch = None;
        let (mut waiting, mut abandoned) = (false, Vec::new());
        for (key, session) in self.sessions.iter() {
            for op in session.ops() {
                waiting = true;
                if op.is_abandoned() {
                    abandoned.push(key);
                }
            }
        }
        for key in abandoned {
            self.disconnect(key, State::Closed);
        }
        if waiting {
            self.watch_waiters();
        }
    }

    /// Closes the connection if the light thread that used it was killed, as
    /// a cosocket's is.
    #[inline(always)]
    pub(super) fn reap(&mut self, key: SessionKey) {
        if self.sessions.get(key).is_some_and(Session::has_ops) {
            self.reap_abandoned(key);
        }
    }

    fn reap_abandoned(&mut self, key: SessionKey) {
        let session = self.sessions.get(key);
        if session.is_some_and(|session| session.ops().any(Op::is_abandoned)) {
            self.disconnect(key, State::Closed);
        }
    }
}
