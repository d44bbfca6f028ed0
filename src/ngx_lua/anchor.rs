//! Keeps coroutines from being collected while one of them waits.

use std::cell::RefCell;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use mlua::ffi::LUA_TNIL;

use super::state::{Ancestor, State, Value};
use super::table::Table;

/// Holds coroutines in the registry of their VM, each under a number. After this value is dropped,
/// the next call of [`release`] lets them go.
#[derive(Debug)]
pub struct Anchor {
    first: u64,
    count: u64,
}

#[derive(Debug, Default)]
struct Anchors {
    /// Numbers given so far. None is given twice, so releasing a number in another VM has no
    /// effect.
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
    /// Holds the running coroutine, and others that wait for it. `None`: no memory. It may raise a
    /// Lua error when Lua has none.
    pub(super) fn new(state: State, others: impl Iterator<Item = Ancestor>) -> Option<Anchor> {
        release(state);
        let first = with(|anchors| {
            anchors.released.try_reserve(anchors.live + 1).ok()?;
            anchors.live += 1;
            Some(anchors.given)
        })??;
        let mut anchor = Anchor { first, count: 0 };
        if !state.has_room(4) {
            return None;
        }
        state.scope(|| {
            let table = held(state);
            for other in std::iter::once(None).chain(others.map(Some)) {
                state.scope(|| {
                    let coroutine = match other {
                        None => state.push_running(),
                        Some(other) => state.push_ancestor(other)?,
                    };
                    anchor.count += 1;
                    let number = with(|anchors| {
                        anchors.given += 1;
                        anchors.given - 1
                    })?;
                    table.set(Value::Number(number as f64), Value::At(coroutine));
                    Some(())
                })?;
            }
            Some(())
        })?;
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
#[inline(always)]
pub fn release(state: State) {
    if RELEASED.load(Relaxed) {
        release_all(state);
    }
}

#[cold]
fn release_all(state: State) {
    if !state.has_room(4) {
        return;
    }
    RELEASED.store(false, Relaxed);
    state.scope(|| {
        let table = held(state);
        while let Some((first, count)) = with(|anchors| anchors.released.pop()).flatten() {
            for number in first..first.saturating_add(count) {
                let key = Value::Number(number as f64);
                // setting a key to nil that exists takes no memory
                if state.scope(|| state.kind(table.push(key))) != LUA_TNIL {
                    table.set(key, Value::Nil);
                }
            }
        }
    });
}

/// The process ends, and with it all VMs.
pub fn forget() {
    if let Ok(mut anchors) = ANCHORS.0.try_borrow_mut() {
        *anchors = None;
    }
}

/// Pushes the table of the held coroutines, which is in the registry of each VM.
fn held(state: State) -> Table {
    static KEY: u8 = 0;
    state.push_kept_table(&KEY, |_| {})
}
