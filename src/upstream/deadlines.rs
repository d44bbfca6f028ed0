//! Deadlines of many operations, for one timer.

use std::cmp::Reverse;
use std::collections::binary_heap::PeekMut;
use std::collections::{BTreeMap, BinaryHeap};

/// A deadline that was set. After it has expired or was cancelled, it finds nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    node: u32,
    generation: u32,
}

/// Number of timeouts that keep their lists when those get empty, so that using them again takes no
/// memory.
const LISTS_KEPT: usize = 8;

/// The place of no node.
const NONE: u32 = u32::MAX;

/// Deadlines, each with an item that identifies its owner. Times are in milliseconds of a monotonic
/// clock.
///
/// Deadlines with the same timeout expire in the order in which they were set. So each timeout has
/// a list, and setting and cancelling take constant time. Few different timeouts are in use at a
/// time; if there are many, a heap tells which list to look at.
///
/// Each command sets a deadline and cancels it, so both are to take few instructions: the lists are
/// rings of nodes in one array, and each has a node of its own between its last and its first one,
/// its head.
#[derive(Debug)]
pub struct Deadlines<T> {
    nodes: Vec<Node<T>>,
    /// The first free node; each has the next one.
    free: u32,
    /// How many deadlines there are.
    count: usize,
    /// The heads by timeout.
    lists: BTreeMap<usize, u32>,
    /// The timeout that was used last, and its head.
    last: (usize, u32),
    /// The heads, by the time to look at their lists: when the first deadlines are due, or earlier.
    looks: BinaryHeap<Reverse<(usize, u32)>>,
    /// How often a list was looked at.
    #[cfg(test)]
    looked: usize,
}

#[derive(Debug)]
struct Node<T> {
    /// The deadline's. A head has none, nor has a free node.
    item: Option<T>,
    /// A head: whether it is in the heap.
    noted: bool,
    /// When the deadline is due.
    due: usize,
    /// It grows when the node gets free, so that old tickets do not find the next deadline.
    generation: u32,
    previous: u32,
    next: u32,
}

impl<T> Default for Deadlines<T> {
    fn default() -> Self {
        Deadlines {
            nodes: Vec::new(),
            free: NONE,
            count: 0,
            lists: BTreeMap::new(),
            last: (0, NONE),
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
        let wanted = count.saturating_add(self.lists.len());
        let missing = wanted.saturating_sub(self.nodes.len());
        self.nodes.try_reserve(missing).is_ok()
    }

    fn node(&self, at: u32) -> Option<&Node<T>> {
        self.nodes.get(at as usize)
    }

    fn node_mut(&mut self, at: u32) -> Option<&mut Node<T>> {
        self.nodes.get_mut(at as usize)
    }

    /// Takes a free node, or makes one.
    #[inline(always)]
    fn take_node(&mut self, item: Option<T>, due: usize) -> u32 {
        let at = self.free;
        if let Some(node) = self.nodes.get_mut(at as usize) {
            self.free = node.next;
            (node.item, node.due) = (item, due);
            return at;
        }
        self.make_node(item, due)
    }

    #[cold]
    fn make_node(&mut self, item: Option<T>, due: usize) -> u32 {
        // memory ends before the numbers do
        let at = self.nodes.len() as u32;
        self.nodes.push(Node {
            item,
            noted: false,
            due,
            generation: 0,
            previous: at,
            next: at,
        });
        at
    }

    /// The head of a timeout's list.
    #[inline(always)]
    fn head_of(&mut self, timeout: usize) -> u32 {
        match self.last {
            (last, head) if last == timeout && head != NONE => head,
            _ => self.find_list(timeout),
        }
    }

    #[inline(never)]
    fn find_list(&mut self, timeout: usize) -> u32 {
        let known = self.lists.get(&timeout).copied();
        let head = known.unwrap_or_else(|| {
            let head = self.take_node(None, 0);
            if let Some(node) = self.node_mut(head) {
                (node.noted, node.previous, node.next) = (false, head, head);
            }
            self.lists.insert(timeout, head);
            head
        });
        self.last = (timeout, head);
        head
    }

    /// Sets a deadline `timeout` from `now`.
    #[inline(always)]
    pub fn set(&mut self, now: usize, timeout: usize, item: T) -> Ticket {
        let head = self.head_of(timeout);
        let due = now.saturating_add(timeout);
        let at = self.take_node(Some(item), due);
        self.count += 1;
        let mut last = head;
        if let Some(head) = self.node_mut(head) {
            last = std::mem::replace(&mut head.previous, at);
            if !std::mem::replace(&mut head.noted, true) {
                self.looks.push(Reverse((due, self.last.1)));
            }
        }
        if let Some(last) = self.node_mut(last) {
            last.next = at;
        }
        let mut generation = 0;
        if let Some(node) = self.node_mut(at) {
            (node.previous, node.next) = (last, head);
            generation = node.generation;
        }
        Ticket {
            node: at,
            generation,
        }
    }

    /// Cancels a deadline. False if it has expired already.
    #[inline(always)]
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let free = self.free;
        let Some(node) = self.node_mut(ticket.node) else {
            return false;
        };
        if node.generation != ticket.generation || node.item.is_none() {
            return false;
        }
        let (previous, next) = (node.previous, node.next);
        node.item = None;
        node.generation = node.generation.wrapping_add(1);
        node.next = free;
        self.free = ticket.node;
        self.count -= 1;
        if let Some(node) = self.node_mut(previous) {
            node.next = next;
        }
        if let Some(node) = self.node_mut(next) {
            node.previous = previous;
        }
        if previous == next && self.lists.len() > 2 * (self.count + LISTS_KEPT) {
            self.drop_lists();
        }
        true
    }

