//! Where ngx_lua keeps the coroutines of a request: the parts of
//! `ngx_http_lua_ctx_t` and `ngx_http_lua_co_ctx_t` that are the same in all
//! versions since 0.10.23. They are read only after [`Layout::find`] has
//! verified that the loaded ngx_lua has them where they are expected.

use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use mlua::ffi::lua_State;
use nginx_sys::{NGX_LOG_ALERT, ngx_event_t, ngx_http_request_t, ngx_int_t, ngx_queue_t};

use super::ngx_http_lua_module;
use super::semaphore::Semaphore;
use crate::nginx::{self, Log, Request};

/// What ngx_lua calls when a waiting coroutine ends.
pub(super) type CleanupHandler = Option<unsafe extern "C" fn(*mut c_void)>;

/// `LUA_NOREF`: ngx_lua does not hold the coroutine, or no longer. It holds
/// light threads and entry threads until they end, and no others.
const NO_REF: c_int = -2;

/// `NGX_HTTP_LUA_CO_RUNNING` and `NGX_HTTP_LUA_CO_DEAD`
const RUNNING: u32 = 0;
const DEAD: u32 = 3;

/// The bits after `co_ref` in `ngx_http_lua_co_ctx_t`.
const FLAGS: u32 = 0x3ff;

/// The beginning of `ngx_http_lua_ctx_t`, ngx_lua's context of a request. The
/// entry thread's [`CoCtx`] follows.
#[repr(C)]
pub(super) struct Ctx {
    vm_state: *mut c_void,
    request: *mut ngx_http_request_t,
    resume_handler: *mut c_void,
    /// The coroutine that ngx_lua runs and would resume.
    pub(super) running: *mut CoCtx,
    user_co_ctx: *mut c_void,
}

/// The fields of `ngx_http_lua_ctx_t` between the entry thread and `cleanup`.
const BEFORE_CLEANUP: usize = 64;

/// The beginning of `ngx_http_lua_co_ctx_t`, ngx_lua's context of a coroutine.
#[repr(C)]
pub(super) struct CoCtx {
    /// What it waits for, a semaphore for instance.
    pub(super) data: *mut c_void,
    pub(super) co: *mut lua_State,
    /// The coroutine that has resumed it or, for a light thread, spawned it.
    pub(super) parent: *mut CoCtx,
    zombies: [*mut c_void; 2],
    pub(super) cleanup: CleanupHandler,
}

/// The end of `ngx_http_lua_co_ctx_t`. The event `sleep` is right before it.
#[repr(C)]
struct CoCtxEnd {
    sem_wait_queue: ngx_queue_t,
    co_ref: c_int,
    /// From the lowest bit: `waited_by_parent`, three of `co_status`, others.
    flags: u32,
}

/// The offsets that differ from version to version, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Of [`CoCtxEnd`] in a coroutine's.
    end: usize,
    /// Of `cleanup` in the request's: it points to the handler that ngx_lua
    /// registers for a run of Lua code and unregisters when the run ends.
    cleanup: usize,
}

/// `None` if the loaded ngx_lua is not as expected.
static LAYOUT: OnceLock<Option<Layout>> = OnceLock::new();

impl Layout {
    /// The layout of the loaded ngx_lua. `None` if it is unknown, or if
    /// `request` may not wait now.
    ///
    /// # Safety
    ///
    /// `request` is the one whose Lua code runs right now.
    #[inline(always)]
    pub(super) unsafe fn get(request: Request) -> Option<Layout> {
        match LAYOUT.get() {
            Some(layout) => *layout,
            // SAFETY: by this function's contract.
            None => unsafe { Layout::first(request) },
        }
    }

    #[cold]
    unsafe fn first(request: Request) -> Option<Layout> {
        // SAFETY: by the caller's contract.
        let layout = unsafe { Layout::find(request)? };
        if layout.is_none() {
            Log::of_cycle().write(
                NGX_LOG_ALERT,
                0,
                format_args!("lua memcached: this version of ngx_http_lua_module is unknown"),
            );
        }
        *LAYOUT.get_or_init(|| layout)
    }

    /// Makes the running coroutine wait for a moment, and inspects what ngx_lua
    /// has done for that. `None` if it may not wait now.
    unsafe fn find(request: Request) -> Option<Option<Layout>> {
        let semaphore = Semaphore::new()?;
        // SAFETY: by the caller's contract. What waits is in the semaphore's
        // queue, with its event right before it, and the event's data is the
        // coroutine's. It is verified before anything is called.
        unsafe {
            let Some(node) = semaphore.probe(request) else {
                semaphore.free();
                return None;
            };
            let layout = Layout::of(node, semaphore.address(), request);
            if let Some((_, co_ctx)) = layout {
                leave(co_ctx);
                semaphore.free();
            } else {
                // only the two queues can be restored
                let sleep = node.cast::<ngx_event_t>().as_ptr().sub(1);
                nginx::stop_timer(sleep);
                (*(*node.as_ptr()).next).prev = (*node.as_ptr()).prev;
                (*(*node.as_ptr()).prev).next = (*node.as_ptr()).next;
                (*node.as_ptr()).next = node.as_ptr();
                (*node.as_ptr()).prev = node.as_ptr();
            }
            Some(layout.map(|(layout, _)| layout))
        }
    }

