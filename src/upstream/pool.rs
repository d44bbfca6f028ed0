//! One keepalive pool, with the rules of ngx_lua's cosocket pools
//! (lua-nginx-module, `tcpsock:connect` and `tcpsock:setkeepalive`).

use super::line::{Line, Place};

/// A pool of connections to one peer, or of all connections that use one pool
/// name.
///
/// `I` is the id of an idle connection, `W` the id of a waiting connect
/// operation.
///
/// `connections` counts idle connections, connections in use that were opened
/// through the pool, undecided operations and queued ones. A pool that counts
/// nothing may be dropped. Then the next pool with the same name may have
/// another size.
#[derive(Debug)]
pub struct Pool<I, W> {
    size: usize,
    backlog: Option<usize>,
    connections: usize,
    /// Most recently used first.
    idle: Line<I>,
    /// Longest waiting first.
    waiting: Line<W>,
}

/// Whether an idle connection is suitable for a connect operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fitness {
    /// It is.
    Fits,
    /// It is not known yet.
    MayFit,
    /// It is not.
    Unfit,
}

/// What a connect operation may do.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<I> {
    /// Take this idle connection; it stays counted.
    Reuse(I),
    /// There are idle connections, but it is not known yet whether they are
    /// suitable. Meanwhile, the operation is counted. Later it is to
    /// [`Pool::take`] one of them, [`Pool::claim`] a new one, or be
    /// [`Pool::release`]d.
    Undecided,
    /// Open a new connection; it is counted from now on.
    Connect,
    /// The same, and close this idle connection, which is not suitable and
    /// occupies a place. It is not counted any more.
    Replace(I),
    /// The pool is full: call [`Pool::enqueue`]; the wait is counted from now on.
    Wait,
    /// The pool and its backlog are full.
    Refuse,
}

impl<I, W> Pool<I, W> {
    /// A pool that keeps up to `size` idle connections (at least one). With a
    /// `backlog`, at most `size` connections are open at once and up to
    /// `backlog` connect operations wait for one.
    pub fn new(size: usize, backlog: Option<usize>) -> Self {
        Pool {
            size: size.max(1),
            backlog,
            connections: 0,
            idle: Line::default(),
            waiting: Line::default(),
        }
    }

    /// Decides about a new connect operation. `fitness` says whether an idle
    /// connection is suitable.
    pub fn admit(&mut self, fitness: impl FnMut(&I) -> Fitness) -> Admission<I> {
        match self.admit_idle(fitness) {
            Some(Admission::Undecided) if self.at_limit() => {}
            Some(Admission::Undecided) => {
                self.connections += 1;
                return Admission::Undecided;
            }
            Some(admission) => return admission,
            None => {}
        }
        let full = self.connections >= self.size;
        let Some(backlog) = self.backlog.filter(|_| full) else {
            self.connections += 1;
            return Admission::Connect;
        };
        // an idle connection that is not suitable is no reason to wait
        if !self.at_limit()
            && let Some(unfit) = self.idle.pop_back()
        {
            return Admission::Replace(unfit);
        }
        if self.connections >= self.size.saturating_add(backlog) {
            return Admission::Refuse;
        }
        self.connections += 1;
        Admission::Wait
    }

    /// Whether as many connections are in use as may be open at once.
    fn at_limit(&self) -> bool {
        let unused = self.idle.len() + self.waiting.len();
        self.backlog.is_some() && self.connections.saturating_sub(unused) >= self.size
    }

    fn admit_idle(&mut self, mut fitness: impl FnMut(&I) -> Fitness) -> Option<Admission<I>> {
        // usually it is the first one
        let first = fitness(self.idle.front()?);
        if first == Fitness::Fits {
            return self.idle.pop_front().map(Admission::Reuse);
        }
        let mut undecided = first == Fitness::MayFit;
        let fits = self.idle.iter().skip(1).find_map(|(place, idle)| {
            let fitness = fitness(idle);
            undecided |= fitness == Fitness::MayFit;
            (fitness == Fitness::Fits).then_some(place)
        });
        match fits.and_then(|place| self.idle.remove(place)) {
            Some(idle) => Some(Admission::Reuse(idle)),
            None => undecided.then_some(Admission::Undecided),
        }
    }

    /// Takes an idle connection, and gives back the place that the caller held.
    pub fn take(&mut self, mut wanted: impl FnMut(&I) -> bool) -> Option<I> {
        let (place, _) = self.idle.iter().find(|(_, idle)| wanted(idle))?;
        let item = self.idle.remove(place)?;
        self.release();
        Some(item)
    }

