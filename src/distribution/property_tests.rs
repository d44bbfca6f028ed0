//! What holds for any list of servers and any keys.

use proptest::collection::vec;
use proptest::prelude::*;

use super::{BuildError, KeyHash, MAX_CONSISTENT_WEIGHT, MAX_MEMBERS};
use super::{Member, Method, Scheme, Table};

const SCHEMES: [Scheme; 5] = [
    Scheme::Consistent,
    Scheme::Crc,
    Scheme::Ketama,
    Scheme::KetamaUnweighted,
    Scheme::Modula,
];

fn names(count: usize) -> Vec<String> {
    (0..count)
        .map(|n| format!("cache-{n}.example:11211"))
        .collect()
}

fn table(scheme: Scheme, names: &[String], weights: &[u32]) -> Table {
    let members: Vec<_> = names
        .iter()
        .zip(weights)
        .map(|(name, weight)| Member {
            server: name.as_bytes(),
            weight: *weight,
        })
        .collect();
    Table::new(Method::of(scheme), &members).unwrap()
}

/// The key's servers as often as their weights say, of 3000 keys.
fn shares(table: &Table, servers: usize) -> Vec<f64> {
    let mut counts = vec![0f64; servers];
    for n in 0..3000 {
        counts[table.home(format!("key:{n}").as_bytes())] += 1.0 / 3000.0;
    }
    counts
}

#[test]
fn few_keys_move_when_a_server_is_added() {
    for scheme in [Scheme::Consistent, Scheme::Ketama, Scheme::KetamaUnweighted] {
        let names = names(10);
        let (before, after) = (
            table(scheme, &names[..9], &[1; 9]),
            table(scheme, &names, &[1; 10]),
        );
        let keys = (0..3000).map(|n| format!("key:{n}"));
        let moved: Vec<_> = keys
            .map(|key| (before.home(key.as_bytes()), after.home(key.as_bytes())))
            .filter(|(before, after)| before != after)
            .collect();
        assert!(
            (150..600).contains(&moved.len()),
            "{scheme:?}: {}",
            moved.len()
        );
        assert!(moved.iter().all(|(_, after)| *after == 9), "{scheme:?}");
    }
}

#[test]
fn weights_are_proportions() {
    for scheme in SCHEMES {
        let weights = [1, 2, 3, 4];
        let shares = shares(&table(scheme, &names(4), &weights), 4);
        for (share, weight) in shares.iter().zip(weights) {
            let wanted = f64::from(weight) / 10.0;
            assert!(
                (share - wanted).abs() < wanted * 0.35,
                "{scheme:?}: {shares:?}"
            );
        }
    }
}

#[test]
fn lists_that_are_refused() {
    let refused = |scheme, members: &[Member<'_>]| {
        Table::new(Method::of(scheme), members)
            .unwrap_err()
            .to_string()
    };
    let member = |weight| Member {
        server: b"a:1",
        weight,
    };
    for scheme in SCHEMES {
        assert_eq!(refused(scheme, &[]), "no servers");
        assert_eq!(
            refused(scheme, &[member(1), member(0)]),
            "a server of weight 0"
        );
        assert_eq!(
            refused(scheme, &vec![member(1); MAX_MEMBERS + 1]),
            "more than 4096 servers"
        );
        // one less is in cost_tests.rs
        let heavy = MAX_CONSISTENT_WEIGHT as u32;
        let more = Table::new(Method::of(scheme), &[member(heavy), member(1)]);
        match scheme {
            Scheme::Consistent => assert!(matches!(more, Err(BuildError::TooHeavy))),
            _ => assert!(more.unwrap().points() <= 320),
        }
    }
    // the cheapest
    let modula = Method::of(Scheme::Modula);
    assert!(Table::new(modula, &vec![member(1); MAX_MEMBERS]).is_ok());
}

#[test]
fn one_server_has_all_keys_and_no_ring() {
    for scheme in SCHEMES {
        let table = table(scheme, &names(1), &[7]);
        assert_eq!((table.points(), table.home(b"any")), (0, 0));
        assert_eq!(table.find(b"any", |_| false), None);
    }
}

#[test]
fn modula_fails_over_to_the_next_server_in_the_list() {
    let table = table(Scheme::Modula, &names(5), &[1, 3, 1, 2, 1]);
    for n in 0..100 {
        let key = format!("key:{n}");
        let mut tried = Vec::new();
        table.find(key.as_bytes(), |member| {
            tried.push(member);
            false
        });
        let home = table.home(key.as_bytes());
        assert_eq!(tried, (0..5).map(|n| (home + n) % 5).collect::<Vec<_>>());
    }
}

fn any_hash() -> impl Strategy<Value = KeyHash> {
    prop_oneof![
        Just(KeyHash::Md5),
        Just(KeyHash::Crc),
        Just(KeyHash::OneAtATime),
        Just(KeyHash::Fnv1a64)
    ]
}

proptest! {
    #[test]
    fn every_key_has_a_server_that_is_up(
        scheme in prop::sample::select(&SCHEMES[..]),
        servers in vec((1u32..20, any::<bool>()), 1..12),
        key in vec(any::<u8>(), 0..300),
    ) {
        let weights: Vec<_> = servers.iter().map(|(weight, _)| *weight).collect();
        let table = table(scheme, &names(servers.len()), &weights);
        let found = table.find(&key, |member| servers[member].1);
        prop_assert_eq!(found.is_some(), servers.iter().any(|(_, up)| *up));
        if let Some(found) = found {
            prop_assert!(servers[found].1);
            // where the home is up it is found
            let home = table.home(&key);
            prop_assert!(found == home || !servers[home].1);
        }
    }

    #[test]
    fn hostile_names_and_keys(
        scheme in prop::sample::select(&SCHEMES[..]),
        hash in any_hash(),
        tag in any::<Option<[u8; 2]>>(),
        servers in vec((vec(any::<u8>(), 0..20), 1u32..300), 1..8),
        keys in vec(vec(any::<u8>(), 0..300), 1..8),
    ) {
        let members: Vec<_> = servers
            .iter()
            .map(|(server, weight)| Member { server, weight: *weight })
            .collect();
        let mut words = Vec::new();
        if !Method::of(scheme).hashes_unescaped() {
            words.push(format!("hash={}", hash.name()).into_bytes());
        }
        words.extend(tag.map(|tag| [b"hash_tag=".as_slice(), &tag].concat()));
        let name = Method::of(scheme).to_string();
        let method = Method::parse(name.as_bytes(), words.iter().map(Vec::as_slice)).unwrap();
        let table = Table::new(method, &members).unwrap();
        for key in keys {
            prop_assert!(table.home(&key) < servers.len());
            // a key and what is hashed of it belong together
            let part = method.hashed_part(&key);
            prop_assert!(!part.is_empty() || key.is_empty());
        }
    }

    #[test]
    fn the_order_of_the_list_does_not_matter_on_rings(
        scheme in prop::sample::select(&[Scheme::Consistent, Scheme::Ketama][..]),
        weights in vec(1u32..9, 2..8),
        key in "[a-z0-9:]{1,40}",
    ) {
        let names = names(weights.len());
        let forward = table(scheme, &names, &weights);
        let back: Vec<_> = names.iter().rev().cloned().collect();
        let weights: Vec<_> = weights.into_iter().rev().collect();
        let backward = table(scheme, &back, &weights);
        let (here, there) = (forward.home(key.as_bytes()), backward.home(key.as_bytes()));
        prop_assert_eq!(here, names.len() - 1 - there);
    }
}
