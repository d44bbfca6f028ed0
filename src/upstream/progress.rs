//! Since when the time limit of an operation runs.
//!
//! Until its commands are sent, the send timeout counts, and then the read timeout. Both begin
//! again with each part that is sent or received. On a shared connection only the parts of the
//! operation itself count, and of those before it only what kept it from being sent.
//!
//! Times are in milliseconds of a monotonic clock.

use std::ops::RangeInclusive;

/// What a connection has sent and received lately.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// When bytes were received last, or the first command was given to an idle connection.
    received: usize,
    /// The last time that the socket did not take all at once.
    blocked: Blocked,
}

/// Commands that the socket has taken bit by bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Blocked {
    /// Number of the first exchange that had to wait; the greatest number: none had to.
    from: u64,
    /// Whether some still wait.
    now: bool,
    /// When the socket last took some of them.
    written: usize,
}

impl Default for Blocked {
    fn default() -> Blocked {
        Blocked {
            from: u64::MAX,
            now: false,
            written: 0,
        }
    }
}

/// Where the commands of an operation are in the order of a connection, and how far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Numbers of its exchanges.
    pub numbers: RangeInclusive<u64>,
    /// When it began to wait.
    pub since: usize,
    /// `since` accounts for the time that sending took.
    pub accounted: bool,
    /// A part of its commands was sent.
    pub begun: bool,
    /// All of its commands were sent.
    pub sent: bool,
    /// Number of the exchange whose reply comes next on the connection.
    pub oldest: u64,
    /// A part of that reply was received.
    pub amid_reply: bool,
}

impl Progress {
    /// Something was received, or an idle connection got a command.
    pub fn receive(&mut self, now: usize) {
        self.received = now;
    }

    /// When something was received last.
    pub fn received(&self) -> usize {
        self.received
    }

    /// When the socket last took some of what it had not taken at once.
    pub fn written(&self) -> usize {
        self.blocked.written
    }

    /// When anything happened last.
    pub fn latest(&self) -> usize {
        self.received.max(self.written())
    }

    /// Something was sent; `all`: all that was there. `oldest` is the number of the exchange whose
    /// reply comes next, `unsent` that of the first one that is not sent as a whole.
    pub fn write(&mut self, all: bool, oldest: u64, unsent: impl FnOnce() -> u64, now: usize) {
        let Blocked { from, now: was, .. } = self.blocked;
        if all && !was {
            return;
        }
        // those that had to wait before may still need it
        let keep = was || from != u64::MAX && from >= oldest;
        self.blocked = Blocked {
            from: if keep { from } else { unsent() },
            now: !all,
            written: now,
        };
    }

    /// Whether some of what there was to send could not be sent yet. If not, [`Self::write`] has
    /// nothing to note when all is sent.
    pub fn is_blocked(&self) -> bool {
        self.blocked.now
    }