    /// A new connection will be opened in the place that the caller holds. If
    /// that is one too many, an idle connection is returned, which has to be
    /// closed.
    pub fn claim(&mut self) -> Option<I> {
        if self.backlog.is_none() || self.connections <= self.size {
            return None;
        }
        let evicted = self.idle.pop_back();
        if evicted.is_some() {
            self.release();
        }
        evicted
    }

    /// Queues an operation that was told to wait. Returns its place for
    /// [`abandon`](Self::abandon).
    pub fn enqueue(&mut self, waiter: W) -> Place {
        self.waiting.push_back(waiter)
    }

    /// The operation that has waited longest.
    pub fn next_waiting(&self) -> Option<&W> {
        self.waiting.front()
    }

    /// The operation that has waited longest, and what it may do now that a
    /// connection was given back or closed. Never `Wait` or `Refuse`. `None` if
    /// nothing waits, or if an idle connection was closed and there is no room.
    pub fn resume(&mut self, fitness: impl FnMut(&I) -> Fitness) -> Option<(W, Admission<I>)> {
        if self.at_limit() {
            return None;
        }
        let waiter = self.waiting.pop_front()?;
        // its wait was counted; what it gets is counted instead
        let admission = self.admit_idle(fitness).unwrap_or_else(|| {
            // all but one are in use
            let unfit = self.idle.pop_back();
            unfit.map_or(Admission::Connect, Admission::Replace)
        });
        if let Admission::Reuse(_) | Admission::Replace(_) = admission {
            self.release();
        }
        Some((waiter, admission))
    }

    /// Whether the operation that has waited longest may go on, and a connection
    /// has to be opened for it.
    pub fn opens_next(&self) -> bool {
        !self.waiting.is_empty() && self.idle.is_empty() && !self.at_limit()
    }

    /// Removes an operation from the queue, because it timed out or nobody
    /// waits for it any more. True if it was queued.
    pub fn abandon(&mut self, place: Place) -> bool {
        let found = self.waiting.remove(place).is_some();
        if found {
            self.release();
        }
        found
    }

    /// Puts a connection back as the most recently used one. `counted` tells
    /// whether it was opened through this pool. Returns its place for
    /// [`remove`](Self::remove), and the idle connection that has to be closed
    /// to make room, if any.
    pub fn put(&mut self, item: I, counted: bool) -> (Place, Option<I>) {
        let evicted = if self.idle.len() >= self.size {
            self.idle.pop_back()
        } else {
            None
        };
        match (evicted.is_some(), counted) {
            (true, true) => self.release(),
            (false, false) => self.connections += 1,
            _ => {}
        }
        (self.idle.push_front(item), evicted)
    }

    /// Removes an idle connection that was closed. True if it was in the pool.
    pub fn remove(&mut self, place: Place) -> bool {
        let found = self.idle.remove(place).is_some();
        if found {
            self.release();
        }
        found
    }

    /// A counted connection in use was closed.
    pub fn release(&mut self) {
        self.connections = self.connections.saturating_sub(1);
    }

    /// True if nothing is counted: the pool can be dropped.
    pub fn is_unused(&self) -> bool {
        self.connections == 0
    }

    /// The idle connections, most recently used first.
    pub fn idle(&self) -> impl Iterator<Item = &I> {
        self.idle.iter().map(|(_, idle)| idle)
    }

