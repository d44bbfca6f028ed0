//! Limits of what may wait for a server, and the queue of what waits for room.

use super::line::{Line, Place};

/// How much may wait for one server.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Bounds {
    /// Operations.
    pub operations: usize,
    /// Bytes.
    pub size: usize,
}

impl Bounds {
    /// Whether one more item may wait in addition to this many operations of this total size. Its
    /// own size does not matter.
    pub fn allow(self, operations: usize, size: usize) -> bool {
        operations < self.operations && size < self.size
    }
}

/// A place in a [`Queue`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct QueuePlace {
    line: usize,
    place: Place,
}

/// Items that wait for room. First come, first served, except that items whose bounds leave no room
/// for them do not hold up others whose bounds do.
#[derive(Debug)]
pub struct Queue<T> {
    /// A line for each of the bounds. The last line is never empty.
    lines: Vec<(Bounds, Line<Waiting<T>>)>,
    /// Items in all of them.
    len: usize,
    /// Their bytes.
    size: usize,
    arrivals: u64,
}

#[derive(Debug)]
struct Waiting<T> {
    item: T,
    size: usize,
    /// Number of items that came before.
    arrival: u64,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Queue {
            lines: Vec::new(),
            len: 0,
            size: 0,
            arrivals: 0,
        }
    }
}

impl<T> Queue<T> {
    /// Adds an item of this size in bytes. `None`: no memory.
    pub fn try_push_back(&mut self, item: T, bounds: Bounds, size: usize) -> Option<QueuePlace> {
        let known = self.lines.iter().position(|line| line.0 == bounds);
        let at = known.unwrap_or(self.lines.len());
        if known.is_none() {
            self.lines.try_reserve(1).ok()?;
            self.lines.push((bounds, Line::default()));
        }
        let waiting = Waiting {
            item,
            size,
            arrival: self.arrivals,
        };
        let pushed = self.lines.get_mut(at)?.1.try_push_back(waiting);
        let Some(place) = pushed else {
            self.drop_empty();
            return None;
        };
        self.arrivals += 1;
        self.len += 1;
        self.size = self.size.saturating_add(size);
        Some(QueuePlace { line: at, place })
    }

    /// Removes an item at any place.
    pub fn remove(&mut self, at: QueuePlace) -> Option<T> {
        let waiting = self.lines.get_mut(at.line)?.1.remove(at.place)?;
        Some(self.count_out(waiting))
    }

    /// The item that waits longest of all.
    pub fn first_of_all(&self) -> Option<&T> {
        let fronts = self.lines.iter().filter_map(|(_, line)| line.front());
        let first = fronts.min_by_key(|waiting| waiting.arrival);
        first.map(|waiting| &waiting.item)
    }

    /// Removes an item, if it is the first one with its bounds.
    pub fn drop_first(&mut self, item: &T) -> bool
    where
        T: PartialEq,
    {
        let mut lines = self.lines.iter_mut().map(|(_, line)| line);
        let first = |line: &&mut Line<Waiting<T>>| line.front().is_some_and(|w| w.item == *item);
        let Some(waiting) = lines.find(first).and_then(Line::pop_front) else {
            return false;
        };
        self.count_out(waiting);
        true
    }

    /// The item that waits longest of those whose bounds leave room, given what waits elsewhere.
    pub fn first(&self, operations: usize, size: usize) -> Option<&T> {
        let (_, line) = self.lines.get(self.first_line(operations, size)?)?;
        line.front().map(|waiting| &waiting.item)
    }

    fn first_line(&self, operations: usize, size: usize) -> Option<usize> {
        let lines = self.lines.iter().enumerate();
        let fit = lines.filter(|(_, (bounds, _))| bounds.allow(operations, size));
        let first = fit.filter_map(|(at, (_, line))| Some((line.front()?.arrival, at)));
        first.min().map(|(_, at)| at)
    }

