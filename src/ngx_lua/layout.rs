//! Where ngx_lua keeps the coroutines of a request: the parts of `ngx_http_lua_ctx_t` and
//! `ngx_http_lua_co_ctx_t` that are the same in all versions since 0.10.23. They are read only
//! after [`Layout::find`] has verified that the loaded ngx_lua has them where they are expected.

use std::cell::Cell;
use std::ffi::{c_int, c_void};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use mlua::ffi::lua_State;
use nginx_sys::{NGX_LOG_ALERT, ngx_event_t, ngx_http_request_t, ngx_int_t, ngx_queue_t};

use super::semaphore::{Semaphore, Wait};
use super::state::State;
use crate::nginx::{self, Live, Log, Module, Request};

// SAFETY: the declaration matches ngx_lua's sources, 0.10.23 and later.
unsafe extern "C" {
    pub(super) safe static ngx_http_lua_module: Module<LocConf, Ctx>;
}

/// ngx_lua's configuration of a location, see `settings`.
pub(super) struct LocConf(());

/// What ngx_lua calls when a waiting coroutine ends.
type CleanupHandler = Option<unsafe extern "C" fn(*mut c_void)>;

/// `LUA_NOREF`: ngx_lua does not hold the coroutine, or no longer. It holds light threads and entry
/// threads until they end, and no others.
const NO_REF: c_int = -2;

/// `NGX_HTTP_LUA_CO_RUNNING` and `NGX_HTTP_LUA_CO_DEAD`
const RUNNING: u32 = 0;
const DEAD: u32 = 3;

/// The bits after `co_ref` in `ngx_http_lua_co_ctx_t`.
const FLAGS: u32 = 0x3ff;

/// The beginning of `ngx_http_lua_ctx_t`, ngx_lua's context of a request. The entry thread's
/// [`CoCtx`] follows.
#[repr(C)]
pub(super) struct Ctx {
    vm_state: Cell<*mut c_void>,
    request: Cell<*mut ngx_http_request_t>,
    resume_handler: Cell<*mut c_void>,
    /// The coroutine that ngx_lua runs and would resume.
    running: Cell<Option<Live<CoCtx>>>,
    user_co_ctx: Cell<*mut c_void>,
}

/// The fields of `ngx_http_lua_ctx_t` between the entry thread and `cleanup`.
const BEFORE_CLEANUP: usize = 64;

/// The beginning of `ngx_http_lua_co_ctx_t`, ngx_lua's context of a coroutine.
#[repr(C)]
pub(super) struct CoCtx {
    /// What it waits for, a semaphore for instance.
    data: Cell<*mut c_void>,
    co: Cell<*mut lua_State>,
    /// The coroutine that has resumed it or, for a light thread, spawned it.
    parent: Cell<Option<Live<CoCtx>>>,
    zombies: [Cell<*mut c_void>; 2],
    cleanup: Cell<CleanupHandler>,
}

/// The end of `ngx_http_lua_co_ctx_t`. The event `sleep` is right before it.
#[repr(C)]
struct CoCtxEnd {
    sem_wait_queue: Cell<[*mut ngx_queue_t; 2]>,
    co_ref: Cell<c_int>,
    /// From the lowest bit: `waited_by_parent`, three of `co_status`, others.
    flags: Cell<u32>,
}

/// What ngx_lua has registered for a run of Lua code, the beginning of `ngx_http_cleanup_t`. The
/// handler is cleared when the run ends.
#[repr(C)]
pub(super) struct Run {
    handler: Cell<CleanupHandler>,
    data: Cell<*mut c_void>,
}

/// The offsets that differ from version to version, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    /// Of [`CoCtxEnd`] in a coroutine's.
    end: usize,
    /// Of `cleanup` in the request's: it points to the handler that ngx_lua registers for a run of
    /// Lua code and unregisters when the run ends.
    cleanup: usize,
}

/// `None` if the loaded ngx_lua is not as expected.
static LAYOUT: OnceLock<Option<Layout>> = OnceLock::new();

impl Layout {
    /// The layout of the loaded ngx_lua. `None` if it is unknown, or if `request`, the running one,
    /// may not wait now.
    #[inline(always)]
    pub(super) fn get(state: State, request: Request) -> Option<Layout> {
        match LAYOUT.get() {
            Some(layout) => *layout,
            None => Layout::first(state.running_request().filter(|r| *r == request)?),
        }
    }