    /// Derives the layout from the address of `node`, with which the running
    /// coroutine has just been queued.
    unsafe fn of(
        node: NonNull<ngx_queue_t>,
        semaphore: *mut c_void,
        request: Request,
    ) -> Option<(Layout, NonNull<CoCtx>)> {
        // SAFETY: by the caller's contract: an event is right before the node.
        // The coroutine's memory begins before and ends behind it.
        unsafe {
            let sleep = node.cast::<ngx_event_t>().as_ptr().sub(1);
            let co_ctx = NonNull::new((*sleep).data.cast::<CoCtx>())?;
            let end = (node.addr().get()).checked_sub(co_ctx.addr().get())?;
            let head = size_of::<CoCtx>() + size_of::<ngx_event_t>();
            if end < head || end > 4 * head || end % align_of::<CoCtx>() != 0 {
                return None;
            }
            let layout = Layout {
                end,
                cleanup: size_of::<Ctx>() + end + size_of::<CoCtxEnd>() + BEFORE_CLEANUP,
            };
            let ctx = ctx(request)?;
            let flags = (*layout.end_of(co_ctx)).flags;
            let as_expected = (*co_ctx.as_ptr()).data == semaphore
                && is_of_ngx_lua((*co_ctx.as_ptr()).cleanup)
                && (*ctx.as_ptr()).request == request.as_ptr()
                && (*ctx.as_ptr()).running == co_ctx.as_ptr()
                && flags & !FLAGS == 0
                && status(flags) == RUNNING
                && layout.run(ctx).is_some_and(|run| is_for(run, ctx));
            as_expected.then_some((layout, co_ctx))
        }
    }

    fn end_of(self, co_ctx: NonNull<CoCtx>) -> *mut CoCtxEnd {
        co_ctx.as_ptr().wrapping_byte_add(self.end).cast()
    }

    /// Whether ngx_lua holds the coroutine: it is a light thread or an entry
    /// thread that has not ended.
    ///
    /// # Safety
    ///
    /// The coroutine's request has not ended.
    #[inline(always)]
    pub(super) unsafe fn is_held(self, co_ctx: NonNull<CoCtx>) -> bool {
        // SAFETY: by this function's contract.
        unsafe { (*self.end_of(co_ctx)).co_ref != NO_REF }
    }

    /// Whether the coroutine has ended, or was ended.
    ///
    /// # Safety
    ///
    /// As for [`Self::is_held`].
    pub(super) unsafe fn is_dead(self, co_ctx: NonNull<CoCtx>) -> bool {
        // SAFETY: by this function's contract.
        status(unsafe { (*self.end_of(co_ctx)).flags }) == DEAD
    }

    /// The address of the handler that ngx_lua has registered for the current
    /// run of Lua code. It is in the request's memory, and is cleared when the
    /// run ends.
    ///
    /// # Safety
    ///
    /// `ctx` is that of a request that has not ended.
    pub(super) unsafe fn run(self, ctx: NonNull<Ctx>) -> Option<NonNull<CleanupHandler>> {
        // SAFETY: by this function's contract.
        unsafe {
            let at = ctx.as_ptr().byte_add(self.cleanup);
            NonNull::new(at.cast::<*mut CleanupHandler>().read())
        }
    }
}

/// ngx_lua's context of a request. `None` if it has none (after `ngx.exec`).
///
/// # Safety
///
/// `request` has not ended.
#[inline(always)]
pub(super) unsafe fn ctx(request: Request) -> Option<NonNull<Ctx>> {
    // SAFETY: by this function's contract; a request has a place for each module.
    unsafe {
        let at = (*request.as_ptr()).ctx.add(ngx_http_lua_module.ctx_index);
        NonNull::new((*at).cast())
    }
}

/// Ends the waiting of a coroutine: ngx_lua's own handler removes it from the
/// queue, and its timer from nginx's tree.
///
/// # Safety
///
/// The coroutine's request has not ended, and it waits for one of our semaphores.
pub(super) unsafe fn leave(co_ctx: NonNull<CoCtx>) {
    // SAFETY: by this function's contract.
    unsafe {
        if let Some(cleanup) = (*co_ctx.as_ptr()).cleanup.take() {
            cleanup(co_ctx.as_ptr().cast());
        }
    }
}

fn status(flags: u32) -> u32 {
    flags >> 1 & 7
}

/// Whether the handler that ngx_lua has registered for a run of Lua code
/// belongs to this request.
unsafe fn is_for(run: NonNull<CleanupHandler>, ctx: NonNull<Ctx>) -> bool {
    // SAFETY: by the caller's contract: the handler's argument follows it.
    unsafe {
        is_of_ngx_lua(*run.as_ptr()) && *run.as_ptr().add(1).cast::<*mut Ctx>() == ctx.as_ptr()
    }
}

/// Whether a handler is a function in the code of ngx_lua.
fn is_of_ngx_lua(handler: CleanupHandler) -> bool {
    let Some(handler) = handler else {
        return false;
    };
    match (object(handler as *const c_void), object(Semaphore::code())) {
        (Some(one), Some(other)) => one == other,
        _ => false,
    }
}

/// The address at which the shared object of an address is loaded.
fn object(address: *const c_void) -> Option<*mut c_void> {
    let mut info = libc::Dl_info {
        dli_fname: ptr::null(),
        dli_fbase: ptr::null_mut(),
        dli_sname: ptr::null(),
        dli_saddr: ptr::null_mut(),
    };
    // SAFETY: only looks the address up.
    (unsafe { libc::dladdr(address, &mut info) } != 0).then_some(info.dli_fbase)
}

const _: () = assert!(size_of::<ngx_int_t>() == 8 && size_of::<CoCtxEnd>() == 24);
