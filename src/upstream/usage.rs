//! Who uses the shared connections to a server, how long these are kept, and how much may wait.
//!
//! Times are in milliseconds of a monotonic clock.

use super::line::Line;
use super::queue::{Bounds, Queue};

/// How long connections may be idle if nobody uses them and nobody asked for them to be kept.
pub const UNASKED_IDLE: usize = 300;

/// How long no further connection is opened ahead of need after one that failed.
pub const RETRY_DELAY: usize = 1000;

/// The use of a server's shared connections. `W` is the id of an operation that waits.
#[derive(Debug)]
pub struct Usage<W> {
    /// Operations that wait for a connection, longest waiting first.
    pub joining: Line<W>,
    /// Operations that wait for room.
    pub queue: Queue<W>,
    /// Calls whose operations were given to connections and are not over.
    operations: usize,
    /// Bytes that connections have still to send.
    unsent: usize,
    /// Sessions that are attached, or wait to be.
    users: usize,
    /// Sessions that the present connections have served.
    served: u64,
    /// They are known to be used without TLS: the server has answered there, a session was kept
    /// alive, or went on without TLS on a connection of its own. Before that they count as new to
    /// all sessions, so that code that asks for TLS on new connections does not go on without it.
    known_plaintext: bool,
    /// Most connections that were asked for.
    wanted: usize,
    /// How long a connection may be idle; 0: for ever.
    keepalive: usize,
    /// A session was kept alive. That settles the size of a pool.
    kept_alive: bool,
    /// No further connection is opened ahead of need before this time.
    retry_at: usize,
}

impl<W> Usage<W> {
    /// Of a server that nobody uses yet.
    pub fn new(wanted: usize, keepalive: usize) -> Self {
        Usage {
            joining: Line::default(),
            queue: Queue::default(),
            operations: 0,
            unsent: 0,
            users: 0,
            served: 0,
            known_plaintext: false,
            wanted,
            keepalive,
            kept_alive: false,
            retry_at: 0,
        }
    }

    // ---- operations

    /// Whether a further operation with these bounds may wait for the server. All that waits
    /// counts, wherever it does.
    pub fn has_room(&self, bounds: Bounds) -> bool {
        let operations = self.operations + self.queue.len();
        bounds.allow(operations, self.unsent.saturating_add(self.queue.size()))
    }

    /// Whether a further operation may be given to a connection now, and none that waits for room
    /// comes first.
    pub fn has_turn(&self, bounds: Bounds) -> bool {
        let first = self.queue.is_empty() || !self.queue.has(bounds) && self.next().is_none();
        first && self.has_room(bounds)
    }

    /// Whether a further operation with these bounds may wait for room. `backlog`: how many may.
    pub fn may_queue(&self, bounds: Bounds, backlog: usize) -> bool {
        let backlog = Bounds {
            operations: backlog,
            ..bounds
        };
        backlog.allow(self.queue.len(), self.queue.size()) || self.has_room(bounds)
    }

    /// The operation to be served next of those that wait for room, if there is room for one.
    pub fn next(&self) -> Option<&W> {
        self.queue.first(self.operations, self.unsent)
    }

    /// The operation of a further call was given to a connection.
    pub fn count_in(&mut self) {
        self.operations += 1;
    }

    /// A call whose operation was given to a connection is over.
    pub fn count_out(&mut self) {
        debug_assert!(self.operations > 0);
        self.operations = self.operations.saturating_sub(1);
    }

    /// A connection has so many bytes to send, and had so many before.
    pub fn count_unsent(&mut self, before: usize, now: usize) {
        debug_assert!(before <= self.unsent);
        self.unsent = self.unsent.saturating_sub(before).saturating_add(now);
    }

    // ---- sessions

    /// A session is going to use the connections, which asks for so many.
    pub fn enter(&mut self, wanted: usize) {
        // objects may ask for different numbers
        self.wanted = self.wanted.max(wanted);
        self.users += 1;
    }

    /// A session uses them no more.
    pub fn leave(&mut self) {
        self.users = self.users.saturating_sub(1);
    }

