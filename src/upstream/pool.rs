//! One keepalive pool, with the rules of ngx_lua's cosocket pools
//! (lua-nginx-module, `tcpsock:connect` and `tcpsock:setkeepalive`).

use std::collections::VecDeque;

/// A pool of connections to one peer, or of whatever shares one pool name.
///
/// `I` is the id of an idle connection, `W` the id of a waiting connect
/// operation.
///
/// `connections` counts what the pool is responsible for: idle connections,
/// connections in use that were opened through the pool, and queued connect
/// operations. A pool that counts nothing may be dropped; the next one under
/// the same name may then have another size.
#[derive(Debug)]
pub struct Pool<I, W> {
    size: usize,
    backlog: Option<usize>,
    connections: usize,
    /// Most recently used first.
    idle: VecDeque<I>,
    /// Longest waiting first.
    waiting: VecDeque<W>,
}

/// What a connect operation may do.
#[derive(Debug, PartialEq, Eq)]
pub enum Admission<I> {
    /// Take this idle connection; it stays counted.
    Reuse(I),
    /// Open a new connection; it is counted from now on.
    Connect,
    /// The pool is full: call [`Pool::enqueue`]; the wait is counted from now on.
    Wait,
    /// The pool and its backlog are full.
    Refuse,
}

impl<I: PartialEq, W: PartialEq> Pool<I, W> {
    /// A pool that keeps up to `size` idle connections (at least one). With a
    /// `backlog`, at most `size` connections are open at once and up to
    /// `backlog` connect operations wait for one.
    pub fn new(size: usize, backlog: Option<usize>) -> Self {
        Pool {
            size: size.max(1),
            backlog,
            connections: 0,
            idle: VecDeque::new(),
            waiting: VecDeque::new(),
        }
    }

    /// Decides about a new connect operation.
    pub fn admit(&mut self) -> Admission<I> {
        if let Some(item) = self.idle.pop_front() {
            return Admission::Reuse(item);
        }
        match self.backlog {
            Some(backlog) if self.connections >= self.size.saturating_add(backlog) => {
                Admission::Refuse
            }
            Some(_) if self.connections >= self.size => {
                self.connections += 1;
                Admission::Wait
            }
            _ => {
                self.connections += 1;
                Admission::Connect
            }
        }
    }

    /// Queues an operation that was told to wait.
    pub fn enqueue(&mut self, waiter: W) {
        self.waiting.push_back(waiter);
    }

    /// The operation that has waited longest and what it may do now that a
    /// connection was given back or closed. Never `Wait` or `Refuse`.
    pub fn resume(&mut self) -> Option<(W, Admission<I>)> {
        let waiter = self.waiting.pop_front()?;
        // its wait was counted, and so is what it gets instead
        let admission = match self.idle.pop_front() {
            Some(item) => {
                self.connections = self.connections.saturating_sub(1);
                Admission::Reuse(item)
            }
            None => Admission::Connect,
        };
        Some((waiter, admission))
    }

    /// Takes a waiting operation out of the queue (it timed out or nobody
    /// waits for it any more). True if it was queued.
    pub fn abandon(&mut self, waiter: &W) -> bool {
        let before = self.waiting.len();
        self.waiting.retain(|queued| queued != waiter);
        let found = self.waiting.len() < before;
        if found {
            self.release();
        }
        found
    }

    /// Puts a connection back as the most recently used one. `counted` tells
    /// whether it was opened through this pool. Returns the idle connection
    /// that has to be closed to make room, if any.
    pub fn put(&mut self, item: I, counted: bool) -> Option<I> {
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
        self.idle.push_front(item);
        evicted
    }

