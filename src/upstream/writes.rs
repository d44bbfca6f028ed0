//! The writes of a background queue, in order: how many wait, since when, and what became of those
//! that were there.
//!
//! Every write that was taken is counted exactly once more when it is over. Times are in
//! milliseconds of a monotonic clock.

use std::collections::VecDeque;
use std::ops::AddAssign;

use super::queue::Bounds;

/// Writes that are not over, and the number of those that are.
#[derive(Debug, Default)]
pub struct Writes {
    waiting: VecDeque<Waiting>,
    /// Bytes of all that waits.
    size: usize,
    counts: Counts,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    since: usize,
    /// How long it may wait without progress.
    timeout: usize,
    size: usize,
}

/// What the server has answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Answers {
    /// It was done: STORED, DELETED, TOUCHED, a number.
    pub done: u64,
    /// There was nothing to be done: NOT_STORED, NOT_FOUND.
    pub unmet: u64,
    /// An error line, or no reply of memcached's protocol.
    pub refused: u64,
}

/// What became of the writes of a queue. `taken` is the sum of the others but `full`, and of what
/// still waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Counts {
    /// The queue has taken them.
    pub taken: u64,
    /// The server has answered.
    pub answers: Answers,
    /// They were sent, and the connection was lost before the reply: nobody knows whether they were
    /// executed.
    pub lost: u64,
    /// They were not sent: their time was over.
    pub dropped: u64,
    /// The queue was full, and has not taken them.
    pub full: u64,
}

/// Those of several queues.
impl AddAssign for Counts {
    fn add_assign(&mut self, other: Counts) {
        self.taken += other.taken;
        self.answers.done += other.answers.done;
        self.answers.unmet += other.answers.unmet;
        self.answers.refused += other.answers.refused;
        self.lost += other.lost;
        self.dropped += other.dropped;
        self.full += other.full;
    }
}

impl Writes {
    /// Whether one more write may wait. If not, that is counted.
    pub fn admit(&mut self, bounds: Bounds) -> bool {
        let room = bounds.allow(self.waiting.len(), self.size);
        self.counts.full += u64::from(!room);
        room
    }

    /// Whether there is memory for one more.
    pub fn make_room(&mut self) -> bool {
        self.waiting.try_reserve(1).is_ok()
    }

