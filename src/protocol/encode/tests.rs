//! Commands as text, and those refused in memcached's words.

use super::*;
use crate::protocol::Arith;

mod room;
mod words;

fn raw(bytes: &[u8]) -> Key<'_> {
    Key {
        bytes,
        escape: false,
    }
}

fn escaped(bytes: &[u8]) -> Key<'_> {
    Key {
        bytes,
        escape: true,
    }
}

/// Encodes behind other bytes, which must stay.
fn encoded(command: &Command<'_>) -> Result<(String, Expect), Refused> {
    let mut out = b"before".to_vec();
    let result = encode(command, &mut out);
    assert!(out.starts_with(b"before"));
    match result {
        Ok(expect) => Ok((String::from_utf8(out.split_off(6)).unwrap(), expect)),
        Err(refused) => {
            assert_eq!(out, b"before");
            Err(refused)
        }
    }
}

fn text(command: Command<'_>) -> String {
    encoded(&command).unwrap().0
}

fn answer(command: Command<'_>) -> String {
    encoded(&command).unwrap_err().answer.to_string()
}

const ERROR: &str = "ERROR";
const FORMAT: &str = "CLIENT_ERROR bad command line format";
const EXPTIME: &str = "CLIENT_ERROR invalid exptime argument";
const DELTA: &str = "CLIENT_ERROR invalid numeric delta argument";

fn store<'a>(verb: Verb, key: &'a [u8], args: [&'a str; 3], value: &'a [u8]) -> Command<'a> {
    let [flags, exptime, cas] = args;
    Command::Store {
        verb,
        key: raw(key),
        flags: flags.as_bytes(),
        exptime: exptime.as_bytes(),
        cas_unique: (cas != "nil").then_some(cas.as_bytes()),
        value,
    }
}

fn arith<'a>(key: &'a [u8], delta: &'a str) -> Command<'a> {
    Command::Arith {
        op: Arith::Incr,
        key: raw(key),
        delta: (delta != "nil").then_some(delta.as_bytes()),
    }
}

fn touch<'a>(key: &'a [u8], exptime: &'a str) -> Command<'a> {
    Command::Touch {
        key: raw(key),
        exptime: (exptime != "nil").then_some(exptime.as_bytes()),
    }
}

fn flush_all(delay: &str) -> Command<'_> {
    Command::FlushAll {
        delay: (delay != "nil").then_some(delay.as_bytes()),
    }
}

fn verbosity(level: &str) -> Command<'_> {
    Command::Verbosity {
        level: (level != "nil").then_some(level.as_bytes()),
    }
}

fn stats(args: &str) -> Command<'_> {
    Command::Stats {
        args: (args != "nil").then_some(args.as_bytes()),
    }
}

#[test]
fn commands_as_text() {
    let key = escaped(b"a b\r\n");
    let keys = [raw(b"a"), raw(b""), escaped(b"b c"), raw(b"noreply")];
    for (command, want) in [
        (Command::Get { key, cas: false }, "get a%20b%0D%0A\r\n"),
        (Command::Get { key, cas: true }, "gets a%20b%0D%0A\r\n"),
        (
            Command::GetMany {
                keys: &keys,
                cas: false,
            },
            "get a b%20c noreply\r\n",
        ),
        (
            Command::GetMany {
                keys: &keys,
                cas: true,
            },
            "gets a b%20c noreply\r\n",
        ),
        (
            store(Verb::Set, b"k", ["0", "0", "nil"], b""),
            "set k 0 0 0\r\n\r\n",
        ),
        (
            store(Verb::Add, b"k", ["5", "-1", "nil"], b"\r\n"),
            "add k 5 -1 2\r\n\r\n\r\n",
        ),
        (
            store(Verb::Replace, b"k", ["1", "2", "x y"], b"v"),
            "replace k 1 2 1\r\nv\r\n",
        ),
        (
            store(Verb::Append, b"k", ["+5", "+5", ""], b"v"),
            "append k +5 +5 1\r\nv\r\n",
        ),
        (
            store(Verb::Prepend, b"k", ["00", "-0", ""], b"v"),
            "prepend k 00 -0 1\r\nv\r\n",
        ),
        (
            store(Verb::Cas, b"k", ["0", "0", "+7"], b"v"),
            "cas k 0 0 1 +7\r\nv\r\n",
        ),
        (
            store(Verb::Set, b"noreply", ["0", "0", ""], b"v"),
            "set noreply 0 0 1\r\nv\r\n",
        ),
        (Command::Delete { key }, "delete a%20b%0D%0A\r\n"),
        (
            Command::Delete {
                key: raw(b"noreply"),
            },
            "delete noreply 0\r\n",
        ),
        (
            arith(b"k", "18446744073709551615"),
            "incr k 18446744073709551615\r\n",
        ),
        (arith(b"noreply", "+1"), "incr noreply +1\r\n"),
        (
            Command::Arith {
                op: Arith::Decr,
                key: raw(b"k"),
                delta: Some(b"1"),
            },
            "decr k 1\r\n",
        ),
        (touch(b"k", "-1"), "touch k -1\r\n"),
        (flush_all("nil"), "flush_all\r\n"),
        (flush_all(""), "flush_all\r\n"),
        (flush_all("10"), "flush_all 10\r\n"),
        (stats("nil"), "stats\r\n"),
        (stats(""), "stats\r\n"),
        (stats("detail on"), "stats detail on\r\n"),
        (Command::Version, "version\r\n"),
        (verbosity("+1"), "verbosity +1\r\n"),
        (Command::Quit, "quit\r\n"),
    ] {
        assert_eq!(text(command), want);
    }
}