    /// Takes an idle connection out because it was closed. True if it was there.
    pub fn remove(&mut self, item: &I) -> bool {
        let before = self.idle.len();
        self.idle.retain(|idle| idle != item);
        let found = self.idle.len() < before;
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

    /// How many idle connections it keeps.
    pub fn size(&self) -> usize {
        self.size
    }

    /// How many connect operations may wait; `None`: they never have to.
    pub fn backlog(&self) -> Option<usize> {
        self.backlog
    }

    /// The idle connections, most recently used first.
    pub fn idle(&self) -> impl Iterator<Item = &I> {
        self.idle.iter()
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

    type TestPool = Pool<u32, u32>;

    #[test]
    fn reuse_is_last_in_first_out() {
        let mut pool = TestPool::new(3, None);
        for _ in 1..=3 {
            assert_eq!(pool.admit(), Admission::Connect);
        }
        for id in 1..=3 {
            assert_eq!(pool.put(id, true), None);
        }
        assert_eq!(pool.admit(), Admission::Reuse(3));
        assert_eq!(pool.admit(), Admission::Reuse(2));
    }

    #[test]
    fn a_full_pool_gives_up_the_least_recently_used() {
        let mut pool = TestPool::new(2, None);
        pool.admit();
        pool.admit();
        pool.put(1, true);
        pool.put(2, true);
        assert_eq!(pool.put(9, false), Some(1));
        assert_eq!(pool.connections(), 2);
        assert_eq!(pool.idle().copied().collect::<Vec<_>>(), [9, 2]);
    }

    #[test]
    fn without_a_backlog_connects_are_never_held_back() {
        let mut pool = TestPool::new(1, None);
        for _ in 0..10 {
            assert_eq!(pool.admit(), Admission::Connect);
        }
    }

    #[test]
    fn a_backlog_queues_and_then_refuses() {
        let mut pool = TestPool::new(1, Some(1));
        assert_eq!(pool.admit(), Admission::Connect);
        assert_eq!(pool.admit(), Admission::Wait);
        pool.enqueue(7);
        assert_eq!(pool.admit(), Admission::Refuse);
        // the connection comes back: the waiter gets it
        assert_eq!(pool.put(1, true), None);
        assert_eq!(pool.resume(), Some((7, Admission::Reuse(1))));
        assert_eq!(pool.connections(), 1);
        assert_eq!(pool.resume(), None);
    }

    #[test]
    fn a_closed_connection_lets_a_waiter_connect() {
        let mut pool = TestPool::new(1, Some(5));
        pool.admit();
        assert_eq!(pool.admit(), Admission::Wait);
        pool.enqueue(7);
        pool.release();
        assert_eq!(pool.resume(), Some((7, Admission::Connect)));
        assert_eq!(pool.connections(), 1);
    }

    #[test]
    fn an_abandoned_wait_is_not_counted() {
        let mut pool = TestPool::new(1, Some(5));
        pool.admit();
        pool.admit();
        pool.enqueue(7);
        assert!(pool.abandon(&7));
        assert!(!pool.abandon(&7));
        pool.release();
        assert!(pool.is_unused());
    }

    #[test]
    fn a_zero_backlog_refuses_at_once() {
        let mut pool = TestPool::new(1, Some(0));
        assert_eq!(pool.admit(), Admission::Connect);
        assert_eq!(pool.admit(), Admission::Refuse);
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
            let mut waiting: Vec<u32> = Vec::new();
            for step in steps {
                match step {
                    0 | 1 => {
                        next += 1;
                        match pool.admit() {
                            Admission::Reuse(id) => used.push(id),
                            Admission::Connect => used.push(next),
                            Admission::Wait => { pool.enqueue(next); waiting.push(next) }
                            Admission::Refuse => prop_assert!(backlog.is_some()),
                        }
                    }
                    2 => if let Some(id) = used.pop() {
                        let _closed = pool.put(id, true);
                    },
                    3 => if used.pop().is_some() { pool.release() },
                    4 => if !waiting.is_empty() {
                        let id = waiting.remove(waiting.len() / 2);
                        prop_assert!(pool.abandon(&id));
                    },
                    _ => {
                        let first = pool.idle().next().copied();
                        if let Some(id) = first { prop_assert!(pool.remove(&id)) }
                    }
                }
                // whatever was freed goes to those who wait
                while !waiting.is_empty()
                    && (pool.idle().next().is_some() || pool.connections() - waiting.len() < size)
                {
                    let Some((waiter, admission)) = pool.resume() else { break };
                    prop_assert_eq!(waiting.remove(0), waiter);
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