    /// One more waits, which takes so many bytes.
    pub fn add(&mut self, now: usize, timeout: usize, size: usize) {
        self.waiting.push_back(Waiting {
            since: now,
            timeout,
            size,
        });
        self.size = self.size.saturating_add(size);
        self.counts.taken += 1;
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Bytes of all that wait.
    pub fn size(&self) -> usize {
        self.size
    }

    /// What became of those that are over.
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The time that the first one has from its last progress on; 0 if none waits.
    pub fn timeout(&self) -> usize {
        self.waiting.front().map_or(0, |first| first.timeout)
    }

    /// Since when the first one waits.
    pub fn waits_since(&self) -> Option<usize> {
        self.waiting.front().map(|first| first.since)
    }

    /// Whether the first one has waited for too long. `progress`: when something happened last.
    pub fn is_late(&self, progress: usize, now: usize) -> bool {
        self.waiting
            .front()
            .is_some_and(|first| now >= first.since.max(progress).saturating_add(first.timeout))
    }

    /// How many of the first ones have waited for too long since they came.
    pub fn late(&self, now: usize) -> usize {
        let late = |write: &&Waiting| now >= write.since.saturating_add(write.timeout);
        self.waiting.iter().take_while(late).count()
    }

    /// The first ones were answered, all but so many.
    pub fn answered(&mut self, left: usize, answers: Answers) {
        self.end(self.waiting.len().saturating_sub(left));
        let counts = &mut self.counts.answers;
        counts.done += answers.done;
        counts.unmet += answers.unmet;
        counts.refused += answers.refused;
    }

    /// The first ones were sent, and no reply will come.
    pub fn lose(&mut self, n: usize) {
        self.counts.lost += self.end(n);
    }

    /// The first ones will not be sent.
    pub fn drop_first(&mut self, n: usize) {
        self.counts.dropped += self.end(n);
    }

    fn end(&mut self, n: usize) -> u64 {
        let n = n.min(self.waiting.len());
        let size: usize = self.waiting.drain(..n).map(|write| write.size).sum();
        self.size = self.size.saturating_sub(size);
        if self.waiting.is_empty() {
            // a burst is over
            self.waiting.shrink_to(64);
        }
        n as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds {
        operations: 3,
        size: 100,
    };

    #[test]
    fn counts_of_several_queues() {
        let counts = |n| Counts {
            taken: n,
            answers: Answers {
                done: n + 1,
                unmet: n + 2,
                refused: n + 3,
            },
            lost: n + 4,
            dropped: n + 5,
            full: n + 6,
        };
        let mut sum = counts(10);
        sum += counts(100);
        let expected = Counts {
            taken: 110,
            answers: Answers {
                done: 112,
                unmet: 114,
                refused: 116,
            },
            lost: 118,
            dropped: 120,
            full: 122,
        };
        assert_eq!(sum, expected);
    }

    #[test]
    fn it_is_full_by_operations_and_by_bytes() {
        let mut writes = Writes::default();
        assert!(writes.admit(BOUNDS));
        writes.add(0, 10, 100);
        assert!(!writes.admit(BOUNDS));
        writes.lose(1);
        for _ in 0..3 {
            assert!(writes.admit(BOUNDS));
            writes.add(0, 10, 1);
        }
        assert!(!writes.admit(BOUNDS));
        assert_eq!(writes.counts().full, 2);
        assert_eq!(writes.counts().taken, 4);
    }

    #[test]
    fn the_first_ones_are_late_first() {
        let mut writes = Writes::default();
        assert!(!writes.is_late(0, 1000));
        assert_eq!((writes.late(1000), writes.timeout()), (0, 0));
        assert_eq!(writes.waits_since(), None);
        writes.add(100, 50, 1);
        writes.add(120, 50, 1);
        writes.add(121, 10, 1);
        assert_eq!(writes.waits_since(), Some(100));
        assert_eq!(writes.late(149), 0);
        assert_eq!(writes.late(150), 1);
        assert_eq!(writes.late(170), 3);
        assert!(!writes.is_late(0, 149) && writes.is_late(0, 150));
        // something has happened meanwhile
        assert!(!writes.is_late(140, 189) && writes.is_late(140, 190));
        assert_eq!(writes.timeout(), 50);
    }

    #[test]
    fn all_that_became_of_them_is_counted() {
        let mut writes = Writes::default();
        assert!(writes.is_empty() && writes.make_room());
        for size in [1, 20, 300, 4000, 50000] {
            writes.add(0, 10, size);
        }
        assert_eq!((writes.len(), writes.size()), (5, 54321));
        let answers = Answers {
            done: 1,
            unmet: 2,
            refused: 3,
        };
        writes.answered(4, answers);
        assert_eq!((writes.len(), writes.size()), (4, 54320));
        writes.answered(4, answers);
        writes.lose(1);
        writes.lose(1);
        assert_eq!((writes.len(), writes.size()), (2, 54000));
        writes.drop_first(1);
        assert!(!writes.is_empty());
        writes.drop_first(3);
        assert_eq!((writes.is_empty(), writes.size()), (true, 0));
        let expected = Counts {
            taken: 5,
            answers: Answers {
                done: 2,
                unmet: 4,
                refused: 6,
            },
            lost: 2,
            dropped: 2,
            full: 0,
        };
        assert_eq!(writes.counts(), expected);
    }

    proptest! {
        #[test]
        fn every_write_is_counted_once(
            steps in proptest::collection::vec((0u8..4, 0usize..5), 0..60)
        ) {
            let mut writes = Writes::default();
            let bounds = Bounds { operations: 8, size: 40 };
            for (step, n) in steps {
                match step {
                    0 => {
                        for _ in 0..n {
                            if writes.admit(bounds) && writes.make_room() {
                                writes.add(0, 1, n);
                            }
                        }
                    }
                    1 => {
                        let left = writes.len().saturating_sub(n);
                        let answers = (writes.len() - left) as u64;
                        writes.answered(left, Answers { done: answers, ..Answers::default() });
                    }
                    2 => writes.lose(n),
                    _ => writes.drop_first(n),
                }
                let counts = writes.counts();
                let over = counts.answers.done + counts.lost + counts.dropped;
                prop_assert_eq!(counts.taken, over + writes.len() as u64);
                prop_assert!(writes.len() <= 8);
                prop_assert_eq!(writes.is_empty(), matches!(writes.len(), 0));
                prop_assert!(!writes.is_empty() || writes.size() == 0);
            }
        }
    }
}
