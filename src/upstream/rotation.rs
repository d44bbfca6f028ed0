//! Which of the shared connections to a server the next commands go to.

/// The state of a shared connection, for choosing one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// It is being opened, and will be established in a moment. Commands for it are sent then.
    Opening,
    /// It is being opened, or occupied by a large value or command, and has made no progress for a
    /// while.
    Slow,
    /// It takes no commands: it is stalled or leaving (see `health.rs`), or it repeats commands
    /// that other connections have lost.
    Unavailable,
    /// It is occupied by a large value or command, for which other commands have to wait.
    Busy,
    /// A list of keys is in flight. If a proxy's reply has no recognisable end, the commands after
    /// it are lost.
    Listed,
    /// Number of expected replies.
    Ready(usize),
}

/// What may be done for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Another connection may be opened in addition.
    pub eager: bool,
    /// It can wait until a better connection is established.
    pub patient: bool,
}

/// What is to be done with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Index of the connection that takes it.
    pub take: Option<usize>,
    /// Another connection should be opened.
    pub open: bool,
    /// It should wait for the connection that is being opened, or for one that becomes free.
    /// Otherwise, if no connection takes it, it goes to the one that is opened for it, if any.
    pub wait: bool,
}

/// Chooses a connection. `wanted` connections should be open if there is work for them. `after` is
/// the index of the connection that was chosen last.
pub fn choose(loads: &[Load], wanted: usize, after: usize, demand: Demand) -> Choice {
    let len = loads.len();
    let turn = |at: usize| (after + 1 + at) % len.max(1);
    let load = |at: &usize| loads.get(*at).copied().unwrap_or(Load::Unavailable);
    let next = |wanted: fn(Load) -> bool| (0..len).map(turn).find(|at| wanted(load(at)));

    // an idle connection comes before a busy one
    let idle = next(|load| load == Load::Ready(0));
    if idle.is_some() {
        return Choice {
            take: idle,
            open: false,
            wait: false,
        };
    }
    let free =
        next(|load| matches!(load, Load::Ready(_))).or_else(|| next(|load| load == Load::Busy));
    let listed = next(|load| load == Load::Listed);
    let opening = next(|load| load == Load::Opening);

    let unavailable = loads
        .iter()
        .filter(|load| **load == Load::Unavailable)
        .count();
    // connections that take no commands are replaced, up to a limit
    let room = len - unavailable < wanted && len < wanted.saturating_mul(2);
    let can_open = room && opening.is_none();
    let better = opening.is_some() || can_open && demand.eager;
    let wait = free.is_none() && listed.is_some() && better && demand.patient;
    let take = free
        .or(listed)
        .or(opening)
        .or_else(|| next(|load| load == Load::Slow))
        .filter(|_| !wait);
    Choice {
        take,
        open: can_open && (demand.eager || take.is_none()),
        wait,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Load::{Busy, Listed, Opening, Ready, Slow, Unavailable};
    use proptest::prelude::*;

    const USUAL: Demand = Demand {
        eager: true,
        patient: true,
    };
    const NOT_EAGER: Demand = Demand {
        eager: false,
        ..USUAL
    };
    const NOT_PATIENT: Demand = Demand {
        patient: false,
        ..USUAL
    };

    const fn choice(take: Option<usize>, open: bool) -> Choice {
        Choice {
            take,
            open,
            wait: false,
        }
    }

    const fn waits(open: bool) -> Choice {
        Choice {
            take: None,
            open,
            wait: true,
        }
    }

    fn usual(loads: &[Load], wanted: usize) -> Choice {
        choose(loads, wanted, 0, USUAL)
    }

    #[test]
    fn connections_take_turns() {
        for load in [Ready(3), Busy, Listed, Slow] {
            for (after, next) in [(0, 1), (1, 2), (2, 0)] {
                assert_eq!(
                    choose(&[load; 3], 3, after, USUAL),
                    choice(Some(next), false)
                );
            }
        }
    }

    #[test]
    fn an_idle_one_is_enough() {
        assert_eq!(usual(&[Ready(0)], 4), choice(Some(0), false));
        assert_eq!(usual(&[Ready(0), Ready(2)], 2), choice(Some(0), false));
        assert_eq!(usual(&[Ready(0), Listed], 4), choice(Some(0), false));
    }

    #[test]
    fn work_in_flight_opens_another_one_at_a_time() {
        assert_eq!(usual(&[Ready(1)], 2), choice(Some(0), true));
        assert_eq!(usual(&[Ready(1), Opening], 4), choice(Some(0), false));
        assert_eq!(usual(&[Ready(1)], 1), choice(Some(0), false));
        assert_eq!(choose(&[Ready(1)], 2, 0, NOT_EAGER), choice(Some(0), false));
        // one that is slow to open keeps nobody from trying another
        assert_eq!(usual(&[Ready(1), Slow], 4), choice(Some(0), true));
    }

    #[test]
    fn a_large_value_is_avoided() {
        assert_eq!(usual(&[Ready(5), Busy], 2), choice(Some(0), false));
        assert_eq!(usual(&[Busy], 1), choice(Some(0), false));
        assert_eq!(usual(&[Opening, Busy], 2), choice(Some(1), false));
        assert_eq!(usual(&[Slow, Busy], 2), choice(Some(1), false));
        assert_eq!(usual(&[Slow, Opening], 2), choice(Some(1), false));
    }

    #[test]
    fn a_list_stands_in_front_of_nobody_while_there_is_another_connection() {
        assert_eq!(usual(&[Listed, Ready(5)], 2), choice(Some(1), false));
        assert_eq!(usual(&[Listed, Busy], 2), choice(Some(1), false));
        assert_eq!(usual(&[Slow, Listed], 2), choice(Some(1), false));
        assert_eq!(usual(&[Unavailable, Listed], 1), choice(Some(1), false));
        assert_eq!(usual(&[Listed], 1), choice(Some(0), false));
    }

    #[test]
    fn nor_while_one_may_be_opened() {
        assert_eq!(usual(&[Listed], 2), waits(true));
        assert_eq!(usual(&[Listed, Opening], 3), waits(false));
        assert_eq!(usual(&[Listed, Unavailable], 2), waits(true));
        // a server that was not reached a moment ago
        assert_eq!(choose(&[Listed], 2, 0, NOT_EAGER), choice(Some(0), false));
        assert_eq!(choose(&[Listed, Opening], 2, 0, NOT_EAGER), waits(false));
        assert_eq!(choose(&[Listed], 2, 0, NOT_PATIENT), choice(Some(0), true));
        let impatient = choose(&[Listed, Opening], 2, 0, NOT_PATIENT);
        assert_eq!(impatient, choice(Some(0), false));
    }

    #[test]
    fn an_overdue_one_takes_nothing_and_is_replaced() {
        assert_eq!(usual(&[Unavailable], 1), choice(None, true));
        assert_eq!(choose(&[Unavailable], 1, 0, NOT_EAGER), choice(None, true));
        assert_eq!(usual(&[Unavailable, Opening], 1), choice(Some(1), false));
        assert_eq!(usual(&[Unavailable, Unavailable], 1), choice(None, false));
        assert_eq!(choose(&[], 2, 7, NOT_EAGER), choice(None, true));
    }

    proptest! {
        #[test]
        fn what_is_taken_is_the_best_there_is(
            loads in proptest::collection::vec(
                prop_oneof![
                    Just(Opening), Just(Slow), Just(Unavailable), Just(Busy), Just(Listed),
                    (0usize..3).prop_map(Ready),
                ], 0..8),
            wanted in 1usize..5,
            after in 0usize..9,
            eager: bool,
            patient: bool,
        ) {
            let demand = Demand { eager, patient };
            let choice = choose(&loads, wanted, after, demand);
            let has = |load| loads.contains(&load);
            let free = loads.iter().any(|load| matches!(load, Ready(_) | Busy));
            match choice.take {
                Some(at) => {
                    let taken = loads.get(at).copied();
                    prop_assert!(taken.is_some_and(|load| load != Unavailable));
                    if taken == Some(Listed) {
                        prop_assert!(!free);
                        prop_assert!(!patient || !has(Opening) && !choice.open);
                    }
                    if taken == Some(Opening) {
                        prop_assert!(!free && !has(Listed));
                    }
                    if taken == Some(Slow) {
                        prop_assert!(!free && !has(Listed) && !has(Opening));
                    }
                }
                None if choice.wait => {
                    prop_assert!(patient && has(Listed) && !free);
                    prop_assert!(choice.open || has(Opening));
                }
                None => prop_assert!(loads.iter().all(|load| *load == Unavailable)),
            }
            prop_assert!(!choice.open || loads.len() < 2 * wanted && !has(Opening));
            prop_assert!(!choice.open || eager || choice.take.is_none());
        }
    }
}
