//! One keepalive pool, with the rules of ngx_lua's cosocket pools (lua-nginx-module,
//! `tcpsock:connect` and `tcpsock:setkeepalive`).

use super::line::{Line, Place};

/// A pool of connections to one peer, or of all connections that use one pool name.
///
/// `I` is the id of an idle connection, `W` the id of a waiting connect operation.
///
/// `connections` counts idle connections, connections in use that were opened through the pool,
/// undecided operations and queued ones. A pool that counts nothing may be dropped. Then the next
/// pool with the same name may have another size.
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
    /// There are idle connections, but it is not known yet whether they are suitable. Meanwhile,
    /// the operation is counted. Later it is to [`Pool::take`] one of them, [`Pool::claim`] a new
    /// one, or be [`Pool::release`]d.
    Undecided,
    /// Open a new connection; it is counted from now on.
    Connect,
    /// The same, and close this idle connection, which is not suitable and occupies a place. It is
    /// not counted any more.
    Replace(I),
    /// The pool is full: call [`Pool::enqueue`]; the wait is counted from now on.
    Wait,
    /// The pool and its backlog are full.
    Refuse,
}

impl<I, W> Pool<I, W> {
    /// A pool that keeps up to `size` idle connections (at least one). With a `backlog`, at most
    /// `size` connections are open at once and up to `backlog` connect operations wait for one.
    pub fn new(size: usize, backlog: Option<usize>) -> Self {
        Pool {
            size: size.max(1),
            backlog,
            connections: 0,
            idle: Line::default(),
            waiting: Line::default(),
        }
    }

    /// Decides about a new connect operation. `fitness` says whether an idle connection is
    /// suitable.
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

    /// A new connection will be opened in the place that the caller holds. If that is one too many,
    /// an idle connection is returned, which has to be closed.
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

    /// Queues an operation that was told to wait. Returns its place for [`abandon`](Self::abandon).
    pub fn enqueue(&mut self, waiter: W) -> Place {
        self.waiting.push_back(waiter)
    }

    /// The operation that has waited longest.
    pub fn next_waiting(&self) -> Option<&W> {
        self.waiting.front()
    }

    /// The operation that has waited longest, and what it may do now that a connection was given
    /// back or closed. Never `Wait` or `Refuse`. `None` if nothing waits, or if an idle connection
    /// was closed and there is no room.
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

    /// Whether the operation that has waited longest may go on, and a connection has to be opened
    /// for it.
    pub fn opens_next(&self) -> bool {
        !self.waiting.is_empty() && self.idle.is_empty() && !self.at_limit()
    }

    /// Removes an operation from the queue, because it timed out or nobody waits for it any more.
    /// True if it was queued.
    pub fn abandon(&mut self, place: Place) -> bool {
        let found = self.waiting.remove(place).is_some();
        if found {
            self.release();
        }
        found
    }

    /// Puts a connection back as the most recently used one. `counted` tells whether it was opened
    /// through this pool. Returns its place for [`remove`](Self::remove), and the idle connection
    /// that has to be closed to make room, if any.
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
mod tests;
