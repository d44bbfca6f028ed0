//! Posted events: what nginx handles later in an iteration of its event loop, or in the next.

use nginx_sys::{ngx_event_t, ngx_posted_events, ngx_posted_next_events, ngx_queue_t};

use super::live::Zeroed;
use super::log::silent_log;

/// An event that is handled at the end of the current iteration of the event loop, after what was
/// posted before it.
pub struct Posted {
    event: Box<ngx_event_t>,
}

impl Posted {
    /// An event that will call `handler`, not posted. It may outlive the cycle, so its log is none
    /// of a cycle.
    pub fn new(handler: unsafe extern "C" fn(*mut ngx_event_t)) -> Posted {
        let mut event = Box::new(ngx_event_t::ZEROED);
        event.handler = Some(handler);
        event.log = silent_log();
        Posted { event }
    }

    /// Posts it, unless it is already (`ngx_post_event`).
    pub fn post(&mut self) {
        // SAFETY: the event lives in a box, hence at a stable address, until drop takes it out of
        // the queue.
        unsafe { post_event(&raw mut *self.event, &raw mut ngx_posted_events) };
    }
}

impl Drop for Posted {
    fn drop(&mut self) {
        if self.event.posted() != 0 {
            // SAFETY: it is in nginx's queue (`ngx_delete_posted_event`).
            unsafe { unlink(&raw const self.event.queue) };
        }
    }
}

/// Has an event handled in the next iteration of the event loop.
///
/// # Safety
///
/// `event` is that of an open connection, which takes it out of the queue when it closes.
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
    // SAFETY: by this function's contract; nginx's queue is a ring with a sentinel.
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

/// `ngx_queue_remove`
///
/// # Safety
///
/// `node` is in a queue.
pub unsafe fn unlink(node: *const ngx_queue_t) {
    // SAFETY: by this function's contract.
    unsafe {
        (*(*node).next).prev = (*node).prev;
        (*(*node).prev).next = (*node).next;
    }
}
