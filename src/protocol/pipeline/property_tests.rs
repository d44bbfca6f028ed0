//! However replies are cut into reads, and whatever a server sends.

use super::*;
use crate::protocol::{Arith, Key, Verb};
use proptest::collection::vec;
use proptest::prelude::*;

const LIMITS: Limits = Limits {
    max_line: 300,
    max_value: 40_000,
};

/// One command of each kind, with tags 0, 1, 2, …
fn all_sent() -> Pipeline<usize> {
    let key = |bytes| Key {
        bytes,
        escape: true,
    };
    let keys = [key(&b"a"[..]), key(b"b c"), key(b"d")];
    let store = |verb| Command::Store {
        verb,
        key: key(b"a"),
        flags: b"0",
        exptime: b"0",
        cas_unique: Some(b"1"),
        value: b"v",
    };
    let one = Some(&b"1"[..]);
    let mut pipeline = Pipeline::new(LIMITS);
    for (tag, command) in [
        Command::Get {
            key: key(b"a"),
            cas: false,
        },
        Command::Get {
            key: key(b"a"),
            cas: true,
        },
        Command::GetMany {
            keys: &keys,
            cas: false,
        },
        Command::GetMany {
            keys: &keys,
            cas: true,
        },
        store(Verb::Set),
        store(Verb::Cas),
        Command::Delete { key: key(b"a") },
        Command::Arith {
            op: Arith::Incr,
            key: key(b"a"),
            delta: one,
        },
        Command::Touch {
            key: key(b"a"),
            exptime: one,
        },
        Command::FlushAll { delay: None },
        Command::Stats { args: None },
        Command::Stats {
            args: Some(b"reset"),
        },
        Command::Stats {
            args: Some(b"sizes_enable"),
        },
        Command::Version,
    ]
    .iter()
    .enumerate()
    {
        pipeline.submit(tag, command).unwrap();
    }
    let n = pipeline.unsent().len();
    pipeline.sent(n);
    pipeline
}

/// What a good server answers, with values of these sizes.
fn answers(sizes: [usize; 4]) -> Vec<u8> {
    let mut stream = Vec::new();
    for (n, (head, size)) in ["VALUE a 0 ", "VALUE a 0 ", "VALUE a 1 ", "VALUE d 2 "]
        .into_iter()
        .zip(sizes)
        .enumerate()
    {
        let cas = if n == 1 { " 77" } else { "" };
        stream.extend_from_slice(format!("{head}{size}{cas}\r\n").as_bytes());
        stream.extend((0..size).map(|i| b"END\r\nVALUE"[i % 10]));
        stream.extend_from_slice(if n == 2 { b"\r\n" } else { b"\r\nEND\r\n" });
    }
    stream.extend_from_slice(b"VALUE b%20c 3 0 78\r\n\r\nEND\r\n");
    stream.extend_from_slice(b"STORED\r\nEXISTS\r\nDELETED\r\n42\r\nTOUCHED\r\nOK\r\n");
    stream.extend_from_slice(b"STAT a 1\r\nSTAT b 2\r\nEND\r\nRESET\r\n");
    stream.extend_from_slice(b"STAT sizes_status enabled\r\nVERSION 1.6.18\r\n");
    stream
}

#[derive(PartialEq, Debug)]
struct Outcome {
    replies: Vec<(usize, Reply)>,
    broken: bool,
    in_flight: usize,
}

/// Receives in reads of at most these sizes, the last of them again and again.
fn run(mut stream: &[u8], sizes: &[usize]) -> Outcome {
    let mut pipeline = all_sent();
    let mut replies = Vec::new();
    let mut sizes = sizes.iter().copied();
    let mut size = usize::MAX;
    while !stream.is_empty() && !pipeline.is_broken() {
        size = sizes.next().unwrap_or(size).max(1);
        let ReadBuf { buf, max } = pipeline.read_buf();
        assert!(max > 0 && buf.capacity() - buf.len() >= max);
        // Two values of a list may lie in one buffer, which doubles as it grows.
        assert!(buf.capacity() <= 4 * LIMITS.max_value);
        let (now, later) = stream.split_at(size.min(max).min(stream.len()));
        buf.extend_from_slice(now);
        stream = later;
        replies.extend(std::iter::from_fn(|| pipeline.next_reply()));
    }
    Outcome {
        replies,
        broken: pipeline.is_broken(),
        in_flight: pipeline.in_flight(),
    }
}

