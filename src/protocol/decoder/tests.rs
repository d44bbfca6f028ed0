//! Replies by the byte, through a pipeline with one command in flight.

use super::*;
use crate::protocol::{Command, Digits, Key, MetaItem, Pipeline, Server, Version};

const LIMITS: Limits = Limits {
    max_line: 64,
    max_value: 100_000,
};

fn key(bytes: &[u8]) -> Key<'_> {
    Key {
        bytes,
        escape: true,
    }
}

/// Appends received bytes as a socket would, and takes all replies.
fn receive(pipeline: &mut Pipeline<u8>, mut bytes: &[u8]) -> Vec<(u8, Reply)> {
    let mut replies = Vec::new();
    while !bytes.is_empty() {
        let into = pipeline.read_buf();
        assert!(into.max > 0 && into.buf.capacity() - into.buf.len() >= into.max);
        let (now, later) = bytes.split_at(into.max.min(bytes.len()));
        into.buf.extend_from_slice(now);
        bytes = later;
        replies.extend(std::iter::from_fn(|| pipeline.next_reply()));
    }
    replies
}

/// One command sent.
fn asked(command: &Command<'_>) -> Pipeline<u8> {
    let mut pipeline = Pipeline::new(LIMITS);
    pipeline.assume(Server::Memcached(Version::new(1, 6, 45)));
    pipeline.submit(1, command).unwrap();
    let n = pipeline.unsent().len();
    pipeline.sent(n);
    pipeline
}

/// Whether a pipeline goes on after a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Then {
    /// All was taken, the connection may be pooled.
    Quiet,
    Broken,
    /// The reply is not complete.
    Waits,
}
use Then::{Broken, Quiet, Waits};

mod lines;
mod meta;
mod parts;

/// The reply to `command` in a readable form, and what becomes of the pipeline.
fn answer(command: &Command<'_>, bytes: &[u8]) -> (String, Then) {
    let mut pipeline = asked(command);
    let mut replies = receive(&mut pipeline, bytes);
    assert!(replies.len() <= 1);
    let then = match (
        pipeline.is_broken(),
        pipeline.in_flight(),
        pipeline.is_quiet(),
    ) {
        (true, ..) => Broken,
        (false, 0, true) => Quiet,
        (false, 1, false) => Waits,
        other => panic!("{other:?}"),
    };
    (
        replies
            .pop()
            .map_or(String::new(), |(_, reply)| show(&reply)),
        then,
    )
}

fn show(reply: &Reply) -> String {
    let text = |bytes: &[u8]| bytes.escape_ascii().to_string();
    let fields = |flags: &[u8], cas: Option<&[u8]>| match cas {
        Some(cas) => format!("{} {}", text(flags), text(cas)),
        None => text(flags),
    };
    match reply {
        Reply::Value(v) => {
            let cas = v.cas.as_ref().map(Digits::as_bytes);
            format!(
                "value {} {}",
                text(&v.data),
                fields(v.flags.as_bytes(), cas)
            )
        }
        Reply::Miss => "miss".into(),
        Reply::Values(values) => values.iter().fold("values".into(), |all, hit| {
            let fields = fields(hit.flags, hit.cas);
            format!("{all}, {} = {} {fields}", text(hit.key), text(hit.data))
        }),
        Reply::Done => "done".into(),
        Reply::Number(number) => format!("number {number:?}"),
        Reply::Meta(item) => show_item(item),
        Reply::Version(version) => format!("version {}", text(version)),
        Reply::Stats(lines) => format!("stats {}", text(&lines.join(&b'|'))),
        Reply::Line(line) => format!("line {}", text(line)),
        Reply::Malformed(what) => what.to_string(),
    }
}

fn show_item(item: &MetaItem) -> String {
    let mut text = "item".to_owned();
    let digits = |name: &str, digits: Option<Digits>| {
        digits.map_or(String::new(), |digits| format!(" {name}={digits:?}"))
    };
    if let Some(value) = &item.value {
        text += &format!(" {:?}", value.escape_ascii().to_string());
    }
    text += &digits("flags", item.flags);
    text += &digits("cas", item.cas);
    if let Some(ttl) = item.ttl {
        text += &format!(" ttl={ttl}");
    }
    if let Some(size) = item.size {
        text += &format!(" size={size}");
    }
    if let Some(hit) = item.hit {
        text += &format!(" hit={hit}");
    }
    if let Some(seconds) = item.last_access {
        text += &format!(" last_access={seconds}");
    }
    for (name, said) in [
        ("won", item.won),
        ("stale", item.stale),
        ("lost", item.lost),
    ] {
        if said {
            text += &format!(" {name}");
        }
    }
    text
}