    /// Counted connections and queued connect operations.
    pub fn connections(&self) -> usize {
        self.connections
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    type TestPool = Pool<u32, u32>;

    fn any(_: &u32) -> Fitness {
        Fitness::Fits
    }

    /// Even ids fit, odd ones may.
    fn even(id: &u32) -> Fitness {
        match id % 2 {
            0 => Fitness::Fits,
            _ => Fitness::MayFit,
        }
    }

    #[test]
    fn what_fits_goes_first_and_what_may_fit_is_left_undecided() {
        let mut pool = TestPool::new(4, None);
        for id in 1..=4 {
            assert_eq!(pool.put(id, false).1, None);
        }
        assert_eq!(pool.admit(even), Admission::Reuse(4));
        assert_eq!(pool.admit(even), Admission::Reuse(2));
        assert_eq!(pool.admit(even), Admission::Undecided);
        assert_eq!(pool.admit(|_| Fitness::Unfit), Admission::Connect);
        assert_eq!(pool.connections(), 6);
        assert_eq!(pool.take(|id| *id == 7), None);
        assert_eq!(pool.connections(), 6);
        // the one taken was counted as idle, and is so now in the other's place
        assert_eq!(pool.take(|id| *id == 1), Some(1));
        assert_eq!(pool.connections(), 5);
        assert_eq!(pool.claim(), None);
    }

    #[test]
    fn a_claim_beyond_the_size_closes_an_idle_connection() {
        let mut pool = TestPool::new(2, Some(1));
        pool.put(1, false);
        pool.put(3, false);
        assert_eq!(pool.admit(even), Admission::Undecided);
        assert_eq!(pool.connections(), 3);
        assert_eq!(pool.claim(), Some(1));
        assert_eq!(pool.connections(), 2);
        assert_eq!(pool.claim(), None);
    }

    #[test]
    fn undecided_operations_take_room_and_leave_it() {
        let mut pool = TestPool::new(1, Some(2));
        pool.put(1, false);
        assert_eq!(pool.admit(even), Admission::Undecided);
        // the room is taken, whichever connection it will be
        assert_eq!(pool.admit(even), Admission::Wait);
        pool.enqueue(7);
        assert_eq!(pool.admit(even), Admission::Refuse);
        // it is given up: the one that waits is undecided in its place
        pool.release();
        assert_eq!(pool.resume(even), Some((7, Admission::Undecided)));
        assert_eq!(pool.connections(), 2);
        assert_eq!(pool.take(|_| true), Some(1));
        assert_eq!(pool.connections(), 1);
    }

    #[test]
    fn reuse_is_last_in_first_out() {
        let mut pool = TestPool::new(3, None);
        for _ in 1..=3 {
            assert_eq!(pool.admit(any), Admission::Connect);
        }
        for id in 1..=3 {
            assert_eq!(pool.put(id, true).1, None);
        }
        assert_eq!(pool.admit(any), Admission::Reuse(3));
        assert_eq!(pool.admit(any), Admission::Reuse(2));
    }

    #[test]
    fn a_full_pool_gives_up_the_least_recently_used() {
        let mut pool = TestPool::new(2, None);
        for _ in 1..=3 {
            assert_eq!(pool.admit(any), Admission::Connect);
        }
        pool.put(1, true);
        pool.put(2, true);
        assert_eq!(pool.connections(), 3);
        assert_eq!(pool.put(3, true).1, Some(1));
        assert_eq!(pool.connections(), 2);
        // not counted before, it is in the other's place
        assert_eq!(pool.put(9, false).1, Some(2));
        assert_eq!(pool.connections(), 2);
        assert_eq!(pool.idle().copied().collect::<Vec<_>>(), [9, 3]);
    }

    #[test]
    fn without_a_backlog_connects_are_never_held_back() {
        let mut pool = TestPool::new(1, None);
        for _ in 0..10 {
            assert_eq!(pool.admit(any), Admission::Connect);
        }
    }

    #[test]
    fn a_backlog_queues_and_then_refuses() {
        let mut pool = TestPool::new(1, Some(1));
        assert_eq!(pool.admit(any), Admission::Connect);
        assert_eq!(pool.admit(any), Admission::Wait);
        pool.enqueue(7);
        assert_eq!(pool.admit(any), Admission::Refuse);
        // the connection comes back: the waiter gets it
        assert_eq!(pool.put(1, true).1, None);
        assert_eq!(pool.resume(any), Some((7, Admission::Reuse(1))));
        assert_eq!(pool.connections(), 1);
        assert_eq!(pool.resume(any), None);
    }

    #[test]
    fn a_closed_connection_lets_a_waiter_connect() {
        let mut pool = TestPool::new(1, Some(5));
        assert!(!pool.opens_next());
        pool.admit(any);
        assert_eq!(pool.admit(any), Admission::Wait);
        pool.enqueue(7);
        assert!(!pool.opens_next());
        pool.release();
        assert!(pool.opens_next());
        assert_eq!(pool.resume(any), Some((7, Admission::Connect)));
        assert_eq!((pool.connections(), pool.opens_next()), (1, false));
    }

    #[test]
    fn an_idle_connection_that_does_not_fit_is_no_reason_to_wait() {
        let unfit = |_: &u32| Fitness::Unfit;
        let mut pool = TestPool::new(2, Some(0));
        pool.put(1, false);
        pool.put(2, false);
        assert_eq!(pool.admit(unfit), Admission::Replace(1));
        assert_eq!(pool.connections(), 2);
        assert_eq!(pool.admit(unfit), Admission::Replace(2));
        assert_eq!(pool.connections(), 2);
        assert_eq!(pool.admit(unfit), Admission::Refuse);
        // no more may be idle than may be open
        let mut pool = TestPool::new(2, Some(0));
        pool.put(1, false);
        assert_eq!(pool.admit(unfit), Admission::Connect);
        assert_eq!(pool.idle().count(), 1);
    }

    #[test]
    fn who_waited_gets_the_place_of_a_connection_that_does_not_fit() {
        let mut pool = TestPool::new(1, Some(2));
        assert_eq!(pool.admit(any), Admission::Connect);
        for waiter in [7, 8] {
            assert_eq!(pool.admit(any), Admission::Wait);
            pool.enqueue(waiter);
        }
        assert_eq!((pool.put(1, true).1, pool.opens_next()), (None, false));
        let resumed = pool.resume(|_| Fitness::Unfit);
        assert_eq!(resumed, Some((7, Admission::Replace(1))));
        assert_eq!((pool.connections(), pool.idle().count()), (2, 0));
    }

    #[test]
    fn the_end_of_an_idle_connection_makes_no_room() {
        let mut pool = TestPool::new(1, Some(2));
        let (one, _) = pool.put(1, false);
        assert_eq!(pool.admit(even), Admission::Undecided);
        assert_eq!(pool.admit(even), Admission::Wait);
        pool.enqueue(7);
        assert!(pool.remove(one));
        assert!(!pool.remove(one));
        assert_eq!(pool.resume(even), None);
        assert_eq!(pool.next_waiting(), Some(&7));
        pool.release();
        assert_eq!(pool.resume(even), Some((7, Admission::Connect)));
        assert_eq!(pool.next_waiting(), None);
        assert_eq!(pool.connections(), 1);
    }

    #[test]
    fn an_abandoned_wait_is_not_counted() {
        let mut pool = TestPool::new(1, Some(5));
        pool.admit(any);
        pool.admit(any);
        let seven = pool.enqueue(7);
        assert!(pool.abandon(seven));
        assert!(!pool.abandon(seven));
        assert!(!pool.is_unused());
        pool.release();
        assert!(pool.is_unused());
    }

    #[test]
    fn a_zero_backlog_refuses_at_once() {
        let mut pool = TestPool::new(1, Some(0));
        assert_eq!(pool.admit(any), Admission::Connect);
        assert_eq!(pool.admit(any), Admission::Refuse);
    }

    proptest! {
        /// Against a model that holds the sets themselves: the count is always
        /// idle + in use + waiting, idle never exceeds the size, and with a
        /// backlog the connections never exceed the size.
        #[test]
        fn counts_agree_with_a_model(
            size in 1usize..4,
            backlog in proptest::option::of(0usize..3),
            steps in proptest::collection::vec(0u8..6, 0..200),
        ) {
            let mut pool = TestPool::new(size, backlog);
            let mut next = 0u32;
            let mut used: Vec<u32> = Vec::new();
            let mut waiting: Vec<(u32, Place)> = Vec::new();
            let mut places: HashMap<u32, Place> = HashMap::new();
            for step in steps {
                match step {
                    0 | 1 => {
                        next += 1;
                        match pool.admit(any) {
                            Admission::Reuse(id) => used.push(id),
                            Admission::Connect => used.push(next),
                            Admission::Wait => waiting.push((next, pool.enqueue(next))),
                            Admission::Refuse => prop_assert!(backlog.is_some()),
                            Admission::Undecided | Admission::Replace(_) => {
                                prop_assert!(false, "all fit")
                            }
                        }
                    }
                    2 => if let Some(id) = used.pop() {
                        let (place, _closed) = pool.put(id, true);
                        places.insert(id, place);
                    },
                    3 => if used.pop().is_some() { pool.release() },
                    4 => if !waiting.is_empty() {
                        let (_, place) = waiting.remove(waiting.len() / 2);
                        prop_assert!(pool.abandon(place));
                    },
                    _ => {
                        let first = pool.idle().next().copied();
                        if let Some(id) = first { prop_assert!(pool.remove(places[&id])) }
                    }
                }
                // whatever was freed goes to those who wait
                while !waiting.is_empty()
                    && (pool.idle().next().is_some() || pool.connections() - waiting.len() < size)
                {
                    let Some((waiter, admission)) = pool.resume(any) else { break };
                    prop_assert_eq!(waiting.remove(0).0, waiter);
                    used.push(match admission { Admission::Reuse(id) => id, _ => waiter });
                }
                let idle = pool.idle().count();
                prop_assert_eq!(pool.connections(), idle + used.len() + waiting.len());
                prop_assert!(idle <= size);
                if backlog.is_some() { prop_assert!(idle + used.len() <= size) }
            }
        }
    }
}
