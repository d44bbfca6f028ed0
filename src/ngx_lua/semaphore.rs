//! How a coroutine waits: the semaphores behind `ngx.semaphore`.
//!
//! `ngx_http_lua_ffi_sema_post` only queues a posted event, so Lua never runs inside one of our
//! event handlers.

use std::ffi::{c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::ptr::{self, NonNull};

use nginx_sys::{NGX_AGAIN, NGX_DECLINED, NGX_OK, ngx_cycle_t, ngx_int_t, ngx_queue_t, u_char};

use crate::nginx::{Request, current_cycle};
use crate::reserve::MEMORY;

/// Size in bytes of the buffer for error texts of ngx_lua.
const MAX_TEXT: usize = 256;

/// `ngx_http_lua_sema_t`, of which the beginning is the queue of waiting coroutines, longest
/// waiting first.
type RawSemaphore = ngx_queue_t;

/// A semaphore that was not freed.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Raw(NonNull<RawSemaphore>);

// SAFETY: the declarations match ngx_lua's sources, 0.10.23 and later.
unsafe extern "C" {
    safe fn ngx_http_lua_ffi_sema_new(
        semaphore: &mut Option<Raw>,
        resources: c_int,
        errmsg: &mut *mut c_char,
    ) -> c_int;
    safe fn ngx_http_lua_ffi_sema_post(semaphore: Raw, resources: c_int) -> c_int;
    fn ngx_http_lua_ffi_sema_wait(
        r: Request,
        semaphore: Raw,
        wait_ms: c_int,
        err: *mut u_char,
        errlen: *mut usize,
    ) -> c_int;
    safe fn ngx_http_lua_ffi_sema_count(semaphore: Raw) -> c_int;
    fn ngx_http_lua_ffi_sema_gc(semaphore: Raw);
}

/// A semaphore of ngx_lua with no resource, for one waiter at a time.
#[derive(Debug)]
pub struct Semaphore {
    raw: Raw,
    cycle: *mut ngx_cycle_t,
}

/// The result of a request to wait.
#[derive(Debug)]
pub enum Wait {
    /// The coroutine is queued; the C function has to yield now.
    Queued,
    /// A post was pending.
    Done,
    /// It could wait, but the timeout was 0.
    Declined,
    /// It may not wait in this phase; ngx_lua's own text says why.
    Refused(String),
}

impl Semaphore {
    pub(super) fn new() -> Option<Semaphore> {
        let (mut raw, mut errmsg) = (None, ptr::null_mut());
        if ngx_http_lua_ffi_sema_new(&mut raw, 0, &mut errmsg) != NGX_OK as c_int {
            return None;
        }
        Some(Semaphore {
            raw: raw?,
            cycle: current_cycle(),
        })
    }

    /// Queues the running coroutine of `request`, which [`Waiter::running`](super::Waiter::running)
    /// has returned, to wait for [`Self::post`]. It has no effective timeout, because operations
    /// have their own.
    ///
    /// # Safety
    ///
    /// `request` is the one whose Lua code runs right now.
    pub unsafe fn wait(&self, request: Request) -> Wait {
        // SAFETY: by this function's contract.
        unsafe { self.wait_ms(request, c_int::MAX) }
    }

    /// The node of the coroutine that was queued last.
    pub(super) fn last_queued(&self) -> Option<NonNull<ngx_queue_t>> {
        NonNull::new(self.queue().prev)
    }

    /// Its address, as ngx_lua knows it.
    pub(super) fn address(&self) -> *mut c_void {
        self.raw.0.as_ptr().cast()
    }

    /// An address in ngx_lua's code.
    pub(super) fn code() -> *const c_void {
        ngx_http_lua_ffi_sema_wait as *const c_void
    }

    /// Whether the coroutine that was made to wait still does, as far as ngx_lua knows.
    #[inline(always)]
    pub fn is_queued(&self) -> bool {
        self.queue().next != self.raw.0.as_ptr()
    }

    /// The ring of waiting coroutines.
    #[inline(always)]
    fn queue(&self) -> ngx_queue_t {
        // SAFETY: the semaphore was not freed, and begins with it.
        unsafe { self.raw.0.read() }
    }

    #[inline(always)]
    unsafe fn wait_ms(&self, request: Request, wait_ms: c_int) -> Wait {
        let mut text = [MaybeUninit::<u8>::uninit(); MAX_TEXT];
        let mut len = text.len();
        // SAFETY: the semaphore is live; at most `len` bytes of text are written.
        let rc = unsafe {
            ngx_http_lua_ffi_sema_wait(
                request,
                self.raw,
                wait_ms,
                text.as_mut_ptr().cast(),
                &mut len,
            )
        };
        match rc as ngx_int_t {
            rc if rc == NGX_AGAIN as ngx_int_t => Wait::Queued,
            rc if rc == NGX_OK as ngx_int_t => Wait::Done,
            rc if rc == NGX_DECLINED as ngx_int_t => Wait::Declined,
            // an unchanged length means that there is no text
            _ if len >= text.len() => Wait::Refused(String::new()),
            _ => {
                let text = text.get(..len).unwrap_or_default();
                // SAFETY: ngx_lua has written so many bytes, and told so.
                let text = unsafe { std::slice::from_raw_parts(text.as_ptr().cast(), text.len()) };
                Wait::Refused(String::from_utf8_lossy(text).into_owned())
            }
        }
    }

    /// Wakes the waiting coroutine, once the current event handler is done.
    pub fn post(&self) {
        ngx_http_lua_ffi_sema_post(self.raw, 1);
    }

    /// Posts not consumed minus waiting coroutines: -1 while a coroutine waits, 0 when it was woken
    /// (or is gone), 1 when it was killed between the post and its waking.
    pub fn count(&self) -> i32 {
        ngx_http_lua_ffi_sema_count(self.raw)
    }

    pub(super) fn free(self) {
        // SAFETY: it is given up here.
        unsafe { ngx_http_lua_ffi_sema_gc(self.raw) };
    }

    fn is_current(&self) -> bool {
        self.cycle == current_cycle()
    }
}

/// The worker's stock of semaphores.
#[derive(Debug, Default)]
pub struct Semaphores {
    free: Vec<Semaphore>,
    probe: Option<Semaphore>,
}

impl Semaphores {
    /// An unused semaphore. `None` if there is no memory, or only the reserve for operations under
    /// way.
    pub fn take(&mut self) -> Option<Semaphore> {
        if !MEMORY.fill() {
            return None;
        }
        while let Some(semaphore) = self.free.pop() {
            // those of an older cycle are in memory that is freed with it
            if semaphore.is_current() && semaphore.count() == 0 {
                return Some(semaphore);
            }
            semaphore.free();
        }
        Semaphore::new()
    }

    /// Takes back a semaphore for which nothing waits. If a post is pending, it is not used again.
    pub fn give(&mut self, semaphore: Semaphore) {
        let reusable = semaphore.is_current() && semaphore.count() == 0;
        if reusable && self.free.try_reserve(1).is_ok() {
            self.free.push(semaphore);
        } else {
            semaphore.free();
        }
    }

    /// Whether the running phase of `request` may wait: `Err` is ngx_lua's own text, e.g. `API
    /// disabled in the context of log_by_lua*`.
    ///
    /// # Safety
    ///
    /// As for [`Semaphore::wait`].
    pub unsafe fn check_phase(&mut self, request: Request) -> Result<(), String> {
        if !self.probe.as_ref().is_some_and(Semaphore::is_current) {
            self.renew_probe();
        }
        let Some(probe) = &self.probe else {
            return Err("no memory".into());
        };
        // SAFETY: by this function's contract.
        match unsafe { probe.wait_ms(request, 0) } {
            Wait::Refused(text) => Err(text),
            Wait::Queued | Wait::Done | Wait::Declined => Ok(()),
        }
    }

    #[cold]
    fn renew_probe(&mut self) {
        self.probe.take().into_iter().for_each(Semaphore::free);
        self.probe = Semaphore::new();
    }

    /// Frees all semaphores. At the end of a cycle, ngx_lua reports those that were not freed.
    pub fn free_all(&mut self) {
        let all = self.free.drain(..).chain(self.probe.take());
        all.for_each(Semaphore::free);
    }
}