/// Expects for each reply the result and the fate of the pipeline.
#[track_caller]
fn table(command: Command<'_>, rows: &[(&str, &str, Then)]) {
    for (bytes, reply, then) in rows {
        let got = answer(&command, bytes.as_bytes());
        assert_eq!(
            got,
            ((*reply).to_string(), *then),
            "{bytes:?} to {command:?}"
        );
    }
}

const BAD_END: &str = "bad reply: no END after value";
const BAD_KEY: &str = "bad reply: unexpected key";
const BAD_CRLF: &str = "bad reply: no CRLF after value";
const TOO_MANY: &str = "bad reply: more values than keys";

#[test]
fn get() {
    let command = Command::Get {
        key: key(b"a b"),
        cas: false,
    };
    table(
        command,
        &[
            ("END\r\n", "miss", Quiet),
            ("END\n", "miss", Quiet),
            ("VALUE a%20b 5 3\r\nabc\r\nEND\r\n", "value abc 5", Quiet),
            ("VALUE a%20b 0 0\r\n\r\nEND\r\n", "value  0", Quiet),
            (
                "VALUE a%20b 007 05\r\nE\r\nD\n\r\nEND\r\n",
                r"value E\r\nD\n 007",
                Quiet,
            ),
            ("VALUE a%20b 5 3\r\nabc\r\n", "", Waits),
            ("VALUE a%20b 5 3\r\nab", "", Waits),
            ("ERROR\r\n", "line ERROR", Quiet),
            ("CLIENT_ERROR line\r\n", "line CLIENT_ERROR line", Quiet),
            (
                "SERVER_ERROR out of memory\r\n",
                "line SERVER_ERROR out of memory",
                Quiet,
            ),
            ("ERRORS\r\n", "line ERRORS", Broken),
            ("STORED\r\n", "line STORED", Broken),
            ("NOT_FOUND\r\n", "line NOT_FOUND", Broken),
            ("\r\n", "line ", Broken),
            ("END \r\n", "line END ", Broken),
            ("END\r\r\n", r"line END\r", Broken),
            ("VALUE a%20b 5 3 9\r\n", "line VALUE a%20b 5 3 9", Broken),
            ("VALUE a%20b 5\r\n", "line VALUE a%20b 5", Broken),
            ("VALUE a%20b  5 3\r\n", "line VALUE a%20b  5 3", Broken),
            ("VALUE a%20b x 3\r\n", "line VALUE a%20b x 3", Broken),
            ("VALUE a%20b 5 -3\r\n", "line VALUE a%20b 5 -3", Broken),
            ("VALUE a%20b 5 \r\n", "line VALUE a%20b 5 ", Broken),
            (
                "VALUE a%20b 123456789012345678901 3\r\n",
                "line VALUE a%20b 123456789012345678901 3",
                Broken,
            ),
            ("VALUE b 5 3\r\nabc\r\nEND\r\n", BAD_KEY, Broken),
            ("VALUE a%20 5 3\r\nabc\r\nEND\r\n", BAD_KEY, Broken),
            ("VALUE a%20b 5 3\r\nabcEND\r\n", BAD_CRLF, Broken),
            ("VALUE a%20b 5 3\r\nabc\nEND\r\n", BAD_CRLF, Broken),
            ("VALUE a%20b 5 3\r\nabcd", BAD_CRLF, Broken),
            ("VALUE a%20b 5 3\r\nabc\r\r", BAD_CRLF, Broken),
            ("VALUE a%20b 5 3\r\nabc\r\nSTORED\r\n", BAD_END, Broken),
            ("VALUE a%20b 5 3\r\nabc\r\nERROR\r\n", "line ERROR", Broken),
            (
                "VALUE a%20b 5 3\r\nabc\r\nVALUE a%20b 5 3\r\nabc\r\n",
                TOO_MANY,
                Broken,
            ),
            (
                "VALUE a%20b 5 100001\r\n",
                "bad reply: value of 100001 bytes exceeds the limit of 100000",
                Broken,
            ),
            (
                "VALUE a%20b 5 18446744073709551615\r\n",
                "bad reply: value of 18446744073709551615 bytes exceeds the limit of 100000",
                Broken,
            ),
            (
                "VALUE a%20b 5 18446744073709551616\r\n",
                "bad reply: value length out of range",
                Broken,
            ),
            (
                "VALUE a%20b 5 99999999999999999999999999\r\n",
                "bad reply: value length out of range",
                Broken,
            ),
        ],
    );
}

