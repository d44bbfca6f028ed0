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