#[test]
fn every_split_gives_the_same() {
    let stream = answers([3, 0, 12, 7]);
    let whole = run(&stream, &[]);
    assert_eq!(
        (whole.replies.len(), whole.broken, whole.in_flight),
        (14, false, 0)
    );
    for at in 1..stream.len() {
        assert_eq!(run(&stream, &[at, usize::MAX]), whole, "split at {at}");
    }
    for size in 1..40 {
        assert_eq!(run(&stream, &[size]), whole, "reads of {size}");
    }
}

#[test]
fn large_values_byte_by_byte() {
    let stream = answers([8_192, 8_193, 40_000, 20_000]);
    let whole = run(&stream, &[]);
    assert_eq!((whole.replies.len(), whole.in_flight), (14, 0));
    assert_eq!(run(&stream, &[1]), whole);
}

/// Whether an error line is followed by what may be END. Then it matters for a single key how much
/// had come with the line.
fn depends_on_reads(stream: &[u8]) -> bool {
    let lines: Vec<&[u8]> = stream.split(|byte| *byte == b'\n').collect();
    let is_error = |line: &[u8]| line.windows(5).any(|word| word == b"ERROR");
    lines
        .windows(2)
        .any(|pair| is_error(pair[0]) && pair[1].starts_with(b"E"))
}

proptest! {
    #[test]
    fn any_reads_give_the_same(
        values in [0usize..40_001, 0usize..300, 0usize..20_000, 0usize..9_000],
        reads in vec(1usize..12_000, 1..20),
    ) {
        let stream = answers(values);
        let whole = run(&stream, &[]);
        prop_assert_eq!((whole.replies.len(), whole.in_flight), (14, 0));
        prop_assert_eq!(run(&stream, &reads), whole);
    }

    #[test]
    fn damage_gives_the_same_in_any_reads(
        damage in vec((any::<prop::sample::Index>(), any::<u8>(), 0..3), 1..4),
        reads in vec(1usize..60, 1..20),
    ) {
        let mut stream = answers([3, 0, 12, 7]);
        for (at, byte, kind) in damage {
            let at = at.index(stream.len());
            match kind {
                0 => stream[at] = byte,
                1 => stream.insert(at, byte),
                _ => drop(stream.remove(at)),
            }
        }
        let whole = run(&stream, &[]);
        prop_assert!(!whole.broken || whole.in_flight < 14);
        let got = run(&stream, &reads);
        prop_assert!(depends_on_reads(&stream) || got == whole);
    }

    #[test]
    fn junk_does_no_harm(
        words in vec(prop::sample::select(&WORDS[..]), 0..60),
        skip in 0usize..14,
        reads in vec(1usize..30, 1..10),
    ) {
        // Behind some good replies, so that every kind of command meets junk.
        let mut stream: Vec<u8> = GOOD.iter().take(skip).flat_map(|good| good.bytes()).collect();
        stream.extend(words.concat().bytes());
        let (got, whole) = (run(&stream, &reads), run(&stream, &[]));
        prop_assert!(depends_on_reads(&stream) || got == whole);
    }

    #[test]
    fn random_bytes_do_no_harm(
        bytes in vec(any::<u8>(), 0..1000),
        skip in 0usize..14,
    ) {
        let mut stream: Vec<u8> = GOOD.iter().take(skip).flat_map(|good| good.bytes()).collect();
        stream.extend(bytes);
        let (got, whole) = (run(&stream, &[1]), run(&stream, &[]));
        prop_assert!(depends_on_reads(&stream) || got == whole);
    }
}

/// A reply to each of the commands.
const GOOD: [&str; 14] = [
    "END\r\n",
    "END\r\n",
    "END\r\n",
    "END\r\n",
    "STORED\r\n",
    "NOT_FOUND\r\n",
    "DELETED\r\n",
    "7\r\n",
    "TOUCHED\r\n",
    "OK\r\n",
    "END\r\n",
    "RESET\r\n",
    "STAT sizes_status enabled\r\n",
    "VERSION 1\r\n",
];

/// What replies are made of.
const WORDS: [&str; 21] = [
    "VALUE ",
    "a ",
    "b%20c ",
    "0 ",
    "1",
    "\r\n",
    "\r\nEND\r\n",
    "END",
    "\n",
    "\r",
    "STORED",
    "STAT x y",
    "39999",
    "40001",
    "18446744073709551615",
    "99999999999999999999999",
    "\0\u{ff}",
    "VALUE a 0 1\r\nx\r\n",
    "VALUE a 0 1 2\r\nx\r\n",
    "ERROR",
    "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];