#[test]
fn mistakes_that_memcached_names() {
    let long = vec![b'k'; 251];
    let spaces = vec![b' '; 84];
    let huge = vec![b'k'; 1 << 20];
    let (empty, list) = ([raw(b""), escaped(b"")], [raw(b"a"), raw(&long)]);
    let set = |args| store(Verb::Set, b"k", args, b"v");
    let cas = |unique| store(Verb::Cas, b"k", ["0", "0", unique], b"v");
    for (command, want) in [
        (
            Command::Get {
                key: raw(b""),
                cas: false,
            },
            ERROR,
        ),
        (
            Command::Get {
                key: escaped(b""),
                cas: true,
            },
            ERROR,
        ),
        (
            Command::GetMany {
                keys: &[],
                cas: false,
            },
            ERROR,
        ),
        (
            Command::GetMany {
                keys: &empty,
                cas: false,
            },
            ERROR,
        ),
        (
            Command::GetMany {
                keys: &list,
                cas: false,
            },
            FORMAT,
        ),
        (
            Command::Get {
                key: raw(&long),
                cas: false,
            },
            FORMAT,
        ),
        (
            Command::Get {
                key: escaped(&spaces),
                cas: false,
            },
            FORMAT,
        ),
        (
            Command::Delete {
                key: escaped(&huge),
            },
            FORMAT,
        ),
        (Command::Delete { key: raw(b"") }, ERROR),
        (store(Verb::Set, b"", ["x", "x", "nil"], b"v"), ERROR),
        (store(Verb::Set, &long, ["", "0", "nil"], b"v"), ERROR),
        (store(Verb::Set, &long, ["0", "", "nil"], b"v"), ERROR),
        (store(Verb::Set, &long, ["x", "0", "nil"], b"v"), FORMAT),
        (store(Verb::Cas, &long, ["0", "0", "nil"], b"v"), ERROR),
        (set(["1.5", "0", "nil"]), FORMAT),
        (set(["-1", "0", "nil"]), FORMAT),
        (set(["abc", "0", "nil"]), FORMAT),
        (set(["0x5", "0", "nil"]), FORMAT),
        (set(["4294967296", "0", "nil"]), FORMAT),
        (set(["0", "1.5", "nil"]), FORMAT),
        (set(["0", "9223372036854775808", "nil"]), FORMAT),
        (cas("nil"), ERROR),
        (cas(""), ERROR),
        (cas("abc"), FORMAT),
        (cas("-1"), FORMAT),
        (cas("18446744073709551616"), FORMAT),
        (arith(b"", "1"), ERROR),
        (arith(&long, "nil"), ERROR),
        (arith(b"k", ""), ERROR),
        (arith(&long, "abc"), FORMAT),
        (arith(b"k", "abc"), DELTA),
        (arith(b"k", "-1"), DELTA),
        (arith(b"k", "1.5"), DELTA),
        (arith(b"k", "18446744073709551616"), DELTA),
        (touch(b"", "1"), ERROR),
        (touch(&long, "nil"), ERROR),
        (touch(b"k", ""), ERROR),
        (touch(&long, "abc"), FORMAT),
        (touch(b"k", "1.5"), EXPTIME),
        (touch(b"k", "99999999999999999999"), EXPTIME),
        (flush_all("1.5"), EXPTIME),
        (flush_all("abc"), EXPTIME),
        (verbosity("nil"), ERROR),
        (verbosity(""), ERROR),
        (verbosity("-1"), FORMAT),
        (verbosity("abc"), FORMAT),
        (verbosity("1.5"), FORMAT),
    ] {
        assert_eq!(answer(command), want, "{command:?}");
    }
}

#[test]
fn longest_keys_pass() {
    let (plain, spaces) = ([b'k'; 250], [b' '; 83]);
    assert_eq!(
        text(Command::Delete { key: raw(&plain) }).len(),
        7 + 250 + 2
    );
    assert_eq!(
        text(Command::Delete {
            key: escaped(&plain)
        })
        .len(),
        7 + 250 + 2
    );
    assert_eq!(
        text(Command::Delete {
            key: escaped(&spaces)
        })
        .len(),
        7 + 249 + 2
    );
}

#[test]
fn reasons_for_the_log() {
    let long = [b' '; 84];
    let key = escaped(&long);
    for (command, want) in [
        (
            Command::Get { key, cas: true },
            "gets: key is 252 bytes long after escaping, at most 250 are allowed",
        ),
        (
            arith(b"k", "[error]\r\n1"),
            r#"incr: delta "\x5berror\x5d\r\n1" contains whitespace or control characters"#,
        ),
        (
            store(Verb::Cas, b"k", ["1.5", "0", "0"], b""),
            r#"cas: flags "1.5" is not an integer in range"#,
        ),
        (touch(b"", "0"), "touch: key is missing or empty"),
    ] {
        assert_eq!(encoded(&command).unwrap_err().why, want);
    }
}

#[test]
fn keys_are_noted_by_position() {
    let keys = [raw(b""), raw(b"a"), escaped(b"b c"), raw(b"d")];
    let command = Command::GetMany {
        keys: &keys,
        cas: false,
    };
    let (text, expect) = encoded(&command).unwrap();
    assert_eq!(&text[expect.start - 6..expect.end - 6], "a b%20c d");
    assert_eq!(
        expect.kind,
        ReplyKind::GetMany {
            cas: false,
            touches: false,
            keys: 3
        }
    );
    assert!(expect.has_reply());
    assert!(!encoded(&Command::Quit).unwrap().1.has_reply());
}
