//! Which of the shared connections to a server the next batch of commands
//! goes to.

/// How a shared connection stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// It is being opened; what is given to it is sent when it stands.
    Opening,
    /// Its oldest reply should have come: it takes nothing.
    Overdue,
    /// A large value or command keeps it: what is given to it has to wait.
    Busy,
    /// Replies to come.
    Ready(usize),
}

/// What is to be done with a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Index of the connection that takes it; `None`: there is none.
    pub take: Option<usize>,
    /// Another connection should be opened.
    pub open: bool,
}

/// Chooses among connections, of which `wanted` should be open if there is
/// work for them; `after` is the index of the one that had the last batch.
pub fn choose(loads: &[Load], wanted: usize, after: usize) -> Choice {
    let len = loads.len();
    let turn = |at: usize| (after + 1 + at) % len.max(1);
    let in_turn = || (0..len).map(turn);
    let load = |at: &usize| loads.get(*at).copied().unwrap_or(Load::Overdue);

    // an idle one before one that has to work off what it has
    let idle = in_turn().find(|at| load(at) == Load::Ready(0));
    let ready = || in_turn().find(|at| matches!(load(at), Load::Ready(_)));
    let take = idle
        .or_else(ready)
        .or_else(|| in_turn().find(|at| load(at) == Load::Busy))
        .or_else(|| in_turn().find(|at| load(at) == Load::Opening));

    let overdue = loads.iter().filter(|load| **load == Load::Overdue).count();
    let opening = loads.contains(&Load::Opening);
    // overdue ones are replaced, but not without end
    let room = len - overdue < wanted && len < wanted.saturating_mul(2);
    Choice {
        take,
        open: room && !opening && idle.is_none(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const fn choice(take: Option<usize>, open: bool) -> Choice {
        Choice { take, open }
    }

    #[test]
    fn connections_take_turns() {
        let loads = [Load::Ready(3), Load::Ready(3), Load::Ready(3)];
        assert_eq!(choose(&loads, 3, 0), choice(Some(1), false));
        assert_eq!(choose(&loads, 3, 1), choice(Some(2), false));
        assert_eq!(choose(&loads, 3, 2), choice(Some(0), false));
    }

    #[test]
    fn an_idle_one_is_enough() {
        assert_eq!(choose(&[Load::Ready(0)], 4, 0), choice(Some(0), false));
        assert_eq!(
            choose(&[Load::Ready(0), Load::Ready(2)], 2, 0),
            choice(Some(0), false)
        );
    }

    #[test]
    fn work_in_flight_opens_another_one_at_a_time() {
        assert_eq!(choose(&[Load::Ready(1)], 2, 0), choice(Some(0), true));
        assert_eq!(
            choose(&[Load::Ready(1), Load::Opening], 4, 0),
            choice(Some(0), false)
        );
        assert_eq!(choose(&[Load::Ready(1)], 1, 0), choice(Some(0), false));
    }

    #[test]
    fn a_large_value_is_avoided() {
        assert_eq!(
            choose(&[Load::Ready(5), Load::Busy], 2, 0),
            choice(Some(0), false)
        );
        assert_eq!(choose(&[Load::Busy], 1, 0), choice(Some(0), false));
        assert_eq!(
            choose(&[Load::Opening, Load::Busy], 2, 0),
            choice(Some(1), false)
        );
    }

    #[test]
    fn an_overdue_one_takes_nothing_and_is_replaced() {
        assert_eq!(choose(&[Load::Overdue], 1, 0), choice(None, true));
        assert_eq!(
            choose(&[Load::Overdue, Load::Opening], 1, 0),
            choice(Some(1), false)
        );
        assert_eq!(
            choose(&[Load::Overdue, Load::Overdue], 1, 0),
            choice(None, false)
        );
        assert_eq!(choose(&[], 2, 7), choice(None, true));
    }

    proptest! {
        #[test]
        fn what_is_taken_exists_and_is_not_overdue(
            loads in proptest::collection::vec(
                prop_oneof![
                    Just(Load::Opening), Just(Load::Overdue), Just(Load::Busy),
                    (0usize..3).prop_map(Load::Ready),
                ], 0..8),
            wanted in 1usize..5,
            after in 0usize..9,
        ) {
            let choice = choose(&loads, wanted, after);
            match choice.take {
                Some(at) => prop_assert!(loads.get(at).is_some_and(|load| *load != Load::Overdue)),
                None => prop_assert!(loads.iter().all(|load| *load == Load::Overdue)),
            }
            prop_assert!(!choice.open || loads.len() < 2 * wanted);
        }
    }
}
