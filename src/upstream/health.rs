//! How a shared connection does: whether it takes commands, and when it is given up.
//!
//! ```text
//!           the oldest reply is nobody's and late
//!     Open ---------------------------------------> Stalled
//!      ^  ^-----------------------------------------   |
//!      |       somebody's reply is the oldest one      |
//!      |                                               |
//!      |   the server's name has other addresses       |
//!      +---------------------> Leaving <---------------+
//! ```
//!
//! A stalled connection gets no commands, because they would wait behind the late reply. It is
//! closed when nobody waits for anything on it. A leaving one is closed when it has no work.
//!
//! Times are in milliseconds of a monotonic clock.

use super::progress::Progress;
use super::rotation::Load;

/// How long something that occupies a connection may last before the connection gets no more
/// commands, if there is another.
pub const SLOW_AFTER: usize = 100;

/// Least time in which a reply that nobody waits for may come without progress.
pub const MIN_GRACE: usize = 100;

/// Whether a connection takes commands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Intake {
    #[default]
    Open,
    Stalled,
    Leaving,
}

/// How a shared connection does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Health {
    intake: Intake,
    /// Behind the last exchange whose operation timed out, by number: when the older replies have
    /// come, the connection is stalled until the reply to that one comes, too.
    timed_out_until: u64,
    /// When opening it began.
    opened: usize,
    /// Since when nothing is in flight.
    idle_since: usize,
}

/// What a connection has to do, in numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Work {
    /// It is being opened.
    pub opening: bool,
    /// It repeats commands that others have lost.
    pub retries: bool,
    /// It is occupied by a large value, or the socket does not take all that is to be sent.
    pub occupied: bool,
    /// Lists of keys in flight.
    pub lists: usize,
    /// Expected replies.
    pub in_flight: usize,
}

/// What is to be done with a connection when its timer has expired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing; no timer is needed.
    Rest,
    /// It is checked again after this time.
    CheckAgain(usize),
    /// It is closed.
    Close,
}

/// Whose replies are in flight on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Awaited {
    /// Nothing is in flight.
    Nothing,
    /// Somebody waits for the oldest one.
    Oldest,
    /// Nobody waits for the oldest one; somebody waits for another.
    Later,
    /// Nobody waits for any.
    None,
}

impl Health {
    /// Of a connection that is being opened.
    pub fn new(now: usize) -> Health {
        Health {
            opened: now,
            ..Health::default()
        }
    }

    /// Whether it takes commands.
    pub fn takes_work(&self) -> bool {
        self.intake == Intake::Open
    }

    /// Whether it goes when it has no work.
    pub fn is_leaving(&self) -> bool {
        self.intake == Intake::Leaving
    }

    /// The server has other addresses now.
    pub fn leave(&mut self) {
        self.intake = Intake::Leaving;
    }

    /// It takes no further commands.
    pub fn stall(&mut self) {
        if self.intake == Intake::Open {
            self.intake = Intake::Stalled;
        }
    }

    /// An operation timed out, whose last exchange has this number.
    pub fn time_out(&mut self, last: u64) {
        self.timed_out_until = self.timed_out_until.max(last + 1);
    }

    /// Whether [`update`](Self::update) may change anything when replies come.
    pub fn is_suspect(&self) -> bool {
        self.intake != Intake::Open || self.timed_out_until > 0
    }

    /// The oldest exchange is another one, or became nobody's.
    pub fn update(&mut self, oldest: u64, nobodys: bool) {
        let late = self.intake == Intake::Stalled || oldest < self.timed_out_until;
        self.intake = match self.intake {
            Intake::Leaving => Intake::Leaving,
            _ if nobodys && late => Intake::Stalled,
            _ => Intake::Open,
        };
    }

    /// All replies have come.
    pub fn drain(&mut self) {
        if self.intake == Intake::Stalled {
            self.intake = Intake::Open;
        }
    }

    /// Nothing is in flight from now on.
    pub fn rest(&mut self, now: usize) {
        self.idle_since = now;
    }

    /// How well it can take commands.
    pub fn load(&self, work: Work, progress: &Progress, now: usize) -> Load {
        let slow = |since: usize| now > since.saturating_add(SLOW_AFTER);
        if work.opening {
            return match slow(self.opened) {
                true => Load::Slow,
                false => Load::Opening,
            };
        }
        if !self.takes_work() || work.retries {
            return Load::Unavailable;
        }
        if work.occupied && slow(progress.latest()) {
            Load::Slow
        } else if work.lists > 0 {
            Load::Listed
        } else if work.occupied {
            Load::Busy
        } else {
            Load::Ready(work.in_flight)
        }
    }

