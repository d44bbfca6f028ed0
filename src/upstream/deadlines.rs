//! Deadlines of many operations, for one timer.

use std::collections::BTreeMap;

use slotmap::{SlotMap, new_key_type};

new_key_type! {
    /// A deadline that was set. One that is over or was taken back finds nothing.
    pub struct Ticket;
}

/// Timeouts up to this number keep their lists when those get empty, so that it takes no memory to
/// begin them again.
const LISTS_KEPT: usize = 8;

/// Deadlines, each with an item that tells whose it is. Times are in
/// milliseconds of a clock that never goes back.
///
/// Those of one timeout expire in the order in which they were set, so each
/// timeout has a list, and setting and taking back cost the same however many
/// there are. Few different timeouts are in use at a time.
#[derive(Debug)]
pub struct Deadlines<T> {
    nodes: SlotMap<Ticket, Node<T>>,
    /// By timeout; `None`: empty.
    lists: BTreeMap<usize, Option<List>>,
}

#[derive(Debug)]
struct Node<T> {
    item: T,
    due: usize,
    timeout: usize,
    previous: Option<Ticket>,
    next: Option<Ticket>,
}

#[derive(Clone, Copy, Debug)]
struct List {
    first: Ticket,
    last: Ticket,
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Deadlines {
            nodes: SlotMap::with_key(),
            lists: BTreeMap::new(),
        }
    }
}

impl<T: Copy> Deadlines<T> {
    /// Makes room for so many deadlines in all. False if there is no memory for it.
    #[must_use]
    pub fn make_room(&mut self, count: usize) -> bool {
        let missing = count.saturating_sub(self.nodes.len());
        self.nodes.try_reserve(missing).is_ok()
    }

    /// Sets a deadline `timeout` from `now`.
    pub fn set(&mut self, now: usize, timeout: usize, item: T) -> Ticket {
        let list = self.lists.get_mut(&timeout);
        let ends = list.as_ref().and_then(|list| **list);
        let last = ends.map(|list| list.last);
        let ticket = self.nodes.insert(Node {
            item,
            due: now.saturating_add(timeout),
            timeout,
            previous: last,
            next: None,
        });
        if let Some(last) = last.and_then(|last| self.nodes.get_mut(last)) {
            last.next = Some(ticket);
        }
        let first = ends.map_or(ticket, |list| list.first);
        let last = ticket;
        match list {
            Some(list) => *list = Some(List { first, last }),
            None => {
                self.lists.insert(timeout, Some(List { first, last }));
            }
        }
        ticket
    }

    /// Takes a deadline back. False if it was over already.
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
        match (node.previous, node.next) {
            (None, None) if self.lists.len() > LISTS_KEPT => {
                self.lists.remove(&node.timeout);
            }
            (None, None) => {
                if let Some(list) = self.lists.get_mut(&node.timeout) {
                    *list = None;
                }
            }
            (previous, next) => {
                if let Some(Some(list)) = self.lists.get_mut(&node.timeout) {
                    list.first = next.filter(|_| previous.is_none()).unwrap_or(list.first);
                    list.last = previous.filter(|_| next.is_none()).unwrap_or(list.last);
                }
            }
        }
        true
    }

    /// When the next deadline is due.
    pub fn next_due(&self) -> Option<usize> {
        let heads = self.lists.values().flatten().map(|list| list.first);
        heads
            .filter_map(|first| self.nodes.get(first).map(|node| node.due))
            .min()
    }

    /// A deadline that is due at `now`, if there is one; it is over then.
    pub fn expire(&mut self, now: usize) -> Option<T> {
        let mut heads = self.lists.values().flatten().map(|list| list.first);
        let ticket = heads.find(|first| self.nodes.get(*first).is_some_and(|node| node.due <= now));
        let ticket = ticket?;
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
    fn eight_timeouts_keep_their_lists() {
        let mut deadlines = Deadlines::default();
        let tickets: Vec<_> = (0..10)
            .map(|timeout| deadlines.set(0, timeout, ()))
            .collect();
        assert_eq!(deadlines.lists.len(), 10);
        for ticket in tickets {
            assert!(deadlines.cancel(ticket));
        }
        assert_eq!(deadlines.lists.len(), LISTS_KEPT);
        // those of the last two are not there, that of another one is used again
        for timeout in [9, 9, 1] {
            deadlines.set(0, timeout, ());
        }
        assert_eq!(deadlines.lists.len(), LISTS_KEPT + 1);
        assert_eq!(deadlines.next_due(), Some(1));
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
