//! What the encoder writes, read back by a model of the server.

use super::*;
use crate::protocol::refusal::Answer;
use crate::protocol::refusal::Argument;
use crate::protocol::{Arith, Meta, MetaArith, MetaDelete, MetaGet, MetaOp, MetaSet, OptionValue};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

/// How memcached reads a stream: lines end at LF, words are separated by spaces, a storage line is
/// followed by as many bytes as it says and a line end. Returns the words of each command.
fn served(mut stream: &[u8]) -> Vec<Vec<Vec<u8>>> {
    let mut commands = Vec::new();
    while !stream.is_empty() {
        let end = stream
            .iter()
            .position(|&b| b == b'\n')
            .expect("a whole line");
        let line = stream[..end].strip_suffix(b"\r").unwrap_or(&stream[..end]);
        stream = &stream[end + 1..];
        let words: Vec<Vec<u8>> = line
            .split(|&b| b == b' ')
            .filter(|word| !word.is_empty())
            .map(<[u8]>::to_vec)
            .collect();
        // or a line whose end memcached is sure to see at once
        let many = words[0] == b"get" || words[0] == b"gets";
        assert!(many || end < 2048, "closes the connection");
        if [
            &b"set"[..],
            b"add",
            b"replace",
            b"append",
            b"prepend",
            b"cas",
            b"ms",
        ]
        .contains(&&words[0][..])
        {
            let at = if words[0] == b"ms" { 2 } else { 4 };
            let len: usize = std::str::from_utf8(&words[at]).unwrap().parse().unwrap();
            assert_eq!(&stream[len..len + 2], b"\r\n");
            stream = &stream[len + 2..];
        }
        commands.push(words);
    }
    commands
}

fn word() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        "[0-9]{1,21}".prop_map(String::into_bytes),
        "[-+0-9a.]{0,6}".prop_map(String::into_bytes),
        "[a-c \r\n\t]{0,5}".prop_map(String::into_bytes),
        Just(b"noreply".to_vec()),
        Just(b"1\r\nflush_all\r\n".to_vec()),
        vec(any::<u8>(), 0..300),
        vec(Just(b'0'), 0..2500),
    ]
}

/// A meta command with some options, and how many words it has if none is refused.
fn any_meta<'a>(
    op: usize,
    key: Key<'a>,
    a: Option<&'a [u8]>,
    b: &'a [u8],
    c: &[u8],
    yes: bool,
) -> (Meta<'a>, usize) {
    let (op, names, words) = match op {
        0 => (
            MetaOp::Get(MetaGet::default()),
            ["touch", "if_changed", "ttl"],
            4,
        ),
        1 => {
            let set = MetaSet {
                value: b,
                ..MetaSet::default()
            };
            (MetaOp::Set(set), ["ttl", "cas", "return_cas"], 4)
        }
        2 => (
            MetaOp::Delete(MetaDelete::default()),
            ["new_cas", "cas", "stale"],
            3,
        ),
        _ => (
            MetaOp::Arith(MetaArith::default()),
            ["vivify", "initial", "return_ttl"],
            4,
        ),
    };
    let mut meta = Meta {
        key,
        opaque: 1,
        op,
        bad: None,
    };
    let given = [a, (c.len() < 100).then_some(c)];
    for (name, text) in names.iter().zip(given) {
        if let Some(text) = text {
            meta.set_option(name.as_bytes(), OptionValue::Text(text), 1_700_000_000);
        }
    }
    meta.set_option(names[2].as_bytes(), OptionValue::Boolean(yes), 0);
    let given = given.iter().flatten().count() + usize::from(yes);
    (meta, words + given)
}

proptest! {
    #[test]
    fn one_command_is_sent_or_none(
        kind in 0usize..20,
        keys in vec((word(), any::<bool>()), 1..5),
        a in option::of(word()),
        b in word(),
        c in word(),
        cas in any::<bool>(),
    ) {
        let keys: Vec<Key<'_>> =
            keys.iter().map(|(bytes, escape)| Key { bytes, escape: *escape }).collect();
        let (key, arg) = (keys[0], a.as_deref());
        let verbs =
            [Verb::Set, Verb::Add, Verb::Replace, Verb::Append, Verb::Prepend, Verb::Cas];
        let given = |n: usize| n + usize::from(arg.is_some_and(|arg| !arg.is_empty()));
        let meta;
        let (command, words) = match kind {
            0 => (Command::Get { key, cas }, 2),
            1 => {
                let sent = keys.iter().filter(|key| !key.bytes.is_empty()).count();
                (Command::GetMany { keys: &keys, cas }, 1 + sent)
            }
            2 => (Command::Delete { key }, 2 + usize::from(key.bytes == b"noreply")),
            3 => (Command::Arith { op: Arith::Incr, key, delta: arg }, 3),
            4 => (Command::Touch { key, exptime: arg }, 3),
            5 => (Command::FlushAll { delay: arg }, given(1)),
            6 => {
                let count = arg.map_or(0, |arg| arg.split(|&b| b == b' ').count());
                (Command::Stats { args: arg }, given(count))
            }
            7 => (Command::Verbosity { level: arg }, 2),
            14 => (Command::Gat { exptime: arg, key, cas }, 3),
            15 => {
                let sent = keys.iter().filter(|key| !key.bytes.is_empty()).count();
                (Command::GatMany { exptime: arg, keys: &keys, cas }, 2 + sent)
            }
            16.. => {
                meta = any_meta(kind - 16, key, arg, &b, &c, cas);
                (Command::Meta(&meta.0), meta.1)
            }
            _ => {
                let verb = verbs[kind - 8];
                let (flags, exptime) = (&b[..], &c[..]);
                let value = key.bytes;
                let command =
                    Command::Store { verb, key, flags, exptime, cas_unique: arg, value };
                (command, if verb == Verb::Cas { 6 } else { 5 })
            }
        };
        let mut out = Vec::new();
        match encode(&command, &mut out) {
            Ok(_) => {
                let commands = served(&out);
                prop_assert_eq!(commands.len(), 1);
                let sent = &commands[0];
                let words = if kind == 6 && arg.is_none_or(<[u8]>::is_empty) { 1 } else { words };
                prop_assert_eq!(sent.len(), words);
                prop_assert_eq!(&sent[0], command.word().as_bytes());
                let header = out.split(|&b| b == b'\n').next().unwrap();
                let clean = header.iter().filter(|&&b| b < 0x20 || b == 0x7f).count();
                prop_assert_eq!(clean, 1, "only the CR");
                if !matches!(kind, 0..=2 | 14 | 15) {
                    prop_assert!(!sent[1..].iter().skip(1).any(|word| word == b"noreply"));
                }
                // in the last place it would be the option
                prop_assert!(kind != 2 || sent[sent.len() - 1] != b"noreply");
                if matches!(kind, 5..=7) {
                    prop_assert!(!sent.iter().any(|word| word == b"noreply"));
                }
            }
            Err(refused) => {
                prop_assert!(out.is_empty());
                prop_assert!(refused.why.bytes().all(|b| (0x20..0x7f).contains(&b)));
                prop_assert!(!refused.why.contains("[error]") && refused.why.len() < 400);
                let format = matches!(refused.answer, Answer::NotOneWord(Argument::Key));
                prop_assert!(!(format && keys.iter().all(|key| key.escape)));
            }
        }
    }
}
