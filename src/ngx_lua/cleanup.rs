//! Handlers that run when a request ends.

use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;

use nginx_sys::{ngx_http_cleanup_pt, ngx_http_cleanup_t};

use crate::nginx::{Live, Request};

/// `ngx_http_cleanup_t`
#[derive(Debug)]
#[repr(C)]
struct Entry {
    handler: Cell<ngx_http_cleanup_pt>,
    data: Cell<*mut c_void>,
    next: Cell<*mut c_void>,
}

const _: () = assert!(size_of::<Entry>() == size_of::<ngx_http_cleanup_t>());

// SAFETY: the declarations match ngx_lua's sources, 0.10.23 and later.
unsafe extern "C" {
    // Both reuse entries, so that a request (or a timer) that calls them often does not grow.
    safe fn ngx_http_lua_cleanup_add(request: Request, size: usize) -> Option<Live<Entry>>;
    fn ngx_http_lua_cleanup_free(request: Request, handler: *const Cell<ngx_http_cleanup_pt>);
}

/// A handler registered with a request. Dropping this value does not unregister it;
/// [`Self::cancel`] does.
#[derive(Debug)]
pub struct Cleanup {
    request: Request,
    entry: Live<Entry>,
}

impl Cleanup {
    /// Registers `handler(id)` to run at the end of `request`; for a subrequest at the end of its
    /// main request. `None`: no memory.
    pub fn register(
        request: Request,
        handler: unsafe extern "C" fn(*mut c_void),
        id: u64,
    ) -> Option<Cleanup> {
        let entry = ngx_http_lua_cleanup_add(request, 0)?;
        entry.handler.set(Some(handler));
        entry.data.set(ptr::without_provenance_mut(id as usize));
        Some(Cleanup { request, entry })
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
        // ngx_lua cannot unlink it when the request has lost its context (after ngx.exec), so the
        // handler is cleared first
        self.entry.handler.set(None);
        // SAFETY: the entry lives as long as the request; its handler is its first field.
        unsafe { ngx_http_lua_cleanup_free(self.request, self.entry.as_ptr().cast()) };
    }
}
