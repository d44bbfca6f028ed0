//! Keeps coroutines from being collected while one of them waits.

use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use mlua::ffi::{
    LUA_REGISTRYINDEX, LUA_TNIL, LUA_TTABLE, lua_State, lua_checkstack, lua_createtable, lua_pop,
    lua_pushlightuserdata, lua_pushnil, lua_pushnumber, lua_pushthread, lua_pushvalue, lua_rawget_,
    lua_rawset, lua_type, lua_xmove,
};

/// Holds coroutines in the registry of their VM, each under a number. After
/// this value is dropped, the next call of [`release`] lets them go.
#[derive(Debug)]
pub struct Anchor {
    first: u64,
    count: u64,
}

#[derive(Debug, Default)]
struct Anchors {
    /// Numbers given so far. None is given twice, so releasing a number in
    /// another VM has no effect.
    given: u64,
    /// Number of anchors.
    live: usize,
    /// Numbers (first and count) that are not needed any more.
    released: Vec<(u64, u64)>,
}

struct Cell(RefCell<Option<Anchors>>);

// SAFETY: nginx handles events and Lua in one thread per process.
unsafe impl Sync for Cell {}

static ANCHORS: Cell = Cell(RefCell::new(None));

/// Something was released.
static RELEASED: AtomicBool = AtomicBool::new(false);

/// `None` if it is borrowed already, which would be a bug.
fn with<R>(f: impl FnOnce(&mut Anchors) -> R) -> Option<R> {
    let mut anchors = ANCHORS.0.try_borrow_mut().ok()?;
    Some(f(anchors.get_or_insert_default()))
}

impl Anchor {
    /// Holds the coroutine whose state is `state`, and suspended ones by their
    /// states. `None`: no memory. It may raise a Lua error when Lua has none.
    ///
    /// # Safety
    ///
    /// `state` is what Lua passed to the running C function; the others are
    /// states of the same VM.
    pub unsafe fn new(
        state: *mut lua_State,
        others: impl Iterator<Item = *mut lua_State>,
    ) -> Option<Anchor> {
        // SAFETY: by this function's contract.
        unsafe { release(state) };
        let first = with(|anchors| {
            anchors.released.try_reserve(anchors.live + 1).ok()?;
            anchors.live += 1;
            Some(anchors.given)
        })??;
        let mut anchor = Anchor { first, count: 0 };
        // SAFETY: by this function's contract; there is room for four values.
        unsafe {
            if lua_checkstack(state, 4) == 0 {
                return None;
            }
            push_table(state);
            for other in std::iter::once(state).chain(others) {
                if other != state && lua_checkstack(other, 1) == 0 {
                    lua_pop(state, 1);
                    return None;
                }
                anchor.count += 1;
                let number = with(|anchors| {
                    anchors.given += 1;
                    anchors.given - 1
                })?;
                lua_pushnumber(state, number as f64);
                lua_pushthread(other);
                if other != state {
                    lua_xmove(other, state, 1);
                }
                lua_rawset(state, -3);
            }
            lua_pop(state, 1);
        }
        Some(anchor)
    }
}

impl Drop for Anchor {
    fn drop(&mut self) {
        let Anchor { first, count } = *self;
        with(|anchors| {
            anchors.live = anchors.live.saturating_sub(1);
            // there is room, see above
            anchors.released.push((first, count));
        });
        RELEASED.store(true, Relaxed);
    }
}

/// Releases what is not needed any more.
///
/// # Safety
///
/// `state` is what Lua passed to the running C function.
#[inline(always)]
pub unsafe fn release(state: *mut lua_State) {
    if RELEASED.load(Relaxed) {
        // SAFETY: by this function's contract.
        unsafe { release_all(state) }
    }
}

#[cold]
unsafe fn release_all(state: *mut lua_State) {
    // SAFETY: by the caller's contract; there is room for three values. The
    // keys that are set to nil exist, so that takes no memory.
    unsafe {
        if lua_checkstack(state, 3) == 0 {
            return;
        }
        RELEASED.store(false, Relaxed);
        push_table(state);
        while let Some((first, count)) = with(|anchors| anchors.released.pop()).flatten() {
            for number in first..first.saturating_add(count) {
                lua_pushnumber(state, number as f64);
                lua_rawget_(state, -2);
                let is_there = lua_type(state, -1) != LUA_TNIL;
                lua_pop(state, 1);
                if is_there {
                    lua_pushnumber(state, number as f64);
                    lua_pushnil(state);
                    lua_rawset(state, -3);
                }
            }
        }
        lua_pop(state, 1);
    }
}

/// The process ends, and with it all VMs.
pub fn forget() {
    if let Ok(mut anchors) = ANCHORS.0.try_borrow_mut() {
        *anchors = None;
    }
}

/// Pushes the table of the held coroutines, which is in the registry of each
/// VM.
unsafe fn push_table(state: *mut lua_State) {
    static KEY: u8 = 0;
    let key = (&raw const KEY).cast_mut().cast::<c_void>();
    // SAFETY: by the caller's contract; three values are pushed at most.
    unsafe {
        lua_pushlightuserdata(state, key);
        lua_rawget_(state, LUA_REGISTRYINDEX);
        if lua_type(state, -1) == LUA_TTABLE {
            return;
        }
        lua_pop(state, 1);
        lua_createtable(state, 0, 0);
        lua_pushlightuserdata(state, key);
        lua_pushvalue(state, -2);
        lua_rawset(state, LUA_REGISTRYINDEX);
    }
}