#[test]
fn gets() {
    let command = Command::Get {
        key: key(b"a"),
        cas: true,
    };
    table(
        command,
        &[
            ("END\r\n", "miss", Quiet),
            (
                "VALUE a 5 3 18446744073709551615\r\nabc\r\nEND\r\n",
                "value abc 5 18446744073709551615",
                Quiet,
            ),
            ("VALUE a 5 3\r\nabc\r\nEND\r\n", "line VALUE a 5 3", Broken),
            (
                "VALUE a 5 3 x\r\nabc\r\nEND\r\n",
                "line VALUE a 5 3 x",
                Broken,
            ),
            (
                "VALUE a 5 3 1 1\r\nabc\r\nEND\r\n",
                "line VALUE a 5 3 1 1",
                Broken,
            ),
        ],
    );
}

#[test]
fn lists() {
    let keys = [key(b"a"), key(b""), key(b"b c"), key(b"a"), key(b"d")];
    let command = Command::GetMany {
        keys: &keys,
        cas: false,
    };
    table(
        command,
        &[
            ("END\r\n", "values", Quiet),
            (
                "VALUE b%20c 5 3\r\nabc\r\nEND\r\n",
                "values, b%20c = abc 5",
                Quiet,
            ),
            (
                "VALUE a 1 1\r\nx\r\nVALUE b%20c 2 0\r\n\r\nVALUE a 1 1\r\nx\r\nVALUE d 3 1\r\ny\r\nEND\r\n",
                "values, a = x 1, b%20c =  2, a = x 1, d = y 3",
                Quiet,
            ),
            (
                "VALUE d 1 1\r\nx\r\nVALUE a 2 1\r\ny\r\nVALUE b%20c 2 1\r\nz\r\nEND\r\n",
                "values, d = x 1, a = y 2, b%20c = z 2",
                Quiet,
            ),
            ("ERROR\r\n", "line ERROR", Broken),
            ("SERVER_ERROR\r\nEND\r\n", "line SERVER_ERROR", Broken),
            ("OK\r\n", "line OK", Broken),
            (
                "VALUE a 1 1\r\nx\r\nSERVER_ERROR out of memory\r\n",
                "line SERVER_ERROR out of memory",
                Broken,
            ),
            ("VALUE a 1 1\r\nx\r\nOK\r\n", BAD_END, Broken),
            ("VALUE a 1 1\r\nx\r\nVALUE c 1 1\r\nx\r\n", BAD_KEY, Broken),
            ("VALUE %20 1 1\r\nx\r\n", BAD_KEY, Broken),
            ("VALUE  1 1\r\nx\r\n", "line VALUE  1 1", Broken),
            (
                "VALUE a 1 0\r\n\r\nVALUE a 1 0\r\n\r\nVALUE d 1 0\r\n\r\nVALUE d 1 0\r\n\r\nVALUE d 1 0\r\n",
                TOO_MANY,
                Broken,
            ),
        ],
    );
    let command = Command::GetMany {
        keys: &keys,
        cas: true,
    };
    table(
        command,
        &[
            ("VALUE d 1 1 9\r\nx\r\nEND\r\n", "values, d = x 1 9", Quiet),
            ("VALUE d 1 1\r\nx\r\nEND\r\n", "line VALUE d 1 1", Broken),
        ],
    );
}

#[test]
fn keys_are_found_in_any_order() {
    let keys = b"a bb c bb";
    for (from, key, next) in [
        (0, "a", Ok(2)),
        (2, "bb", Ok(5)),
        (5, "bb", Ok(10)),
        (10, "a", Ok(2)),
        (10, "bb", Ok(5)),
        (5, "a", Ok(2)),
        (0, "b", Err(Malformed::UnexpectedKey)),
        (3, "", Err(Malformed::UnexpectedKey)),
        (99, "c", Ok(7)),
    ] {
        let found = Search::default().find(keys, 4, from, key.as_bytes());
        assert_eq!(found, next, "{key} from {from}");
    }
}

#[test]
fn a_list_starts_with_its_own_first_key() {
    let mut pipeline = Pipeline::new(LIMITS);
    let (one, other) = ([key(b"a"), key(b"bc")], [key(b"abc")]);
    for keys in [&one[..], &other] {
        pipeline
            .submit(1, &Command::GetMany { keys, cas: false })
            .unwrap();
    }
    let n = pipeline.unsent().len();
    pipeline.sent(n);
    // After the `a` of the first list the search would go on in the middle of `abc`.
    receive(&mut pipeline, b"VALUE a 0 0\r\n\r\nEND\r\n");
    let replies = receive(&mut pipeline, b"VALUE c 0 0\r\n\r\nEND\r\n");
    assert_eq!(show(&replies[0].1), BAD_KEY);
}

#[test]
fn a_failure_takes_the_place_of_the_reply() {
    let mut decoder = Decoder::new(LIMITS);
    decoder.fail(Malformed::NoMemory);
    let failed = malformed(Malformed::NoMemory);
    assert_eq!(decoder.reply(ReplyKind::Ok, b""), Some(failed));
}
