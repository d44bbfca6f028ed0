//! The few nginx facilities that need a Rust face: logging, error texts, and
//! timers that belong to no connection.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::fmt;
use std::mem::MaybeUninit;

use nginx_sys::{
    NGX_MAX_ERROR_STR, ngx_add_timer, ngx_close_connection, ngx_connection_t, ngx_current_msec,
    ngx_cycle, ngx_del_timer, ngx_err_t, ngx_event_t, ngx_exiting, ngx_get_connection,
    ngx_log_error_core, ngx_log_t, ngx_msec_t, ngx_posted_events, ngx_posted_next_events,
    ngx_queue_t, ngx_strerror, ngx_terminate, ngx_uint_t,
};

/// Milliseconds, as nginx counts them.
pub type Msec = ngx_msec_t;

/// Writes one line to `log` if its level lets it through. Control characters,
/// which could make it look like several, become `?`.
///
/// # Safety
///
/// `log` is a valid log, e.g. that of a live connection or of the cycle.
pub unsafe fn log(level: u32, log: *mut ngx_log_t, err: ngx_err_t, args: fmt::Arguments<'_>) {
    // SAFETY: valid by this function's contract.
    if unsafe { (*log).log_level } < level as ngx_uint_t {
        return;
    }
    let mut buf = [MaybeUninit::uninit(); NGX_MAX_ERROR_STR as usize];
    let text = ngx::log::write_fmt(&mut buf, args);
    let printable: Vec<u8>;
    let text = if text.iter().any(u8::is_ascii_control) {
        let replace = |byte: &u8| if byte.is_ascii_control() { b'?' } else { *byte };
        printable = text.iter().map(replace).collect();
        &printable
    } else {
        text
    };
    // SAFETY: the log is valid; `%*s` reads exactly `len` bytes.
    unsafe {
        ngx_log_error_core(
            level as ngx_uint_t,
            log,
            err,
            c"%*s".as_ptr(),
            text.len(),
            text.as_ptr(),
        );
    }
}

/// A log into which nginx may write; nothing of it is seen.
pub fn silent_log() -> *mut ngx_log_t {
    struct Silent(UnsafeCell<ngx_log_t>);
    // SAFETY: nginx has one thread, and writes no line at level 0.
    unsafe impl Sync for Silent {}
    // SAFETY: a C struct; all zeros is a log at level 0 without a file.
    static SILENT: Silent = Silent(UnsafeCell::new(unsafe { std::mem::zeroed() }));
    SILENT.0.get()
}

/// The text of an errno as cosockets give it: nginx's, in lower case.
pub fn error_text(errno: ngx_err_t) -> String {
    let mut buf = [0u8; NGX_MAX_ERROR_STR as usize];
    // SAFETY: the buffer is as long as we say; the result points into it.
    let len = unsafe {
        let start = buf.as_mut_ptr();
        ngx_strerror(errno, start, buf.len()).offset_from(start)
    };
    let text = buf.get(..len.unsigned_abs()).unwrap_or_default();
    String::from_utf8_lossy(text).to_lowercase()
}

/// The errno of the last failed call.
pub fn last_errno() -> ngx_err_t {
    std::io::Error::last_os_error().raw_os_error().unwrap_or(0)
}

/// A timer that belongs to no connection; it carries a 64-bit id.
///
/// nginx's debug log reads `ev->data` as a connection to print its fd, so the
/// event's data is a connection that is none, as nginx's own fake ones are.
pub struct Timer {
    cell: Box<TimerCell>,
}

struct TimerCell {
    event: ngx_event_t,
    connection: ngx_connection_t,
}

impl Timer {
    /// A timer that will call `handler`, unarmed.
    ///
    /// # Safety
    ///
    /// `log` outlives the timer (the cycle's does).
    pub unsafe fn new(
        handler: unsafe extern "C" fn(*mut ngx_event_t),
        id: u64,
        log: *mut ngx_log_t,
    ) -> Timer {
        // SAFETY: both are C structs for which all zeros is the initial state.
        let mut cell: Box<TimerCell> = Box::new(unsafe { std::mem::zeroed() });
        cell.connection.fd = -1;
        cell.connection.data = id as usize as *mut c_void;
        cell.event.data = (&raw mut cell.connection).cast();
        cell.event.handler = Some(handler);
        cell.event.log = log;
        Timer { cell }
    }

    /// Arms the timer, `delay` from now.
    pub fn start(&mut self, delay: Msec) {
        // SAFETY: the event lives in a box, hence at a stable address, until
        // drop takes it out of the timer tree.
        unsafe { ngx_add_timer(&raw mut self.cell.event, delay) };
    }
}

impl Timer {
    /// As [`Self::start`], but a worker that exits does not wait for it.
    pub fn start_cancelable(&mut self, delay: Msec) {
        self.cell.event.set_cancelable(1);
        self.start(delay);
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        if self.cell.event.timer_set() != 0 {
            // SAFETY: the timer is armed.
            unsafe { ngx_del_timer(&raw mut self.cell.event) };
        }
    }
}

