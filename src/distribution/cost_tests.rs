//! What tables take. Times are printed, and not compared:
//!
//! cargo test --release --no-default-features --lib distribution::cost -- --nocapture

use std::hint::black_box;
use std::time::Instant;

use super::{Member, Method, Scheme, Table};

#[test]
fn of_25_servers() {
    let names: Vec<_> = (0..25).map(|n| format!("10.0.1.{n}:11211")).collect();
    let members: Vec<_> = names
        .iter()
        .map(|name| Member {
            server: name.as_bytes(),
            weight: 1,
        })
        .collect();
    let keys: Vec<_> = (0..1000).map(|n| format!("user:{n}:profile")).collect();
    for (scheme, points) in [
        (Scheme::Consistent, 25 * 160),
        (Scheme::Crc, 0),
        // not 160: what binary32 makes of 25 times a 25th
        (Scheme::Ketama, 25 * 156),
        (Scheme::KetamaUnweighted, 25 * 100),
        (Scheme::Modula, 0),
    ] {
        let method = Method::of(scheme);
        let start = Instant::now();
        let table = Table::new(method, black_box(&members)).unwrap();
        let built = start.elapsed();
        let start = Instant::now();
        for key in &keys {
            black_box(table.home(black_box(key.as_bytes())));
        }
        let found = start.elapsed() / 1000;
        println!("{method}: built in {built:?}, a key in {found:?}");
        assert_eq!(table.points(), points, "{method}");
    }
}

/// The most that a configuration can ask for.
#[test]
fn of_the_greatest_weights() {
    let member = |server, weight| Member { server, weight };
    let members = [member(b"a:1".as_slice(), 4095), member(b"b:1", 1)];
    let start = Instant::now();
    let table = Table::new(Method::of(Scheme::Consistent), &members).unwrap();
    println!("{} points in {:?}", table.points(), start.elapsed());
    // points with equal hashes are one
    assert!((650_000..=4096 * 160).contains(&table.points()));
}
