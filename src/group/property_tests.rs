//! What holds for any group, any failures and any keys.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{Failover, Gather, Group, Health, Peer, Policy, Scatter};
use crate::distribution::{Method, Scheme};

fn any_scheme() -> impl Strategy<Value = Scheme> {
    prop::sample::select(
        &[
            Scheme::Consistent,
            Scheme::Crc,
            Scheme::Ketama,
            Scheme::KetamaUnweighted,
            Scheme::Modula,
        ][..],
    )
}

fn any_failover() -> impl Strategy<Value = Failover> {
    prop_oneof![
        Just(Failover::Next),
        Just(Failover::Off),
        (1u32..100).prop_map(|exptime| Failover::Backup { exptime }),
    ]
}

fn any_health() -> impl Strategy<Value = Health> {
    (any::<bool>(), 0usize..3, 0usize..3, 0i64..40).prop_map(|(down, fails, max_fails, checked)| {
        Health {
            down,
            fails,
            checked,
            ..Health::new(max_fails, 10)
        }
    })
}

proptest! {
    #[test]
    fn only_what_the_policy_allows_is_chosen(
        scheme in any_scheme(),
        failover in any_failover(),
        trials in any::<bool>(),
        list in vec((0u8..6, 1u32..5, any::<bool>(), any_health()), 0..9),
        key in vec(any::<u8>(), 0..60),
        tried in vec(0usize..9, 0..3),
    ) {
        let peers: Vec<_> = (0u8..).zip(&list).map(|(at, (name, weight, backup, _))| Peer {
            server: format!("cache-{name}:11211").into_bytes().into(),
            name: Box::new([at]),
            weight: *weight,
            backup: *backup,
        }).collect();
        let states: Vec<_> = list.iter().map(|(.., health)| *health).collect();
        let policy = Policy { method: Method::of(scheme), failover, trials };
        let group = Group::new(policy, peers).unwrap();
        let single = group.is_single();
        let usable = |at: usize| !tried.contains(&at) && match single {
            true => !states[at].down,
            false => states[at].is_usable(30, trials),
        };
        let some = |backup| (0..list.len()).any(|at| list[at].2 == backup && usable(at));
        let choice = group.choose(&key, 30, &tried, &states[..]);
        // whether there is one
        match failover {
            Failover::Next => prop_assert_eq!(choice.is_some(), some(false) || some(true)),
            Failover::Off => prop_assert!(choice.is_none() || some(false)),
            Failover::Backup { .. } => prop_assert!(choice.is_some() || !some(true)),
        }
        if let Some(choice) = choice {
            prop_assert!(usable(choice.peer));
            match failover {
                Failover::Next => prop_assert!(!list[choice.peer].2 || !some(false)),
                Failover::Off => prop_assert!(!list[choice.peer].2),
                Failover::Backup { exptime } => {
                    let gutter = list[choice.peer].2.then_some(exptime);
                    prop_assert_eq!(choice.gutter, gutter);
                }
            }
            prop_assert_eq!(choice.suspect, !single && states[choice.peer].fails > 0);
            prop_assert_eq!(group.choose(&key, 30, &tried, &states[..]), Some(choice));
        }
    }

    #[test]
    fn scattered_and_gathered(choices in vec(prop::option::weighted(0.9, 0usize..7), 0..50)) {
        let scatter = Scatter::new(7, choices.iter().copied()).unwrap();
        let mut gather = Gather::new(choices.len()).unwrap();
        for part in scatter.parts.iter().rev() {
            prop_assert!(part.places.is_sorted());
            for place in &part.places {
                gather.put(*place, Some(part.peer));
            }
        }
        gather.fill(&scatter.homeless, &None);
        prop_assert_eq!(gather.missing(), 0);
        let results: Vec<_> = gather.finish().into_iter().map(Option::unwrap).collect();
        prop_assert_eq!(results, choices);
    }
}