    /// Makes the running coroutine wait for a moment, and inspects what ngx_lua has done for that.
    /// `None` also if it may not wait now.
    #[cold]
    fn first(request: Request) -> Option<Layout> {
        let semaphore = Semaphore::new()?;
        // SAFETY: it is the running request. What waits is in the semaphore's queue, with its event
        // right before it, and the event's data is the coroutine's. It is verified before anything
        // is called.
        let layout = unsafe {
            let queued = match semaphore.wait(request) {
                Wait::Queued => semaphore.last_queued(),
                Wait::Done | Wait::Declined | Wait::Refused(_) => None,
            };
            let Some(node) = queued else {
                semaphore.free();
                return None;
            };
            let sleep = node.cast::<ngx_event_t>().as_ptr().sub(1);
            let co_ctx = NonNull::new((*sleep).data.cast()).map(|at| Live::new(at));
            let layout = Layout::of(node, co_ctx, &semaphore, request);
            if layout.is_none() {
                // only the two queues can be restored
                nginx::stop_timer(sleep);
                nginx::unlink(node.as_ptr());
                (*node.as_ptr()).next = node.as_ptr();
                (*node.as_ptr()).prev = node.as_ptr();
            }
            layout
        };
        match layout {
            Some((_, co_ctx)) => {
                co_ctx.leave();
                semaphore.free();
            }
            None => Log::of_cycle().write(
                NGX_LOG_ALERT,
                0,
                format_args!("lua memcached: this version of ngx_http_lua_module is unknown"),
            ),
        }
        *LAYOUT.get_or_init(|| layout.map(|(layout, _)| layout))
    }

    /// Derives the layout from the address of `node`, with which the running coroutine has just
    /// been queued: its memory begins before and ends behind that.
    fn of(
        node: NonNull<ngx_queue_t>,
        co_ctx: Option<Live<CoCtx>>,
        semaphore: &Semaphore,
        request: Request,
    ) -> Option<(Layout, Live<CoCtx>)> {
        let co_ctx = co_ctx?;
        let end = (node.addr().get()).checked_sub(co_ctx.as_ptr().addr())?;
        let head = size_of::<CoCtx>() + size_of::<ngx_event_t>();
        if end < head || end > 4 * head || end % align_of::<CoCtx>() != 0 {
            return None;
        }
        let layout = Layout {
            end,
            cleanup: size_of::<Ctx>() + end + size_of::<CoCtxEnd>() + BEFORE_CLEANUP,
        };
        let ctx = ctx(request)?;
        let flags = co_ctx.end(layout).flags.get();
        let as_expected = co_ctx.data.get() == semaphore.address()
            && is_of_ngx_lua(co_ctx.cleanup.get())
            && ctx.request.get() == request.as_ptr()
            && ctx.running() == Some(co_ctx)
            && flags & !FLAGS == 0
            && status(flags) == RUNNING
            && ctx.run(layout).is_some_and(|run| run.is_for(ctx));
        as_expected.then_some((layout, co_ctx))
    }
}

/// ngx_lua's context of a request. `None` if it has none (after `ngx.exec`).
#[inline(always)]
pub(super) fn ctx(request: Request) -> Option<Live<Ctx>> {
    request.context(&ngx_http_lua_module)
}

impl Live<Ctx> {
    /// The coroutine that ngx_lua runs, if any.
    #[inline(always)]
    pub(super) fn running(self) -> Option<Live<CoCtx>> {
        self.running.get()
    }

    /// What ngx_lua has registered for the current run of Lua code. It is in the request's memory.
    pub(super) fn run(self, layout: Layout) -> Option<Live<Run>> {
        // SAFETY: the context has such a pointer there, which may be null.
        unsafe {
            self.as_ptr()
                .byte_add(layout.cleanup)
                .cast::<Option<Live<Run>>>()
                .read()
        }
    }
}

impl Live<Run> {
    /// Whether it belongs to this context.
    fn is_for(self, ctx: Live<Ctx>) -> bool {
        is_of_ngx_lua(self.handler.get()) && self.data.get() == ctx.as_ptr().cast()
    }

    /// Whether the run of Lua code has ended.
    pub(super) fn has_ended(self) -> bool {
        self.handler.get().is_none()
    }
}

impl Live<CoCtx> {
    /// Its Lua state.
    #[inline(always)]
    pub(super) fn state(self) -> *mut lua_State {
        self.co.get()
    }

    /// The coroutine that has resumed it or, for a light thread, spawned it.
    pub(super) fn parent(self) -> Option<Live<CoCtx>> {
        self.parent.get()
    }

    #[inline(always)]
    fn end(self, layout: Layout) -> Live<CoCtxEnd> {
        // SAFETY: the layout says where it is.
        unsafe {
            Live::new(NonNull::new_unchecked(
                self.as_ptr().byte_add(layout.end).cast(),
            ))
        }
    }

    /// Whether ngx_lua holds the coroutine: it is a light thread or an entry thread that has not
    /// ended.
    #[inline(always)]
    pub(super) fn is_held(self, layout: Layout) -> bool {
        self.end(layout).co_ref.get() != NO_REF
    }

    /// Whether the coroutine has ended, or was ended.
    pub(super) fn is_dead(self, layout: Layout) -> bool {
        status(self.end(layout).flags.get()) == DEAD
    }

    /// Ends the waiting of a coroutine: ngx_lua's own handler removes it from the queue, and its
    /// timer from nginx's tree.
    pub(super) fn leave(self) {
        if let Some(cleanup) = self.cleanup.take() {
            // SAFETY: a coroutine that waits has a handler for that.
            unsafe { cleanup(self.as_ptr().cast()) };
        }
    }
}

fn status(flags: u32) -> u32 {
    flags >> 1 & 7
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