    /// Since when the time of an operation runs.
    pub fn since(&self, at: &Position) -> usize {
        let waited = *at.numbers.end() >= self.blocked.from && !at.accounted;
        let since = match waited && (at.sent || at.begun) {
            true => at.since.max(self.blocked.written),
            false => at.since,
        };
        let arriving =
            at.numbers.contains(&at.oldest) && (at.oldest > *at.numbers.start() || at.amid_reply);
        match arriving {
            true => since.max(self.received),
            false => since,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn at(numbers: RangeInclusive<u64>) -> Position {
        Position {
            numbers,
            since: 1000,
            accounted: false,
            begun: false,
            sent: false,
            oldest: 0,
            amid_reply: false,
        }
    }

    fn sent(numbers: RangeInclusive<u64>) -> Position {
        Position {
            begun: true,
            sent: true,
            ..at(numbers)
        }
    }

    #[test]
    fn what_others_receive_does_not_count() {
        let mut progress = Progress::default();
        progress.receive(1500);
        assert_eq!(progress.since(&sent(3..=3)), 1000);
        assert_eq!((progress.received(), progress.latest()), (1500, 1500));
    }

    #[test]
    fn ones_own_reply_counts_from_its_first_byte_on() {
        let mut progress = Progress::default();
        progress.receive(1500);
        let first = Position {
            oldest: 3,
            ..sent(3..=5)
        };
        assert_eq!(progress.since(&first), 1000);
        let amid = Position {
            amid_reply: true,
            ..first.clone()
        };
        assert_eq!(progress.since(&amid), 1500);
        let second = Position {
            oldest: 4,
            ..first.clone()
        };
        assert_eq!(progress.since(&second), 1500);
        // replies that come while commands are still to be sent are progress, too
        let unsent = Position {
            sent: false,
            ..second
        };
        assert_eq!(progress.since(&unsent), 1500);
    }

    #[test]
    fn sending_in_parts_counts_for_those_that_had_to_wait() {
        let mut progress = Progress::default();
        assert!(!progress.is_blocked());
        progress.write(false, 0, || 3, 1200);
        assert!(progress.is_blocked());
        // nothing of it was sent, whatever the others did
        assert_eq!(progress.since(&at(4..=4)), 1000);
        assert_eq!(progress.since(&sent(3..=4)), 1200);
        assert_eq!(progress.since(&sent(2..=2)), 1000);
        progress.write(true, 0, || 9, 1300);
        assert!(!progress.is_blocked());
        assert_eq!(progress.since(&sent(4..=4)), 1300);
        let accounted = Position {
            accounted: true,
            ..sent(4..=4)
        };
        assert_eq!(progress.since(&accounted), 1000);
        assert_eq!((progress.written(), progress.latest()), (1300, 1300));
    }

    #[test]
    fn writes_that_take_all_change_nothing() {
        let mut progress = Progress::default();
        progress.write(true, 0, || 9, 1200);
        assert_eq!(progress, Progress::default());
    }

    #[test]
    fn a_later_wait_begins_where_nobody_needs_the_earlier_one() {
        let mut progress = Progress::default();
        progress.write(false, 0, || 3, 1200);
        progress.write(true, 0, || 4, 1300);
        // exchange 3 still has no reply
        progress.write(false, 3, || 7, 1400);
        assert_eq!(progress.since(&sent(3..=3)), 1400);
        progress.write(true, 3, || 8, 1500);
        progress.write(false, 4, || 9, 1600);
        assert_eq!(progress.since(&sent(8..=8)), 1000);
        assert_eq!(progress.since(&sent(9..=9)), 1600);
    }

    proptest! {
        #[test]
        fn time_never_runs_from_before_the_beginning_or_after_now(
            steps in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u64..8), 0..40),
            first in 0u64..8, more in 0u64..3, since in 0usize..50,
            oldest in 0u64..8, begun: bool, sent: bool, amid_reply: bool, accounted: bool,
        ) {
            let mut progress = Progress::default();
            let mut now = 0;
            for (received, all, unsent) in steps {
                now += 1;
                match received {
                    true => progress.receive(now),
                    false => progress.write(all, unsent.saturating_sub(2), || unsent, now),
                }
            }
            let at = Position {
                numbers: first..=first + more, since, accounted, begun, sent, oldest, amid_reply,
            };
            let from = progress.since(&at);
            prop_assert!(from >= since && from <= since.max(now));
            prop_assert!(from == since || from == progress.received() || from <= progress.latest());
            // what is not begun, and of which no reply comes, has no progress
            if !begun && !sent && !at.numbers.contains(&oldest) {
                prop_assert_eq!(from, since);
            }
        }
    }

    #[test]
    fn time_begins_again_with_a_part_that_was_sent() {
        let mut progress = Progress::default();
        progress.write(false, 3, || 3, 500);
        let of = |begun, sent| {
            progress.since(&Position {
                numbers: 3..=3,
                since: 100,
                accounted: false,
                begun,
                sent,
                oldest: 3,
                amid_reply: false,
            })
        };
        assert_eq!(
            [
                of(false, false),
                of(true, false),
                of(false, true),
                of(true, true)
            ],
            [100, 500, 500, 500]
        );
    }
}