    /// The timer has expired: the connection was idle for long enough (`idle_limit`; 0: there is no
    /// limit), or its oldest reply may be late.
    pub fn check(
        &mut self,
        awaited: Awaited,
        idle_limit: usize,
        progress: &Progress,
        now: usize,
    ) -> Verdict {
        let due = match awaited {
            Awaited::Nothing if idle_limit == 0 => return Verdict::Rest,
            Awaited::Nothing => self.idle_since.saturating_add(idle_limit),
            // that operation has a deadline of its own
            Awaited::Oldest => return Verdict::CheckAgain(10 * MIN_GRACE),
            Awaited::Later | Awaited::None => progress.received().saturating_add(MIN_GRACE),
        };
        if due > now {
            return Verdict::CheckAgain((due - now).max(MIN_GRACE));
        }
        if awaited == Awaited::Later {
            self.stall();
            return Verdict::CheckAgain(MIN_GRACE);
        }
        Verdict::Close
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NONE: Work = Work {
        opening: false,
        retries: false,
        occupied: false,
        lists: 0,
        in_flight: 0,
    };

    fn received(at: usize) -> Progress {
        let mut progress = Progress::default();
        progress.receive(at);
        progress
    }

    fn load(health: &Health, work: Work, now: usize) -> Load {
        health.load(work, &received(1000), now)
    }

    #[test]
    fn load_is_what_commands_would_wait_for() {
        let health = Health::new(1000);
        let busy = Work {
            occupied: true,
            in_flight: 2,
            ..NONE
        };
        let listed = Work { lists: 1, ..busy };
        let opening = Work {
            opening: true,
            ..listed
        };
        assert_eq!(load(&health, NONE, 5000), Load::Ready(0));
        let some = Work {
            in_flight: 3,
            ..NONE
        };
        assert_eq!(load(&health, some, 5000), Load::Ready(3));
        assert_eq!(load(&health, busy, 1100), Load::Busy);
        assert_eq!(load(&health, listed, 1100), Load::Listed);
        assert_eq!(load(&health, opening, 1100), Load::Opening);
        // and for too long
        assert_eq!(load(&health, busy, 1101), Load::Slow);
        assert_eq!(load(&health, listed, 1101), Load::Slow);
        assert_eq!(load(&health, opening, 1101), Load::Slow);
        let only_listed = Work {
            occupied: false,
            ..listed
        };
        assert_eq!(load(&health, only_listed, 9000), Load::Listed);
        let retries = Work {
            retries: true,
            ..NONE
        };
        assert_eq!(load(&health, retries, 1000), Load::Unavailable);
    }

    #[test]
    fn one_that_stalls_or_leaves_takes_nothing() {
        let (mut stalled, mut leaving) = (Health::new(0), Health::new(0));
        stalled.stall();
        leaving.leave();
        for health in [stalled, leaving] {
            assert!(!health.takes_work() && health.is_suspect());
            assert_eq!(load(&health, NONE, 1000), Load::Unavailable);
        }
        assert!(leaving.is_leaving() && !stalled.is_leaving());
        stalled.drain();
        leaving.drain();
        leaving.stall();
        leaving.update(9, false);
        assert!(stalled.takes_work() && leaving.is_leaving());
    }

    #[test]
    fn it_stalls_when_the_oldest_reply_is_nobodys_and_late() {
        let mut health = Health::new(0);
        assert!(!health.is_suspect());
        health.time_out(7);
        assert!(health.is_suspect());
        health.update(7, false);
        assert!(health.takes_work());
        health.update(7, true);
        assert!(!health.takes_work());
        // it stays so while nobody waits for what is the oldest
        health.update(8, true);
        assert!(!health.takes_work());
        health.update(9, false);
        assert!(health.takes_work());
        // nobody's, but nobody has waited too long for it
        health.update(10, true);
        assert!(health.takes_work());
        // the one behind the last that timed out
        health.time_out(10);
        health.update(11, true);
        assert!(health.takes_work());
        health.time_out(3);
        health.update(7, true);
        assert!(!health.takes_work());
    }

    #[test]
    fn an_idle_one_is_closed_when_its_time_is_over() {
        let mut health = Health::new(0);
        health.rest(1000);
        let mut check = |limit, now| health.check(Awaited::Nothing, limit, &received(0), now);
        assert_eq!(check(0, 9000), Verdict::Rest);
        assert_eq!(check(500, 1200), Verdict::CheckAgain(300));
        assert_eq!(check(500, 1499), Verdict::CheckAgain(MIN_GRACE));
        assert_eq!(check(500, 1500), Verdict::Close);
    }

    #[test]
    fn a_late_reply_of_nobodys_ends_the_connection_when_nobody_else_waits() {
        let mut health = Health::new(0);
        let progress = received(1000);
        let oldest = health.check(Awaited::Oldest, 0, &progress, 9000);
        assert_eq!(oldest, Verdict::CheckAgain(1000));
        for awaited in [Awaited::Later, Awaited::None] {
            assert_eq!(
                health.check(awaited, 0, &progress, 1099),
                Verdict::CheckAgain(MIN_GRACE)
            );
            assert!(health.takes_work());
        }
        let later = health.check(Awaited::Later, 0, &progress, 1100);
        assert_eq!(later, Verdict::CheckAgain(MIN_GRACE));
        assert!(!health.takes_work());
        let none = health.check(Awaited::None, 0, &progress, 1100);
        assert_eq!(none, Verdict::Close);
    }

    proptest! {
        #[test]
        fn whatever_happens_a_leaving_one_stays_so_and_nobody_is_cut_off(
            steps in proptest::collection::vec((0u8..7, 0u64..20, any::<bool>()), 0..60),
        ) {
            let mut health = Health::new(0);
            let (mut left, mut now) = (false, 0);
            for (step, n, flag) in steps {
                now += n as usize * 20;
                match step {
                    0 => health.time_out(n),
                    1 => health.update(n, flag),
                    2 => health.drain(),
                    3 => health.stall(),
                    4 => health.rest(now),
                    5 => {
                        let awaited = if flag { Awaited::Oldest } else { Awaited::Later };
                        let verdict = health.check(awaited, n as usize, &received(0), now);
                        prop_assert!(matches!(verdict, Verdict::CheckAgain(MIN_GRACE..)));
                    }
                    _ => {
                        health.leave();
                        left = true;
                    }
                }
                prop_assert_eq!(health.is_leaving(), left);
                prop_assert!(!left || !health.takes_work());
                prop_assert!(health.takes_work() || health.is_suspect());
            }
        }
    }
}