impl Timer {
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

/// An event that is handled at the end of the current turn of the event loop,
/// after what was posted before it.
pub struct Posted {
    event: Box<ngx_event_t>,
}

impl Posted {
    /// An event that will call `handler`, not posted.
    ///
    /// # Safety
    ///
    /// `log` outlives the event (the cycle's does).
    pub unsafe fn new(
        handler: unsafe extern "C" fn(*mut ngx_event_t),
        log: *mut ngx_log_t,
    ) -> Posted {
        // SAFETY: a C struct for which all zeros is the initial state.
        let mut event: Box<ngx_event_t> = Box::new(unsafe { std::mem::zeroed() });
        event.handler = Some(handler);
        event.log = log;
        Posted { event }
    }

    /// Posts it, unless it is already (`ngx_post_event`).
    pub fn post(&mut self) {
        // SAFETY: the event lives in a box, hence at a stable address, until
        // drop takes it out of the queue.
        unsafe { post_event(&raw mut *self.event, &raw mut ngx_posted_events) };
    }
}

/// Has an event handled in the next turn of the event loop.
///
/// # Safety
///
/// `event` is that of an open connection, which takes it out of the queue when
/// it closes.
pub unsafe fn post_next(event: *mut ngx_event_t) {
    // SAFETY: by this function's contract.
    unsafe { post_event(event, &raw mut ngx_posted_next_events) };
}

/// `ngx_post_event`
///
/// # Safety
///
/// `event` stays where it is until it is taken out of `queue`, one of nginx's.
unsafe fn post_event(event: *mut ngx_event_t, queue: *mut ngx_queue_t) {
    // SAFETY: by this function's contract; nginx's queue is a ring with a
    // sentinel.
    unsafe {
        if (*event).posted() != 0 {
            return;
        }
        (*event).set_posted(1);
        let node = &raw mut (*event).queue;
        (*node).prev = (*queue).prev;
        (*(*node).prev).next = node;
        (*node).next = queue;
        (*queue).prev = node;
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        if self.event.posted() != 0 {
            // SAFETY: it is in nginx's queue (`ngx_delete_posted_event`).
            unsafe {
                let node = &self.event.queue;
                (*node.next).prev = node.prev;
                (*node.prev).next = node.next;
            }
        }
    }
}

/// The time of the current turn of the event loop.
pub fn now() -> Msec {
    // SAFETY: nginx's global, written by this thread only.
    unsafe { ngx_current_msec }
}

/// Whether the worker is about to end: what becomes idle is to be closed.
pub fn is_exiting() -> bool {
    // SAFETY: as above.
    unsafe { ngx_exiting != 0 || ngx_terminate != 0 }
}

/// Whether nginx closes idle connections before it gives the next one away
/// (`ngx_drain_connections`).
#[inline(always)]
pub fn is_scarce() -> bool {
    // SAFETY: the cycle exists while nginx runs; this is its only thread.
    unsafe {
        (*ngx_cycle).free_connection_n <= (*ngx_cycle).connection_n / 16
            && (*ngx_cycle).reusable_connections_n > 0
    }
}

/// Has nginx close idle connections if they are scarce, as it does when it opens
/// one. Closing one can end a request, whose `log_by_lua*` and clean-up may run
/// any code: not to be called while the worker's state is in use.
#[cold]
pub fn make_room() {
    if !is_scarce() {
        return;
    }
    // SAFETY: the cycle exists while nginx runs. A connection is opened and
    // closed, as nginx does it: nothing but a free one is left of it. There is
    // nobody to be told if there is none.
    unsafe {
        let socket = libc::socket(libc::AF_UNIX, libc::SOCK_STREAM | libc::SOCK_CLOEXEC, 0);
        if socket == -1 {
            return;
        }
        let connection = ngx_get_connection(socket, silent_log());
        if connection.is_null() {
            libc::close(socket);
        } else {
            ngx_close_connection(connection);
        }
    }
}

/// The result of `f`, which opens connections. Meanwhile nginx closes no idle
/// ones for them: see [`make_room`], whose time was before.
pub fn without_draining<R>(f: impl FnOnce() -> R) -> R {
    /// Puts back what was taken away, whatever happens. What was counted
    /// meanwhile, up or down, counts.
    struct Held(ngx_uint_t);
    impl Drop for Held {
        fn drop(&mut self) {
            // SAFETY: the cycle exists while nginx runs.
            unsafe {
                let count = &raw mut (*ngx_cycle).reusable_connections_n;
                *count = (*count).wrapping_add(self.0);
            }
        }
    }
    // SAFETY: as above. nginx looks at this number for nothing else, and `f`
    // neither makes a connection reusable nor closes one that is.
    let _held = unsafe {
        let count = &raw mut (*ngx_cycle).reusable_connections_n;
        Held(std::mem::replace(&mut *count, 0))
    };
    f()
}

/// The id of the timer or connection that an event belongs to.
///
/// # Safety
///
/// `event` is one that nginx passed to a handler of this module, so its data
/// is a connection (or a timer's stand-in for one).
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
