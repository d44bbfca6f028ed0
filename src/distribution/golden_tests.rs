//! What other implementations chose: see `golden/README.md`.

use percent_encoding::percent_decode_str;

use super::{Member, Method, Table};

const KEYS: &str = include_str!("golden/keys.txt");

const VECTORS: [(&str, &str, usize); 4] = [
    ("libmemcached", include_str!("golden/libmemcached.txt"), 15),
    ("nginx", include_str!("golden/nginx.txt"), 23),
    ("php", include_str!("golden/php.txt"), 5),
    ("twemproxy", include_str!("golden/twemproxy.txt"), 10),
];

/// One vector: a list of servers, and the index of each key's.
#[derive(Default)]
struct Vector<'a> {
    name: &'a str,
    method: Option<Method>,
    servers: Vec<Server<'a>>,
    keys: Vec<&'a str>,
    chosen: Vec<usize>,
}

struct Server<'a> {
    name: &'a str,
    weight: u32,
    down: bool,
    is_nickname: bool,
}

fn vectors(text: &str) -> Vec<Vector<'_>> {
    let mut vectors = Vec::<Vector<'_>>::new();
    for line in text.lines().filter(|line| !line.is_empty()) {
        if let Some(name) = line.strip_prefix('[') {
            vectors.push(Vector {
                name: name.trim_end_matches(']'),
                ..Vector::default()
            });
            continue;
        }
        let vector = vectors.last_mut().unwrap();
        let (word, rest) = line.split_once(' ').unwrap();
        let mut words = rest.split(' ');
        match word {
            "method" => {
                let mut words = words.map(str::as_bytes);
                vector.method = Some(Method::parse(words.next().unwrap(), words).unwrap());
            }
            "server" | "nick" => vector.servers.push(Server {
                name: words.next().unwrap(),
                weight: words
                    .next()
                    .unwrap()
                    .strip_prefix("weight=")
                    .unwrap()
                    .parse()
                    .unwrap(),
                down: words.next() == Some("down"),
                is_nickname: word == "nick",
            }),
            "key" => vector.keys.push(rest),
            "chosen" => vector.chosen.extend(
                rest.chars()
                    .map(|digit| digit.to_digit(36).unwrap() as usize),
            ),
            _ => panic!("unknown line: {line}"),
        }
    }
    vectors
}

fn table(vector: &Vector<'_>) -> Table {
    let method = vector.method.unwrap();
    if vector.servers.iter().any(|server| server.is_nickname) {
        let named = |server: &Server<'_>| (server.name.as_bytes().to_vec(), server.weight);
        let names: Vec<_> = vector.servers.iter().map(named).collect();
        return Table::with_nicknames(method, &names);
    }
    let members: Vec<_> = vector
        .servers
        .iter()
        .map(|server| Member {
            server: server.name.as_bytes(),
            weight: server.weight,
        })
        .collect();
    Table::new(method, &members).unwrap()
}

#[test]
fn the_servers_that_others_chose() {
    let all: Vec<&str> = KEYS.lines().collect();
    assert_eq!(all.len(), 3018);
    for (file, text, count) in VECTORS {
        let vectors = vectors(text);
        assert_eq!(vectors.len(), count, "{file}");
        for vector in vectors {
            let table = table(&vector);
            let own = !vector.keys.is_empty();
            let keys = if own { &vector.keys } else { &all };
            assert_eq!(keys.len(), vector.chosen.len(), "{}", vector.name);
            let differ = keys.iter().zip(&vector.chosen).filter(|(key, chosen)| {
                let key: Vec<u8> = percent_decode_str(key).collect();
                let up = |member: usize| !vector.servers[member].down;
                table.find(&key, up) != Some(**chosen)
            });
            assert_eq!(differ.count(), 0, "{}", vector.name);
        }
    }
}

/// Where a server is down, the keys of the others stay.
#[test]
fn only_keys_of_servers_that_are_down_move() {
    for (_, text, _) in VECTORS {
        for vector in vectors(text) {
            if !vector.servers.iter().any(|server| server.down) {
                continue;
            }
            let table = table(&vector);
            for (key, chosen) in KEYS.lines().zip(&vector.chosen) {
                let key: Vec<u8> = percent_decode_str(key).collect();
                let home = table.home(&key);
                assert!(home == *chosen || vector.servers[home].down);
            }
        }
    }
}