    /// Drops empty lists.
    #[cold]
    fn drop_lists(&mut self) {
        let (nodes, free) = (&mut self.nodes, &mut self.free);
        let mut empty = 0;
        self.lists.retain(|_, head| {
            let Some(node) = nodes.get_mut(*head as usize) else {
                return false;
            };
            let is_empty = node.next == *head;
            empty += usize::from(is_empty);
            if !is_empty || empty <= LISTS_KEPT {
                return true;
            }
            // what is left of it in the heap is seen to be of no list
            node.noted = false;
            node.next = std::mem::replace(free, *head);
            false
        });
        self.last = (0, NONE);
        let mut heads: Vec<u32> = self.lists.values().copied().collect();
        heads.sort_unstable();
        self.looks
            .retain(|Reverse((_, head))| heads.binary_search(head).is_ok());
    }

    /// The deadline that is due next, and when.
    fn next(&mut self) -> Option<(Ticket, usize)> {
        loop {
            let mut look = self.looks.peek_mut()?;
            let Reverse((at, head)) = *look;
            #[cfg(test)]
            {
                self.looked += 1;
            }
            let first = self.nodes.get(head as usize).map_or(NONE, |head| head.next);
            match self.nodes.get(first as usize) {
                Some(node) if node.item.is_none() => {
                    // the head is alone
                    PeekMut::pop(look);
                    if let Some(head) = self.node_mut(head) {
                        head.noted = false;
                    }
                }
                Some(node) if node.due > at => look.0.0 = node.due,
                Some(node) => {
                    let ticket = Ticket {
                        node: first,
                        generation: node.generation,
                    };
                    return Some((ticket, node.due));
                }
                None => return None,
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
        let item = self.node(ticket.node).and_then(|node| node.item);
        self.cancel(ticket);
        item
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.count == 0
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
    fn a_list_whose_first_deadline_was_cancelled_waits_for_its_turn() {
        let mut deadlines = Deadlines::default();
        let first = deadlines.set(0, 10, "first");
        deadlines.set(5, 10, "last");
        deadlines.set(0, 12, "between");
        assert!(deadlines.cancel(first));
        assert_eq!(deadlines.next_due(), Some(12));
        assert_eq!(deadlines.expire(20), Some("between"));
        assert_eq!(deadlines.expire(20), Some("last"));
        assert_eq!(deadlines.expire(20), None);
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
                assert!(deadlines.lists.len() <= 2 * (deadlines.count + LISTS_KEPT));
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

    #[test]
    fn empty_lists_go_when_they_are_too_many_for_what_is_left() {
        let mut deadlines = Deadlines::default();
        let tickets: Vec<Ticket> = (1..=20).map(|ms| deadlines.set(0, ms, ms)).collect();
        // 20 lists, for 2 deadlines and those that are kept
        for ticket in &tickets[..18] {
            assert!(deadlines.cancel(*ticket));
            assert_eq!(deadlines.lists.len(), 20);
        }
        // 20 lists, for 1 deadline
        assert!(deadlines.cancel(tickets[18]));
        assert_eq!(deadlines.lists.len(), 1 + LISTS_KEPT);
    }

    #[test]
    fn lists_that_were_dropped_leave_their_nodes() {
        let mut deadlines = Deadlines::default();
        for round in 0..5 {
            let tickets: Vec<_> = (0..100)
                .map(|timeout| deadlines.set(round, 1000 * round + timeout, timeout))
                .collect();
            for ticket in tickets.into_iter().rev() {
                assert!(deadlines.cancel(ticket));
            }
            assert!(deadlines.nodes.len() <= 2 * (100 + LISTS_KEPT));
        }
        // the list that was used last may be one of those
        let mut deadlines = Deadlines::default();
        let tickets: Vec<_> = (0..=2 * LISTS_KEPT)
            .map(|timeout| deadlines.set(0, timeout, 0))
            .collect();
        assert!(tickets.into_iter().all(|ticket| deadlines.cancel(ticket)));
        let last = 2 * LISTS_KEPT;
        assert!(!deadlines.lists.contains_key(&last));
        deadlines.set(0, last, 1);
        deadlines.set(0, last + 1, 2);
        deadlines.set(1, last, 3);
        assert_eq!(deadlines.expire(last), Some(1));
        assert_eq!(deadlines.expire(last), None);
        assert_eq!(deadlines.next_due(), Some(last + 1));
        let mut rest = [deadlines.expire(last + 1), deadlines.expire(last + 1)];
        rest.sort_unstable();
        assert_eq!(rest, [Some(2), Some(3)]);
        assert_eq!(deadlines.expire(usize::MAX), None);
    }

    #[test]
    fn an_old_ticket_does_not_find_the_next_deadline_in_its_place() {
        let mut deadlines = Deadlines::default();
        let old = deadlines.set(0, 5, 'a');
        assert!(deadlines.cancel(old));
        let new = deadlines.set(0, 5, 'b');
        assert_eq!(new.node, old.node);
        assert!(!deadlines.cancel(old));
        assert_eq!(deadlines.expire(5), Some('b'));
        assert!(!deadlines.cancel(new));
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
        // and for the list's own node
        assert!(room >= 1001);
        assert!(deadlines.make_room(0) && deadlines.make_room(1000));
        assert_eq!(deadlines.nodes.capacity(), room);
    }
}
