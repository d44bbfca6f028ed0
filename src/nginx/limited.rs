//! Log lines that would repeat: of each kind a few are written and the others counted, and some are
//! written once. Each worker counts for itself.

use std::cell::RefCell;

use nginx_sys::ngx_event_t;

use super::cycle::now;
use super::log::Log;
use super::peer_log::with_peer;
use super::timer::{Msec, Timer};
use crate::contain::contain;
use crate::upstream::{LineKind, Once, Rates, Suppressed};

struct Lines {
    rates: Rates,
    once: Once,
    /// Armed while a count waits to be told.
    timer: Option<Timer>,
}

struct Cell(RefCell<Lines>);

// SAFETY: nginx handles events and Lua in one thread per process.
unsafe impl Sync for Cell {}

static LINES: Cell = Cell(RefCell::new(Lines {
    rates: Rates::new(),
    once: Once::new(),
    timer: None,
}));

/// Whether a line of this kind is to be written. If not, it is counted, and the count gets a line
/// of its own. Only for workers, which have timers.
pub fn admit(kind: LineKind<'_>) -> bool {
    let Ok(mut lines) = LINES.0.try_borrow_mut() else {
        return true;
    };
    if lines.rates.admit(kind, now() as u64) {
        return true;
    }
    if lines.timer.is_none() {
        lines.arm();
    }
    false
}

/// Whether [`admit`] would say yes.
pub fn would_admit(kind: LineKind<'_>) -> bool {
    let lines = LINES.0.try_borrow();
    lines.map_or(true, |lines| lines.rates.would_admit(kind, now() as u64))
}

/// Whether this text is seen for the first time in this process, and there were not too many.
pub fn first(text: &[u8]) -> bool {
    let lines = LINES.0.try_borrow_mut();
    lines.is_ok_and(|mut lines| lines.once.first(text))
}

/// The process ends: tells all counts, and keeps nothing.
pub fn end() {
    let taken = LINES.0.try_borrow_mut().map(|mut lines| {
        lines.timer = None;
        let taken = lines.rates.take_due(u64::MAX);
        lines.rates = Rates::new();
        lines.once = Once::new();
        taken
    });
    taken.unwrap_or_default().iter().for_each(tell);
}

impl Lines {
    fn arm(&mut self) {
        let Some(due) = self.rates.next_due() else {
            return;
        };
        let mut timer = Timer::new(on_timer, 0);
        timer.start_cancelable(due.saturating_sub(now() as u64).max(1) as Msec);
        self.timer = Some(timer);
    }
}

unsafe extern "C" fn on_timer(_: *mut ngx_event_t) {
    contain(|| {
        let due = LINES.0.try_borrow_mut().map(|mut lines| {
            lines.timer = None;
            let due = lines.rates.take_due(now() as u64);
            lines.arm();
            due
        });
        due.unwrap_or_default().iter().for_each(tell);
    });
}

fn tell(kind: &Suppressed) {
    let lines = kind.lines;
    let ending = if lines == 1 { "" } else { "s" };
    with_peer(Log::of_cycle(), &kind.about, |log| {
        match kind.words.as_str() {
            "" => log.write(
                kind.level,
                0,
                format_args!("lua memcached: {lines} more line{ending} of other kinds suppressed"),
            ),
            words => log.write(
                kind.level,
                0,
                format_args!("{words}: {lines} more line{ending} like this suppressed"),
            ),
        }
    });
}