    /// Whether an item waits with these bounds.
    pub fn has(&self, bounds: Bounds) -> bool {
        let mut lines = self.lines.iter();
        lines.any(|(other, line)| *other == bounds && !line.is_empty())
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes of all items.
    pub fn size(&self) -> usize {
        self.size
    }

    fn count_out(&mut self, waiting: Waiting<T>) -> T {
        self.len -= 1;
        self.size = self.size.saturating_sub(waiting.size);
        self.drop_empty();
        waiting.item
    }

    /// Removes empty lines at the end.
    fn drop_empty(&mut self) {
        while self.lines.last().is_some_and(|(_, line)| line.is_empty()) {
            self.lines.pop();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FEW: Bounds = Bounds {
        operations: 2,
        size: 100,
    };
    const MANY: Bounds = Bounds {
        operations: 10,
        size: 1000,
    };

    #[test]
    fn there_is_room_up_to_the_bounds() {
        assert!(FEW.allow(1, 99));
        assert!(!FEW.allow(2, 0));
        assert!(!FEW.allow(0, 100));
    }

    #[test]
    fn first_come_first_served() {
        let mut queue = Queue::default();
        queue.try_push_back('a', MANY, 5).unwrap();
        queue.try_push_back('b', FEW, 6).unwrap();
        queue.try_push_back('c', MANY, 7).unwrap();
        assert_eq!((queue.len(), queue.size()), (3, 18));
        for item in ['a', 'b', 'c'] {
            assert_eq!(queue.first(0, 0), Some(&item));
            assert_eq!(queue.first_of_all(), Some(&item));
            assert!(queue.drop_first(&item));
        }
        assert!(!queue.drop_first(&'c'));
        assert_eq!((queue.len(), queue.size()), (0, 0));
        assert!(queue.lines.is_empty());
    }

    #[test]
    fn those_without_room_keep_nobody_else_from_it() {
        let mut queue = Queue::default();
        queue.try_push_back('a', FEW, 1).unwrap();
        queue.try_push_back('b', MANY, 1).unwrap();
        assert_eq!(queue.first(5, 0), Some(&'b'));
        assert_eq!(queue.first(0, 500), Some(&'b'));
        assert_eq!(queue.first(10, 0), None);
        assert!(queue.drop_first(&'b'));
        assert_eq!(queue.first(5, 0), None);
        assert!(queue.has(FEW) && !queue.has(MANY));
        assert_eq!(queue.first(1, 0), Some(&'a'));
    }

    #[test]
    fn one_may_leave_from_anywhere() {
        let mut queue = Queue::default();
        let a = queue.try_push_back('a', FEW, 1).unwrap();
        let b = queue.try_push_back('b', MANY, 2).unwrap();
        let c = queue.try_push_back('c', MANY, 3).unwrap();
        assert_eq!(queue.remove(b), Some('b'));
        assert_eq!(queue.remove(b), None);
        assert_eq!(queue.remove(a), Some('a'));
        assert_eq!((queue.len(), queue.size()), (1, 3));
        assert_eq!(queue.remove(c), Some('c'));
        assert_eq!(queue.remove(c), None);
        assert!(queue.is_empty() && queue.lines.is_empty());
    }

    proptest! {
        #[test]
        fn it_is_a_line_of_those_who_have_room(
            steps in proptest::collection::vec((0usize..4, 0usize..3, 0usize..6, 0usize..6), 0..60)
        ) {
            let bounds = |at: usize| Bounds { operations: 2 * at + 1, size: 6 - at };
            let mut queue = Queue::default();
            let mut model: Vec<(usize, usize, QueuePlace)> = Vec::new();
            let mut next = 0;
            let mut size_of = Vec::new();
            for (step, class, x, y) in steps {
                match step {
                    0 | 1 => {
                        let at = queue.try_push_back(next, bounds(class), x).unwrap();
                        model.push((next, class, at));
                        size_of.push(x);
                        next += 1;
                    }
                    2 => {
                        let fits = |entry: &(usize, usize, QueuePlace)| bounds(entry.1).allow(x, y);
                        let at = model.iter().position(fits);
                        let expected = at.map(|at| model.remove(at).0);
                        prop_assert_eq!(queue.first(x, y).copied(), expected);
                        if let Some(item) = expected {
                            prop_assert!(queue.drop_first(&item));
                        }
                    }
                    _ => {
                        if x < model.len() {
                            let (item, _, at) = model.remove(x);
                            prop_assert_eq!(queue.remove(at), Some(item));
                        }
                    }
                }
                prop_assert_eq!(queue.len(), model.len());
                let size: usize = model.iter().map(|entry| size_of[entry.0]).sum();
                prop_assert_eq!(queue.size(), size);
                for class in 0..3 {
                    let there = model.iter().any(|entry| entry.1 == class);
                    prop_assert_eq!(queue.has(bounds(class)), there);
                }
            }
        }
    }
}
