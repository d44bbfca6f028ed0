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
fn one_that_may_fit_is_found_behind_and_before_unfit_ones() {
    let only = |wanted: u32| {
        move |id: &u32| match *id == wanted {
            true => Fitness::MayFit,
            false => Fitness::Unfit,
        }
    };
    let mut pool = TestPool::new(3, None);
    for id in 1..=3 {
        pool.put(id, false);
    }
    for wanted in 1..=3 {
        assert_eq!(pool.admit(only(wanted)), Admission::Undecided);
    }
    assert_eq!(pool.admit(only(4)), Admission::Connect);
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
    /// Against a model that holds the sets themselves: the count is always idle + in use + waiting,
    /// idle never exceeds the size, and with a backlog the connections never exceed the size.
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
