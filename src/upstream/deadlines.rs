//! Deadlines of many operations, for one timer.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};

use slotmap::{SlotMap, new_key_type};

new_key_type! {
    /// A deadline that was set. After it has expired or was cancelled, its key finds nothing.
    pub struct Ticket;
}

/// Number of timeouts that keep their lists when those get empty, so that using them again takes no
/// memory.
const LISTS_KEPT: usize = 8;

/// Deadlines, each with an item that identifies its owner. Times are in milliseconds of a monotonic
/// clock.
///
/// Deadlines with the same timeout expire in the order in which they were set. So each timeout has
/// a list, and setting and cancelling take constant time. Few different timeouts are in use at a
/// time; if there are many, a heap tells which list to look at.
#[derive(Debug)]
pub struct Deadlines<T> {
    nodes: SlotMap<Ticket, Node<T>>,
    /// By timeout.
    lists: BTreeMap<usize, List>,
    /// The lists, as timeouts, by the time to look at them: when their first deadlines are due, or
    /// earlier.
    looks: BinaryHeap<Reverse<(usize, usize)>>,
    /// How often a list was looked at.
    #[cfg(test)]
    looked: usize,
}

#[derive(Debug)]
struct Node<T> {
    item: T,
    due: usize,
    timeout: usize,
    previous: Option<Ticket>,
    next: Option<Ticket>,
}

#[derive(Debug, Default)]
struct List {
    /// The first deadline and the last one. `None` if the list is empty.
    ends: Option<(Ticket, Ticket)>,
    /// Whether it is in the heap.
    noted: bool,
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Deadlines {
            nodes: SlotMap::with_key(),
            lists: BTreeMap::new(),
            looks: BinaryHeap::new(),
            #[cfg(test)]
            looked: 0,
        }
    }
}

impl<T: Copy> Deadlines<T> {
    /// Reserves room for this number of deadlines in all. False if there is no memory for it.
    #[must_use]
    pub fn make_room(&mut self, count: usize) -> bool {
        let missing = count.saturating_sub(self.nodes.len());
        self.nodes.try_reserve(missing).is_ok()
    }

    /// Sets a deadline `timeout` from `now`.
    pub fn set(&mut self, now: usize, timeout: usize, item: T) -> Ticket {
        let list = self.lists.entry(timeout).or_default();
        let last = list.ends.map(|(_, last)| last);
        let due = now.saturating_add(timeout);
        let ticket = self.nodes.insert(Node {
            item,
            due,
            timeout,
            previous: last,
            next: None,
        });
        if let Some(last) = last.and_then(|last| self.nodes.get_mut(last)) {
            last.next = Some(ticket);
        }
        list.ends = Some((list.ends.map_or(ticket, |(first, _)| first), ticket));
        if !list.noted {
            list.noted = true;
            self.looks.push(Reverse((due, timeout)));
        }
        ticket
    }