    /// A session is attached: how often its connection was used before, as far as it is told.
    pub fn attach(&mut self) -> u64 {
        let reused = if self.known_plaintext { self.served } else { 0 };
        self.served += 1;
        reused
    }

    /// Several sessions that have waited for a connection are attached, to each of which it is as
    /// new as to the first: how often it was used before.
    pub fn attach_all(&mut self, sessions: u64) -> u64 {
        let reused = if self.known_plaintext { self.served } else { 0 };
        self.served += sessions;
        reused
    }

    /// The connections are used without TLS.
    pub fn note_plaintext(&mut self) {
        self.known_plaintext = true;
    }

    /// A session was kept alive, for so long. Whether idle connections have to go sooner now.
    pub fn keep_alive(&mut self, keepalive: usize) -> bool {
        self.kept_alive = true;
        self.known_plaintext = true;
        let before = std::mem::replace(&mut self.keepalive, keepalive);
        keepalive != 0 && (keepalive < before || before == 0)
    }

    /// Whether a session was kept alive.
    pub fn is_kept_alive(&self) -> bool {
        self.kept_alive
    }

    /// Nobody uses them, and code that always closes expects nothing to stay.
    pub fn is_unused(&self) -> bool {
        self.users == 0 && !self.kept_alive
    }

    /// Whether there are no sessions.
    pub fn has_no_users(&self) -> bool {
        self.users == 0
    }

    // ---- connections

    /// How many connections there should be at most.
    pub fn wanted(&self) -> usize {
        self.wanted
    }

    /// How long a connection may be idle; 0: for ever.
    pub fn idle_limit(&self) -> usize {
        match self.keepalive {
            limit if !self.is_unused() => limit,
            0 => UNASKED_IDLE,
            limit => limit.min(UNASKED_IDLE),
        }
    }

    /// A connection could not be opened.
    pub fn note_failure(&mut self, now: usize) {
        self.retry_at = now.saturating_add(RETRY_DELAY);
    }

    /// Whether a further connection may be opened ahead of need.
    pub fn is_eager(&self, now: usize) -> bool {
        now >= self.retry_at
    }

    /// The last connection is gone.
    pub fn forget_connections(&mut self) {
        self.served = 0;
        self.known_plaintext = false;
    }

