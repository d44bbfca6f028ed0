//! Which coroutine waits, and whether ngx_lua will resume it.
//!
//! ngx_lua resumes the coroutine that it considers as running, whichever one
//! has called us. Its clean-up ends waiting light threads and entry threads. It
//! does not know ordinary coroutines inside them, and would resume them into a
//! thread that has ended. So we check the coroutine before anything is sent,
//! and again before it is woken.

use std::ptr::NonNull;

use mlua::ffi::lua_State;

use super::anchor::Anchor;
use super::layout::{self, CleanupHandler, CoCtx, Ctx, Layout};
use crate::nginx::Request;

/// A coroutine that is to wait, and that ngx_lua will resume. It is dropped before
/// its request ends.
#[derive(Debug)]
pub enum Waiter {
    /// A light thread or an entry thread. When it ends, ngx_lua takes it out of
    /// what it waits for.
    Thread(Coroutine),
    /// An ordinary coroutine inside one.
    Nested(Box<Nested>),
}

/// A coroutine of a request, as ngx_lua knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coroutine(pub(super) NonNull<CoCtx>);

/// Why the running coroutine cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoWaiter {
    /// ngx_lua would resume another coroutine or none: this one was created by
    /// Lua's own `coroutine.create`, or its thread has ended.
    Unknown,
    /// There is no memory to prepare it.
    NoMemory,
}

/// What must not have ended when a coroutine is resumed.
#[derive(Debug)]
pub struct Nested {
    coroutine: Coroutine,
    layout: Layout,
    /// The light thread or entry thread that it runs in.
    thread: NonNull<CoCtx>,
    /// The handler that ngx_lua clears when the run of Lua code ends.
    run: NonNull<CleanupHandler>,
    /// Holds the coroutine and those between it and the thread. When the thread
    /// has ended, nothing else holds them, and their memory could belong to
    /// other coroutines when we check.
    _anchor: Anchor,
}

impl Waiter {
    /// The running coroutine, whose state is `state`. This may raise a Lua
    /// error when Lua has no memory.
    ///
    /// # Errors
    ///
    /// If it cannot wait.
    ///
    /// # Safety
    ///
    /// `state` is what Lua passed to the running C function, `request` the
    /// request whose Lua code runs. The value is dropped before the request ends.
    #[inline(always)]
    pub unsafe fn running(state: *mut lua_State, request: Request) -> Result<Waiter, NoWaiter> {
        // SAFETY: by this function's contract; the request has not ended.
        unsafe {
            let layout = Layout::get(request).ok_or(NoWaiter::Unknown)?;
            let ctx = layout::ctx(request).ok_or(NoWaiter::Unknown)?;
            let co_ctx = NonNull::new((*ctx.as_ptr()).running).ok_or(NoWaiter::Unknown)?;
            if (*co_ctx.as_ptr()).co != state {
                return Err(NoWaiter::Unknown);
            }
            match layout.is_held(co_ctx) {
                true => Ok(Waiter::Thread(Coroutine(co_ctx))),
                false => Nested::new(state, ctx, layout, co_ctx).map(Waiter::Nested),
            }
        }
    }

    /// Whether `state` is that of a running light thread or entry thread.
    /// ngx_lua runs these only in phases that may wait.
    ///
    /// # Safety
    ///
    /// As for [`Self::running`].
    #[inline(always)]
    pub unsafe fn is_thread(state: *mut lua_State, request: Request) -> bool {
        // SAFETY: by this function's contract; the request has not ended.
        unsafe {
            let (Some(layout), Some(ctx)) = (Layout::get(request), layout::ctx(request)) else {
                return false;
            };
            NonNull::new((*ctx.as_ptr()).running)
                .is_some_and(|co_ctx| (*co_ctx.as_ptr()).co == state && layout.is_held(co_ctx))
        }
    }

    /// Whether it may be resumed: neither the thread that it runs in nor the
    /// run of Lua code has ended.
    #[inline(always)]
    pub fn may_go_on(&self) -> bool {
        match self {
            Waiter::Thread(_) => true,
            Waiter::Nested(nested) => nested.may_go_on(),
        }
    }

    /// Has it wait no longer for one of our semaphores: nothing of it stays in a
    /// queue or in nginx's timers.
    pub fn stop_waiting(&self) {
        let Coroutine(co_ctx) = match self {
            Waiter::Thread(coroutine) => *coroutine,
            Waiter::Nested(nested) => nested.coroutine,
        };
        // SAFETY: its request has not ended, see the type.
        unsafe { layout::leave(co_ctx) };
    }
}

impl Nested {
    #[cold]
    unsafe fn new(
        state: *mut lua_State,
        ctx: NonNull<Ctx>,
        layout: Layout,
        co_ctx: NonNull<CoCtx>,
    ) -> Result<Box<Nested>, NoWaiter> {
        // SAFETY: by the caller's contract; of a suspended coroutine that others
        // wait for in turn, ngx_lua has the states.
        unsafe {
            let thread = thread(layout, co_ctx).ok_or(NoWaiter::Unknown)?;
            let run = layout.run(ctx).ok_or(NoWaiter::Unknown)?;
            let mut at = co_ctx;
            let chain = std::iter::from_fn(|| {
                let here = at;
                at = NonNull::new((*here.as_ptr()).parent).filter(|_| here != thread)?;
                Some((*at.as_ptr()).co)
            });
            let anchor = Anchor::new(state, chain).ok_or(NoWaiter::NoMemory)?;
            Ok(Box::new(Nested {
                coroutine: Coroutine(co_ctx),
                layout,
                thread,
                run,
                _anchor: anchor,
            }))
        }
    }

    #[cold]
    fn may_go_on(&self) -> bool {
        // SAFETY: what is pointed to is in the memory of the request, which has
        // not ended, see `Waiter`.
        unsafe { (*self.run.as_ptr()).is_some() && self.layout.is_held(self.thread) }
    }
}

/// The light thread or entry thread that a coroutine runs in; may be the
/// coroutine itself. `None` if it has ended.
///
/// # Safety
///
/// Its request has not ended.
unsafe fn thread(layout: Layout, mut co_ctx: NonNull<CoCtx>) -> Option<NonNull<CoCtx>> {
    loop {
        // SAFETY: by this function's contract.
        unsafe {
            if layout.is_held(co_ctx) {
                return Some(co_ctx);
            }
            if layout.is_dead(co_ctx) {
                return None;
            }
            co_ctx = NonNull::new((*co_ctx.as_ptr()).parent)?;
        }
    }
}