    /// Cancels a deadline. False if it has expired already.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let Some(node) = self.nodes.remove(ticket) else {
            return false;
        };
        if let Some(previous) = node.previous.and_then(|at| self.nodes.get_mut(at)) {
            previous.next = node.next;
        }
        if let Some(next) = node.next.and_then(|at| self.nodes.get_mut(at)) {
            next.previous = node.previous;
        }
        if let (Some(_), Some(_)) = (node.previous, node.next) {
            return true;
        }
        if let Some(list) = self.lists.get_mut(&node.timeout) {
            list.ends = match (list.ends, node.previous, node.next) {
                (Some((first, _)), Some(previous), _) => Some((first, previous)),
                (Some((_, last)), _, Some(next)) => Some((next, last)),
                _ => None,
            };
        }
        if self.lists.len() > 2 * (self.nodes.len() + LISTS_KEPT) {
            self.drop_lists();
        }
        true
    }

    /// Drops empty lists.
    #[cold]
    fn drop_lists(&mut self) {
        let mut empty = 0;
        self.lists.retain(|_, list| {
            empty += usize::from(list.ends.is_none());
            list.ends.is_some() || empty <= LISTS_KEPT
        });
        let lists = &self.lists;
        self.looks
            .retain(|Reverse((_, timeout))| lists.contains_key(timeout));
    }

    /// The deadline that is due next, and when.
    fn next(&mut self) -> Option<(Ticket, usize)> {
        loop {
            let mut look = self.looks.peek_mut()?;
            let Reverse((at, timeout)) = *look;
            #[cfg(test)]
            {
                self.looked += 1;
            }
            let list = self.lists.get_mut(&timeout);
            let first = list.as_ref().and_then(|list| list.ends);
            let first = first.and_then(|(first, _)| Some((first, self.nodes.get(first)?.due)));
            match first {
                Some((_, due)) if due > at => look.0.0 = due,
                Some(first) => return Some(first),
                None => {
                    PeekMut::pop(look);
                    if let Some(list) = list {
                        list.noted = false;
                    }
                }
            }
        }
    }

    /// When the next deadline is due.
    pub fn next_due(&mut self) -> Option<usize> {
        self.next().map(|(_, due)| due)
    }

    /// Removes and returns a deadline that is due at `now`, the longest due one first.
    pub fn expire(&mut self, now: usize) -> Option<T> {
        let (ticket, _) = self.next().filter(|(_, due)| *due <= now)?;
        let item = self.nodes.get(ticket).map(|node| node.item);
        self.cancel(ticket);
        item
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn they_expire_when_due_and_not_before() {
        let mut deadlines = Deadlines::default();
        assert_eq!(deadlines.next_due(), None);
        deadlines.set(100, 50, 'a');
        deadlines.set(110, 10, 'b');
        deadlines.set(111, 50, 'c');
        assert_eq!(deadlines.next_due(), Some(120));
        assert_eq!(deadlines.expire(119), None);
        assert_eq!(deadlines.expire(120), Some('b'));
        assert_eq!(deadlines.expire(120), None);
        assert_eq!(deadlines.next_due(), Some(150));
        assert_eq!(deadlines.expire(1000), Some('a'));
        assert!(!deadlines.is_empty());
        assert_eq!(deadlines.expire(1000), Some('c'));
        assert!(deadlines.is_empty());
    }

    #[test]
    fn what_is_over_cannot_be_taken_back() {
        let mut deadlines = Deadlines::default();
        let ticket = deadlines.set(0, 1, ());
        assert!(deadlines.cancel(ticket));
        assert!(!deadlines.cancel(ticket));
        let other = deadlines.set(0, 1, ());
        assert_eq!(deadlines.expire(1), Some(()));
        assert!(!deadlines.cancel(other));
    }

    proptest! {
        /// Against a model that holds all deadlines in a plain list.
        #[test]
        fn agrees_with_a_model(steps in proptest::collection::vec((0u8..3, 0usize..40), 0..300)) {
            let mut deadlines = Deadlines::default();
            let mut model: Vec<(Ticket, usize, usize)> = Vec::new();
            let mut now = 0;
            for (id, (step, n)) in steps.into_iter().enumerate() {
                match step {
                    0 => {
                        let timeout = n % 12;
                        let ticket = deadlines.set(now, timeout, id);
                        model.push((ticket, now + timeout, id));
                    }
                    1 if !model.is_empty() => {
                        let (ticket, ..) = model.remove(n % model.len());
                        prop_assert!(deadlines.cancel(ticket));
                    }
                    _ => {
                        now += n % 3;
                        let mut expired = Vec::new();
                        while let Some(id) = deadlines.expire(now) {
                            expired.push(id);
                        }
                        expired.sort_unstable();
                        let (due, rest): (Vec<_>, Vec<_>) =
                            model.into_iter().partition(|(_, due, _)| *due <= now);
                        prop_assert_eq!(expired, due.iter().map(|d| d.2).collect::<Vec<_>>());
                        model = rest;
                    }
                }
                prop_assert_eq!(deadlines.next_due(), model.iter().map(|m| m.1).min());
                prop_assert_eq!(deadlines.is_empty(), model.is_empty());
            }
        }
    }

    #[test]
    fn few_timeouts_keep_their_lists() {
        let mut deadlines = Deadlines::default();
        for _ in 0..3 {
            let tickets: Vec<_> = (0..100)
                .map(|timeout| deadlines.set(0, timeout, ()))
                .collect();
            assert_eq!(deadlines.lists.len(), 100);
            for ticket in tickets {
                assert!(deadlines.cancel(ticket));
                assert!(deadlines.lists.len() <= 2 * (deadlines.nodes.len() + LISTS_KEPT));
                assert!(deadlines.looks.len() <= deadlines.lists.len());
            }
            assert!(deadlines.lists.len() >= LISTS_KEPT);
            assert_eq!(deadlines.next_due(), None);
            assert!(deadlines.looks.is_empty());
        }
        // a list that was kept is used again
        let kept = *deadlines.lists.keys().next().unwrap();
        deadlines.set(7, kept, ());
        assert_eq!(deadlines.next_due(), Some(7 + kept));
    }

    /// Looks that it takes until `count` deadlines are over.
    fn looks(count: usize, timeouts: usize) -> usize {
        let mut deadlines = Deadlines::default();
        let tickets: Vec<_> = (0..count)
            .map(|n| deadlines.set(n, 10_000 + n * 7919 % timeouts, n))
            .collect();
        // every other one is not waited for
        for ticket in tickets.iter().step_by(2) {
            deadlines.cancel(*ticket);
        }
        let mut expired = 0;
        while deadlines.expire(usize::MAX).is_some() {
            expired += 1;
        }
        assert_eq!(expired, count / 2);
        deadlines.looked
    }

    #[test]
    fn many_that_end_together_take_looks_in_proportion() {
        for timeouts in [1, 3, 1000, 100_000] {
            let (few, many) = (looks(2000, timeouts), looks(8000, timeouts));
            assert!(many < 8 * few, "{few}, then {many}");
            assert!(many <= 3 * 8000);
        }
    }

    #[test]
    fn room_is_made_before() {
        let mut deadlines = Deadlines::default();
        deadlines.set(0, 1, ());
        assert!(deadlines.make_room(1000));
        let room = deadlines.nodes.capacity();
        assert!(room >= 1000);
        assert!(deadlines.make_room(0) && deadlines.make_room(1000));
        assert_eq!(deadlines.nodes.capacity(), room);
    }
}
