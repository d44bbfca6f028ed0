//! A stock of unused items, kept for reuse.

/// Number of spares that are kept in any case.
const ALWAYS: usize = 256;

/// Spares. Except for a few, there are at most as many as items in use. So memory is given back
/// when load decreases.
#[derive(Debug)]
pub struct Spares<T> {
    all: Vec<T>,
}

impl<T> Default for Spares<T> {
    fn default() -> Spares<T> {
        Spares { all: Vec::new() }
    }
}

impl<T> Spares<T> {
    /// Reserves room for this number of spares. False: no memory.
    pub fn make_room(&mut self, many: usize) -> bool {
        self.all.try_reserve(many).is_ok()
    }

    /// Takes a spare.
    #[inline(always)]
    pub fn take(&mut self) -> Option<T> {
        self.all.pop()
    }

    /// Keeps an item that is not used any more, while `in_use` others are. It is dropped if no room
    /// was reserved for it.
    #[inline(always)]
    pub fn give(&mut self, spare: T, in_use: usize) {
        if self.all.len() < in_use.max(ALWAYS) && self.all.len() < self.all.capacity() {
            self.all.push(spare);
        } else {
            self.shed(in_use);
        }
    }

    /// Drops spares, because fewer items are in use.
    #[cold]
    #[inline(never)]
    fn shed(&mut self, in_use: usize) {
        let most = in_use.max(ALWAYS);
        self.all.truncate(most);
        if self.all.capacity() / 4 > most {
            self.all.shrink_to(2 * most);
        }
    }

    /// Drops all spares.
    pub fn clear(&mut self) {
        self.all.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn used_and_given_back(spares: &mut Spares<usize>, many: usize) {
        let used: Vec<usize> = (0..many)
            .filter_map(|at| spares.take().or(Some(at)))
            .collect();
        assert!(spares.make_room(many));
        for (at, one) in used.into_iter().enumerate() {
            spares.give(one, many - at - 1);
        }
    }

    #[test]
    fn a_few_are_always_kept() {
        let mut spares = Spares::default();
        used_and_given_back(&mut spares, ALWAYS);
        assert_eq!(spares.all.len(), ALWAYS);
        used_and_given_back(&mut spares, 10);
        assert_eq!(spares.all.len(), ALWAYS);
    }

    #[test]
    fn after_a_rush_memory_is_given_back() {
        let mut spares = Spares::default();
        used_and_given_back(&mut spares, 100_000);
        assert_eq!(spares.all.len(), ALWAYS);
        assert!(spares.all.capacity() < 10_000, "{}", spares.all.capacity());
        spares.clear();
        assert_eq!(spares.take(), None);
    }

    #[test]
    fn as_many_as_are_used_are_kept() {
        let mut spares = Spares::default();
        assert!(spares.make_room(2000));
        for at in 0..2000 {
            spares.give(at, 2000);
        }
        assert_eq!(spares.all.len(), 2000);
    }

    #[test]
    fn nothing_is_kept_without_room() {
        let mut spares = Spares::default();
        spares.give(1, 1000);
        assert_eq!(spares.take(), None);
    }

    #[test]
    fn one_too_many_is_dropped() {
        let mut spares = Spares::default();
        assert!(spares.make_room(3 * ALWAYS));
        for at in 0..=ALWAYS {
            spares.give(at, 0);
        }
        assert_eq!(
            (spares.all.len(), spares.take()),
            (ALWAYS, Some(ALWAYS - 1))
        );
    }

    #[test]
    fn room_for_more_than_four_times_the_spares_is_given_back() {
        for (room, left) in [(4 * ALWAYS, 4 * ALWAYS), (4 * ALWAYS + 4, 2 * ALWAYS)] {
            let mut spares = Spares::default();
            spares.all.reserve_exact(room);
            for at in 0..=ALWAYS {
                spares.give(at, 0);
            }
            assert_eq!(spares.all.capacity(), left);
        }
    }

    proptest! {
        #[test]
        fn never_more_than_are_used(steps in prop::collection::vec(any::<bool>(), 0..5000)) {
            let (mut spares, mut in_use) = (Spares::default(), 0_usize);
            for more in steps {
                if more {
                    if spares.take().is_none() {
                        prop_assert!(spares.make_room(in_use + 1));
                    }
                    in_use += 1;
                } else if in_use > 0 {
                    in_use -= 1;
                    spares.give((), in_use);
                }
                prop_assert!(spares.all.len() <= in_use.max(ALWAYS) + 1);
            }
        }
    }
}
