//! Handlers that run when a request ends.

use std::ffi::c_void;
use std::ptr::NonNull;

use nginx_sys::{ngx_http_cleanup_pt, ngx_http_cleanup_t, ngx_http_request_t};

// SAFETY: the declarations match ngx_lua's sources, 0.10.23 and later.
unsafe extern "C" {
    // Both reuse entries, so that a request (or a timer) that calls them often
    // does not grow.
    fn ngx_http_lua_cleanup_add(r: *mut ngx_http_request_t, size: usize)
    -> *mut ngx_http_cleanup_t;
    fn ngx_http_lua_cleanup_free(r: *mut ngx_http_request_t, cleanup: *mut ngx_http_cleanup_pt);
}

/// A handler registered with a request. Dropping this value does not unregister
/// it; [`Self::cancel`] does.
#[derive(Debug)]
pub struct Cleanup {
    request: Request,
    entry: NonNull<ngx_http_cleanup_t>,
}

impl Cleanup {
    /// Registers `handler(id)` to run at the end of `request`; for a
    /// subrequest at the end of its main request. `None`: no memory.
    pub fn register(
        request: Request,
        handler: unsafe extern "C" fn(*mut c_void),
        id: u64,
    ) -> Option<Cleanup> {
        // SAFETY: the request is live; a new entry is ours to fill.
        unsafe {
            let entry = NonNull::new(ngx_http_lua_cleanup_add(request.as_ptr(), 0))?;
            (*entry.as_ptr()).handler = Some(handler);
            (*entry.as_ptr()).data = id as usize as *mut c_void;
            Some(Cleanup { request, entry })
        }
    }

    /// The request it was registered with.
    pub fn request(&self) -> Request {
        self.request
    }

    /// Unregisters the handler.
    ///
    /// # Safety
    ///
    /// The handler did not run yet; hence the request is still live.
    pub unsafe fn cancel(self) {
        // SAFETY: the entry lives as long as the request. ngx_lua cannot unlink
        // it when the request has lost its context (after ngx.exec), so the
        // handler is cleared first.
        unsafe {
            (*self.entry.as_ptr()).handler = None;
            ngx_http_lua_cleanup_free(
                self.request.as_ptr(),
                &raw mut (*self.entry.as_ptr()).handler,
            );
        }
    }
}
use crate::nginx::Request;