    /// Nothing is counted that is not there any more.
    pub fn is_balanced(&self) -> bool {
        (self.operations, self.unsent, self.queue.len()) == (0, 0, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds {
        operations: 2,
        size: 100,
    };

    #[test]
    fn all_that_waits_counts() {
        let mut usage: Usage<u8> = Usage::new(1, 0);
        assert!(usage.has_room(BOUNDS) && usage.has_turn(BOUNDS));
        usage.count_in();
        assert!(usage.has_turn(BOUNDS));
        usage.count_in();
        assert!(!usage.has_room(BOUNDS) && !usage.has_turn(BOUNDS));
        assert!(!usage.may_queue(BOUNDS, 0) && usage.may_queue(BOUNDS, 1));
        assert!(usage.queue.try_push_back(7, BOUNDS, 10).is_some());
        assert!(!usage.may_queue(BOUNDS, 1));
        assert_eq!(usage.next(), None);
        usage.count_out();
        // the one in the queue comes first
        assert_eq!(usage.next(), Some(&7));
        assert!(!usage.has_turn(BOUNDS));
        assert!(!usage.has_room(BOUNDS) && !usage.is_balanced());
        assert!(usage.queue.drop_first(&7));
        assert!(usage.has_turn(BOUNDS));
        usage.count_out();
        assert!(usage.is_balanced());
    }

    #[test]
    fn those_without_room_do_not_hold_up_others() {
        let mut usage: Usage<u8> = Usage::new(1, 0);
        usage.count_in();
        usage.count_in();
        let larger = Bounds {
            operations: 9,
            ..BOUNDS
        };
        assert!(usage.queue.try_push_back(7, BOUNDS, 0).is_some());
        assert!(usage.has_turn(larger));
        assert!(usage.queue.try_push_back(8, larger, 0).is_some());
        assert!(!usage.has_turn(larger));
        // but nobody goes before one that has room
        let largest = Bounds {
            operations: 20,
            ..BOUNDS
        };
        assert!(usage.has_room(largest) && !usage.has_turn(largest));
        assert_eq!(usage.next(), Some(&8));
    }

    #[test]
    fn unsent_bytes_are_bounded() {
        let mut usage: Usage<u8> = Usage::new(1, 0);
        usage.count_unsent(0, 99);
        assert!(usage.has_room(BOUNDS));
        usage.count_unsent(99, 100);
        assert!(!usage.has_room(BOUNDS) && !usage.is_balanced());
        usage.count_unsent(100, 0);
        assert!(usage.has_room(BOUNDS) && usage.is_balanced());
    }

    #[test]
    fn connections_are_new_to_all_until_plaintext_is_known() {
        let mut usage: Usage<u8> = Usage::new(1, 0);
        assert_eq!((usage.attach(), usage.attach()), (0, 0));
        usage.note_plaintext();
        assert_eq!((usage.attach(), usage.attach()), (2, 3));
        assert_eq!(usage.attach_all(3), 4);
        assert_eq!(usage.attach(), 7);
        usage.forget_connections();
        assert_eq!((usage.attach(), usage.attach()), (0, 0));
    }

    #[test]
    fn idle_time_is_what_was_asked_for() {
        let mut usage: Usage<u8> = Usage::new(1, 60_000);
        usage.enter(2);
        assert_eq!((usage.idle_limit(), usage.wanted()), (60_000, 2));
        usage.enter(1);
        assert_eq!(usage.wanted(), 2);
        usage.leave();
        assert!(!usage.is_unused() && !usage.has_no_users());
        usage.leave();
        usage.leave();
        assert!(usage.is_unused() && usage.has_no_users());
        assert_eq!(usage.idle_limit(), UNASKED_IDLE);
        assert!(!usage.is_kept_alive());
        assert!(usage.keep_alive(100) && usage.is_kept_alive());
        assert!(!usage.is_unused());
        assert_eq!(usage.idle_limit(), 100);
        // as long, longer, for ever, and again less than for ever
        assert!(!usage.keep_alive(100) && !usage.keep_alive(200) && !usage.keep_alive(0));
        assert_eq!(usage.idle_limit(), 0);
        assert!(usage.keep_alive(50));
        let short: Usage<u8> = Usage::new(1, 100);
        assert_eq!(short.idle_limit(), 100);
        let for_ever: Usage<u8> = Usage::new(1, 0);
        assert_eq!(for_ever.idle_limit(), UNASKED_IDLE);
    }

    #[test]
    fn a_failure_puts_off_what_is_not_needed() {
        let mut usage: Usage<u8> = Usage::new(1, 0);
        assert!(usage.is_eager(0));
        usage.note_failure(500);
        assert!(!usage.is_eager(1499) && usage.is_eager(1500));
    }

    proptest! {
        #[test]
        fn turns_are_fair(
            steps in proptest::collection::vec((0u8..4, 0usize..3, 1usize..4, 0usize..50), 0..60),
        ) {
            let mut usage: Usage<usize> = Usage::new(1, 0);
            let (mut given, mut bytes) = (0, 0);
            for (id, (step, backlog, operations, size)) in steps.into_iter().enumerate() {
                let bounds = Bounds { operations, size: 100 };
                match step {
                    0 if usage.has_turn(bounds) => {
                        prop_assert!(given + usage.queue.len() < operations);
                        usage.count_in();
                        usage.count_unsent(bytes, bytes + size);
                        (given, bytes) = (given + 1, bytes + size);
                    }
                    0 if usage.may_queue(bounds, backlog) => {
                        prop_assert!(usage.queue.try_push_back(id, bounds, size).is_some());
                    }
                    1 if given > 0 => {
                        usage.count_out();
                        given -= 1;
                    }
                    2 => {
                        usage.count_unsent(bytes, 0);
                        bytes = 0;
                    }
                    _ => {
                        if let Some(next) = usage.next().copied() {
                            prop_assert!(usage.queue.drop_first(&next));
                            usage.count_in();
                            given += 1;
                        }
                    }
                }
                prop_assert_eq!(usage.is_balanced(), (given, bytes, usage.queue.len()) == (0, 0, 0));
            }
        }
    }
}
