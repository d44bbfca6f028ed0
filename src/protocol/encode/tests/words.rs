//! Arguments that the server would read as something else.

use super::*;

#[test]
fn texts_that_would_be_more_than_one_argument() {
    let unclean = "contains whitespace or control characters";
    for byte in (0..=0x20).chain([0x7f]) {
        let key = [b'a', byte];
        let list = [raw(b"a"), raw(&key)];
        let exptime = format!("1{}", char::from(byte));
        let set = |args| store(Verb::Set, b"k", args, b"v");
        for (command, name) in [
            (
                Command::Get {
                    key: raw(&key),
                    cas: false,
                },
                "key",
            ),
            (
                Command::GetMany {
                    keys: &list,
                    cas: true,
                },
                "key",
            ),
            (Command::Delete { key: raw(&key) }, "key"),
            (store(Verb::Set, &key, ["x", "x", "nil"], b"v"), "key"),
            (set([&exptime, "0", "nil"]), "flags"),
            (set(["0", &exptime, "nil"]), "exptime"),
            (
                store(Verb::Cas, b"k", ["0", "0", &exptime], b"v"),
                "cas unique",
            ),
            (arith(&key, "1"), "key"),
            (arith(b"k", &exptime), "delta"),
            (touch(&key, "1"), "key"),
            (touch(b"k", &exptime), "exptime"),
            (flush_all(&exptime), "time"),
            (verbosity(&exptime), "level"),
            (stats(&exptime), "args"),
        ] {
            assert_eq!(
                answer(command),
                format!("bad {name}: {unclean}"),
                "{command:?}"
            );
        }
    }
    for args in [" ", " a", "a ", "a  b", "a\tb", "a\r\nflush_all"] {
        assert_eq!(
            answer(stats(args)),
            format!("bad args: {unclean}"),
            "{args:?}"
        );
    }
    // High bytes are no separators.
    assert_eq!(
        text(Command::Delete {
            key: raw("é".as_bytes())
        }),
        "delete é\r\n"
    );
}

#[test]
fn noreply_is_refused_where_the_server_would_obey() {
    let set = |args| store(Verb::Set, b"k", args, b"v");
    for (command, name) in [
        (set(["noreply", "0", "nil"]), "flags"),
        (set(["0", "noreply", "nil"]), "exptime"),
        (
            store(Verb::Cas, b"k", ["0", "0", "noreply"], b"v"),
            "cas unique",
        ),
        (arith(b"k", "noreply"), "delta"),
        (touch(b"k", "noreply"), "exptime"),
        (flush_all("noreply"), "time"),
        (verbosity("noreply"), "level"),
        (stats("noreply"), "args"),
        (stats("detail noreply"), "args"),
    ] {
        assert_eq!(
            answer(command),
            format!("bad {name}: noreply is not supported")
        );
    }
}

#[test]
fn long_arguments() {
    let (most, more) = ("x".repeat(1024), "x".repeat(1025));
    assert_eq!(text(stats(&most)).len(), 6 + 1024 + 2);
    assert_eq!(answer(stats(&more)), "bad args: too long");
    let zeros = "0".repeat(3000);
    assert_eq!(answer(flush_all(&zeros)), EXPTIME);
    assert_eq!(
        answer(store(Verb::Set, b"k", [&zeros, "0", "nil"], b"")),
        FORMAT
    );
}

fn gat<'a>(exptime: &'a str, key: Key<'a>) -> Command<'a> {
    Command::Gat {
        exptime: (exptime != "nil").then_some(exptime.as_bytes()),
        key,
        cas: false,
    }
}

#[test]
fn gat_and_gats() {
    for (exptime, sent) in [("0", "0"), ("-1", "-1"), ("+60", "+60"), ("007", "007")] {
        assert_eq!(
            text(gat(exptime, escaped(b"a b"))),
            format!("gat {sent} a%20b\r\n")
        );
    }
    let exptime = Some(&b"60"[..]);
    let key = raw(b"noreply");
    assert_eq!(
        text(Command::Gat {
            exptime,
            key,
            cas: true
        }),
        "gats 60 noreply\r\n"
    );
    let keys = [raw(b""), raw(b"a"), escaped(b"b c")];
    for (cas, want) in [(false, "gat 60 a b%20c\r\n"), (true, "gats 60 a b%20c\r\n")] {
        let command = Command::GatMany {
            exptime,
            keys: &keys,
            cas,
        };
        let (sent, expect) = encoded(&command).unwrap();
        assert_eq!(sent, want);
        assert_eq!(&sent[expect.start - 6..expect.end - 6], "a b%20c");
        let kind = ReplyKind::GetMany {
            cas,
            touches: true,
            keys: 2,
        };
        assert_eq!(expect.kind, kind);
    }
}

#[test]
fn bad_gats() {
    let key = raw(b"k");
    for exptime in ["nil", "", "x", "1.5", "9223372036854775808"] {
        assert_eq!(answer(gat(exptime, key)), EXPTIME, "{exptime}");
    }
    assert_eq!(
        answer(gat("1 k2", key)),
        "bad exptime: contains whitespace or control characters"
    );
    assert_eq!(
        answer(gat("noreply", key)),
        "bad exptime: noreply is not supported"
    );
    assert_eq!(answer(gat("1", raw(b""))), ERROR);
    assert_eq!(
        answer(gat("1", raw(b"a b"))),
        "bad key: contains whitespace or control characters"
    );
    assert_eq!(answer(gat("1", raw(&[b'k'; 251]))), FORMAT);
    assert_eq!(answer(gat("x", raw(&[b'k'; 251]))), EXPTIME);
}

#[test]
fn a_line_of_gat_has_an_end_that_the_server_sees() {
    let list = |len: usize, last: usize| {
        let long = [b'k'; 225];
        let keys: Vec<_> = (0..len)
            .map(|_| raw(&long))
            .chain([raw(&long[..last])])
            .collect();
        let (exptime, cas) = (Some(&b"1"[..]), true);
        let command = Command::GatMany {
            exptime,
            keys: &keys,
            cas,
        };
        encoded(&command)
            .map(|(text, _)| text.len())
            .map_err(|refused| refused.to_string())
    };
    // 1800 bytes: 7 times 226, and a space and 217 more
    assert_eq!(list(7, 217), Ok(b"gats 1\r\n".len() + 1800));
    assert_eq!(list(7, 218), Err("bad keys: too long".to_owned()));
    // empty keys are not sent
    let keys = [raw(b""); 2000];
    let keys = [&keys[..], &[raw(b"k")]].concat();
    let (exptime, cas) = (Some(&b"1"[..]), false);
    let command = Command::GatMany {
        exptime,
        keys: &keys,
        cas,
    };
    assert_eq!(text(command), "gat 1 k\r\n");
    // one key is never too many
    let key = [b'k'; 250];
    let keys = [raw(&key)];
    let (exptime, cas) = (Some(&[b'0'; 128][..]), true);
    assert!(
        encoded(&Command::GatMany {
            exptime,
            keys: &keys,
            cas
        })
        .is_ok()
    );
}
