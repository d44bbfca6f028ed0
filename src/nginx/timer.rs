//! Timers that belong to no connection.

use std::ffi::c_void;

use nginx_sys::{ngx_add_timer, ngx_connection_t, ngx_del_timer, ngx_event_t, ngx_msec_t};

use super::live::Zeroed;
use super::log::silent_log;

/// Milliseconds, as nginx counts them.
pub type Msec = ngx_msec_t;

/// A timer that belongs to no connection; it carries a 64-bit id.
///
/// nginx's debug log reads `ev->data` as a connection to print its fd, so the event's data is a
/// dummy connection, as with nginx's own timers of that kind.
pub struct Timer {
    cell: Box<TimerCell>,
}

struct TimerCell {
    event: ngx_event_t,
    connection: ngx_connection_t,
}

impl Timer {
    /// A timer that will call `handler`, unarmed. It may outlive the cycle, so its log is none of a
    /// cycle.
    pub fn new(handler: unsafe extern "C" fn(*mut ngx_event_t), id: u64) -> Timer {
        let mut cell = Box::new(TimerCell {
            event: ngx_event_t::ZEROED,
            connection: ngx_connection_t::ZEROED,
        });
        cell.connection.fd = -1;
        cell.connection.data = id as usize as *mut c_void;
        cell.event.data = (&raw mut cell.connection).cast();
        cell.event.handler = Some(handler);
        cell.event.log = silent_log();
        Timer { cell }
    }

    /// Arms the timer, `delay` from now.
    pub fn start(&mut self, delay: Msec) {
        // SAFETY: the event lives in a box, hence at a stable address, until drop takes it out of
        // the timer tree.
        unsafe { ngx_add_timer(&raw mut self.cell.event, delay) };
    }

    /// As [`Self::start`], but a worker that exits does not wait for it.
    pub fn start_cancelable(&mut self, delay: Msec) {
        self.cell.event.set_cancelable(1);
        self.start(delay);
    }

    /// Whether a worker that exits waits for it.
    pub fn set_cancelable(&mut self, cancelable: bool) {
        self.cell.event.set_cancelable(cancelable.into());
    }

    /// Disarms the timer, if it is armed.
    pub fn stop(&mut self) {
        // SAFETY: the timer's own event.
        unsafe { stop_timer(&raw mut self.cell.event) };
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// The id of the timer or connection that an event belongs to.
///
/// # Safety
///
/// `event` is one that nginx passed to a handler of this module, so its data is a connection (or a
/// timer's stand-in for one).
pub unsafe fn event_id(event: *mut ngx_event_t) -> u64 {
    // SAFETY: by this function's contract.
    unsafe {
        let connection = (*event).data.cast::<ngx_connection_t>();
        (*connection).data as usize as u64
    }
}

/// Deletes an event's timer if it is armed.
///
/// # Safety
///
/// `event` is a valid event.
pub unsafe fn stop_timer(event: *mut ngx_event_t) {
    // SAFETY: by this function's contract.
    unsafe {
        if (*event).timer_set() != 0 {
            ngx_del_timer(event);
        }
    }
}
