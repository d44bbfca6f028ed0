//! Which coroutine waits, and whether ngx_lua will let it go on.
//!
//! ngx_lua resumes the coroutine that it runs, whichever one has called us. Its
//! clean-up ends light threads and entry threads that wait; it does not know of
//! ordinary coroutines inside them, which it would resume into a thread that is
//! gone. So we look at who waits before anything is sent, and again before it
//! is woken.

use std::ptr::NonNull;

use mlua::ffi::lua_State;
use nginx_sys::ngx_http_request_t;

use super::anchor::Anchor;
use super::layout::{self, CoCtx, Layout};

/// A coroutine that ngx_lua resumes when what it waits for is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coroutine {
    co_ctx: NonNull<CoCtx>,
    layout: Layout,
}

impl Coroutine {
    /// The running one, whose state is `state`. `None`: ngx_lua would resume
    /// another one or none, as with coroutines that are Lua's own.
    ///
    /// # Safety
    ///
    /// `state` is what Lua passed to the running C function, `request` the
    /// request whose Lua code runs.
    #[inline(always)]
    pub unsafe fn running(
        state: *mut lua_State,
        request: NonNull<ngx_http_request_t>,
    ) -> Option<Coroutine> {
        // SAFETY: by this function's contract; the request has not ended.
        unsafe {
            let layout = Layout::get(request)?;
            let ctx = layout::ctx(request)?;
            let co_ctx = NonNull::new((*ctx.as_ptr()).running)?;
            let this = Coroutine { co_ctx, layout };
            let known = (*co_ctx.as_ptr()).co == state;
            (known && (layout.is_held(co_ctx) || this.thread().is_some())).then_some(this)
        }
    }

    pub(super) fn co_ctx(self) -> NonNull<CoCtx> {
        self.co_ctx
    }

    /// The light thread or entry thread that it runs in, itself perhaps.
    /// `None`: that has ended.
    ///
    /// # Safety
    ///
    /// The request has not ended.
    unsafe fn thread(self) -> Option<NonNull<CoCtx>> {
        let mut co_ctx = self.co_ctx;
        loop {
            // SAFETY: by this function's contract.
            unsafe {
                if self.layout.is_held(co_ctx) {
                    return Some(co_ctx);
                }
                if self.layout.is_dead(co_ctx) {
                    return None;
                }
                co_ctx = NonNull::new((*co_ctx.as_ptr()).parent)?;
            }
        }
    }
}

/// A coroutine that is to wait.
#[derive(Debug)]
pub struct Waiter {
    coroutine: Coroutine,
    /// `None`: it is a light thread or an entry thread.
    nested: Option<Box<Nested>>,
}

/// An ordinary coroutine that waits inside a light thread or an entry thread.
#[derive(Debug)]
struct Nested {
    /// The thread.
    thread: NonNull<CoCtx>,
    /// What ngx_lua clears when it ends all that runs for the request.
    run: NonNull<layout::CleanupHandler>,
    /// Nobody else holds the coroutine, nor those between it and the thread,
    /// once the thread was ended. Without it their memory could be another
    /// coroutine's when we look.
    _anchor: Anchor,
}

impl Waiter {
    /// Prepares the running coroutine for waiting. `None`: no memory.
    ///
    /// It may raise a Lua error, which has the text `not enough memory`.
    ///
    /// # Safety
    ///
    /// As for [`Coroutine::running`], which has returned `coroutine`.
    #[inline(always)]
    pub unsafe fn new(
        state: *mut lua_State,
        request: NonNull<ngx_http_request_t>,
        coroutine: Coroutine,
    ) -> Option<Waiter> {
        // SAFETY: by this function's contract.
        let nested = unsafe {
            match coroutine.layout.is_held(coroutine.co_ctx) {
                true => None,
                false => Some(Nested::new(state, request, coroutine)?),
            }
        };
        Some(Waiter { coroutine, nested })
    }

    /// The coroutine.
    pub fn coroutine(&self) -> Coroutine {
        self.coroutine
    }

    /// Whether it may go on: neither the thread that it runs in nor all that
    /// runs for the request was ended. Of a thread itself this is not said:
    /// ngx_lua has it not wait any more when it ends.
    ///
    /// # Safety
    ///
    /// The request has not ended.
    #[inline(always)]
    pub unsafe fn may_go_on(&self) -> bool {
        match &self.nested {
            None => true,
            // SAFETY: by this function's contract; what is pointed to is in
            // the request's memory.
            Some(nested) => unsafe {
                (*nested.run.as_ptr()).is_some() && self.coroutine.layout.is_held(nested.thread)
            },
        }
    }
}

impl Nested {
    #[cold]
    unsafe fn new(
        state: *mut lua_State,
        request: NonNull<ngx_http_request_t>,
        coroutine: Coroutine,
    ) -> Option<Box<Nested>> {
        // SAFETY: by the caller's contract; of a suspended coroutine that others
        // wait for in turn, ngx_lua has the states.
        unsafe {
            let thread = coroutine.thread()?;
            let run = coroutine.layout.run(layout::ctx(request)?)?;
            let mut at = coroutine.co_ctx;
            let chain = std::iter::from_fn(|| {
                let here = at;
                at = NonNull::new((*here.as_ptr()).parent).filter(|_| here != thread)?;
                Some((*at.as_ptr()).co)
            });
            let anchor = Anchor::new(state, chain)?;
            Some(Box::new(Nested {
                thread,
                run,
                _anchor: anchor,
            }))
        }
    }
}
