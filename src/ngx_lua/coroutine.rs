//! Which coroutine waits, and whether ngx_lua will resume it.
//!
//! ngx_lua resumes the coroutine that it considers as running, whichever one has called us. Its
//! clean-up ends waiting light threads and entry threads. It does not know ordinary coroutines
//! inside them, and would resume them into a thread that has ended. So we check the coroutine
//! before anything is sent, and again before it is woken.

use super::anchor::Anchor;
use super::layout::{self, CoCtx, Ctx, Layout, Run};
use super::state::{Ancestor, State};
use crate::nginx::{Live, Request};

/// A coroutine that is to wait, and that ngx_lua will resume. It is dropped before its request
/// ends.
#[derive(Debug)]
pub enum Waiter {
    /// A light thread or an entry thread. When it ends, ngx_lua takes it out of what it waits for.
    Thread(Coroutine),
    /// An ordinary coroutine inside one.
    Nested(Box<Nested>),
}

/// A coroutine of a request, as ngx_lua knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Coroutine(Live<CoCtx>);

/// Why the running coroutine cannot wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoWaiter {
    /// ngx_lua would resume another coroutine or none: this one was created by Lua's own
    /// `coroutine.create`, or its thread has ended.
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
    thread: Live<CoCtx>,
    /// The run of Lua code that it belongs to.
    run: Live<Run>,
    /// Holds the coroutine and those between it and the thread. When the thread has ended, nothing
    /// else holds them, and their memory could belong to other coroutines when we check.
    _anchor: Anchor,
}

impl Waiter {
    /// The running coroutine, of `request`. This may raise a Lua error when Lua has no memory. Like
    /// the request, the value is dropped before that ends.
    ///
    /// # Errors
    ///
    /// If it cannot wait.
    #[inline(always)]
    pub fn running(state: State, request: Request) -> Result<Waiter, NoWaiter> {
        let layout = Layout::get(state, request).ok_or(NoWaiter::Unknown)?;
        let ctx = layout::ctx(request).ok_or(NoWaiter::Unknown)?;
        let co_ctx = ctx.running().ok_or(NoWaiter::Unknown)?;
        if co_ctx.state() != state.as_ptr() {
            return Err(NoWaiter::Unknown);
        }
        match co_ctx.is_held(layout) {
            true => Ok(Waiter::Thread(Coroutine(co_ctx))),
            false => Nested::new(state, ctx, layout, co_ctx).map(Waiter::Nested),
        }
    }

    /// Whether `state` is that of a running light thread or entry thread of `request`. ngx_lua runs
    /// these only in phases that may wait.
    #[inline(always)]
    pub fn is_thread(state: State, request: Request) -> bool {
        let (Some(layout), Some(ctx)) = (Layout::get(state, request), layout::ctx(request)) else {
            return false;
        };
        ctx.running()
            .is_some_and(|co_ctx| co_ctx.state() == state.as_ptr() && co_ctx.is_held(layout))
    }

    /// Whether it may be resumed: neither the thread that it runs in nor the run of Lua code has
    /// ended.
    #[inline(always)]
    pub fn may_go_on(&self) -> bool {
        match self {
            Waiter::Thread(_) => true,
            Waiter::Nested(nested) => nested.may_go_on(),
        }
    }

    /// Has it wait no longer for one of our semaphores: nothing of it stays in a queue or in
    /// nginx's timers.
    pub fn stop_waiting(&self) {
        let Coroutine(co_ctx) = match self {
            Waiter::Thread(coroutine) => *coroutine,
            Waiter::Nested(nested) => nested.coroutine,
        };
        co_ctx.leave();
    }
}

impl Nested {
    #[cold]
    fn new(
        state: State,
        ctx: Live<Ctx>,
        layout: Layout,
        co_ctx: Live<CoCtx>,
    ) -> Result<Box<Nested>, NoWaiter> {
        let thread = thread(layout, co_ctx).ok_or(NoWaiter::Unknown)?;
        let run = ctx.run(layout).ok_or(NoWaiter::Unknown)?;
        let mut at = co_ctx;
        let chain = std::iter::from_fn(|| {
            at = at.parent().filter(|_| at != thread)?;
            // SAFETY: of a suspended coroutine that others wait for in turn, ngx_lua has the state.
            Some(unsafe { Ancestor::new(at.state()) })
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

    #[cold]
    fn may_go_on(&self) -> bool {
        !self.run.has_ended() && self.thread.is_held(self.layout)
    }
}

/// The light thread or entry thread that a coroutine runs in; may be the coroutine itself. `None`
/// if it has ended.
fn thread(layout: Layout, mut co_ctx: Live<CoCtx>) -> Option<Live<CoCtx>> {
    loop {
        if co_ctx.is_held(layout) {
            return Some(co_ctx);
        }
        if co_ctx.is_dead(layout) {
            return None;
        }
        co_ctx = co_ctx.parent()?;
    }
}
