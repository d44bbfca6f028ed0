//! Replies of one line, and of lines only.

use super::*;
use crate::protocol::{Arith, Verb};

#[test]
fn storage() {
    for verb in [
        Verb::Set,
        Verb::Add,
        Verb::Replace,
        Verb::Append,
        Verb::Prepend,
        Verb::Cas,
    ] {
        let command = Command::Store {
            verb,
            key: key(b"a"),
            flags: b"0",
            exptime: b"0",
            cas_unique: Some(b"1"),
            value: b"v",
        };
        let cas = if verb == Verb::Cas { Quiet } else { Broken };
        table(
            command,
            &[
                ("STORED\r\n", "done", Quiet),
                // the long way
                ("STORED\n", "done", Quiet),
                ("NOT_STORED\r\n", "line NOT_STORED", Quiet),
                ("EXISTS\r\n", "line EXISTS", cas),
                ("NOT_FOUND\r\n", "line NOT_FOUND", cas),
                (
                    "SERVER_ERROR object too large for cache\r\n",
                    "line SERVER_ERROR object too large for cache",
                    Quiet,
                ),
                ("SERVER_ERROR\r\n", "line SERVER_ERROR", Quiet),
                ("SERVER_ERRORS\r\n", "line SERVER_ERRORS", Broken),
                ("ERROR\r\n", "line ERROR", Broken),
                (
                    "CLIENT_ERROR bad data chunk\r\n",
                    "line CLIENT_ERROR bad data chunk",
                    Broken,
                ),
                ("OK\r\n", "line OK", Broken),
                ("END\r\n", "line END", Broken),
            ],
        );
    }
}

#[test]
fn one_line_commands() {
    table(
        Command::Delete { key: key(b"a") },
        &[
            ("DELETED\r\n", "done", Quiet),
            ("NOT_FOUND\r\n", "line NOT_FOUND", Quiet),
            ("ERROR\r\n", "line ERROR", Quiet),
            ("STORED\r\n", "line STORED", Broken),
        ],
    );
    let delta = Some(&b"1"[..]);
    table(
        Command::Arith {
            op: Arith::Incr,
            key: key(b"a"),
            delta,
        },
        &[
            (
                "18446744073709551615\r\n",
                "number 18446744073709551615",
                Quiet,
            ),
            ("007\r\n", "number 007", Quiet),
            ("7 \r\n", "line 7 ", Broken),
            ("-7\r\n", "line -7", Broken),
            (
                "123456789012345678901\r\n",
                "line 123456789012345678901",
                Broken,
            ),
            ("NOT_FOUND\r\n", "line NOT_FOUND", Quiet),
            (
                "CLIENT_ERROR non-numeric\r\n",
                "line CLIENT_ERROR non-numeric",
                Quiet,
            ),
            ("STORED\r\n", "line STORED", Broken),
        ],
    );
    table(
        Command::Touch {
            key: key(b"a"),
            exptime: Some(b"0"),
        },
        &[
            ("TOUCHED\r\n", "done", Quiet),
            ("STORED\r\n", "done", Quiet),
            ("NOT_FOUND\r\n", "line NOT_FOUND", Quiet),
            ("ERROR\r\n", "line ERROR", Quiet),
            ("OK\r\n", "line OK", Broken),
        ],
    );
    for command in [
        Command::FlushAll { delay: None },
        Command::Verbosity { level: Some(b"1") },
    ] {
        table(
            command,
            &[
                ("OK\r\n", "done", Quiet),
                ("ERROR\r\n", "line ERROR", Quiet),
                ("ERROR unknown\r\n", "line ERROR unknown", Quiet),
                (
                    "CLIENT_ERROR flush_all not allowed\r\n",
                    "line CLIENT_ERROR flush_all not allowed",
                    Quiet,
                ),
                ("NOT_FOUND\r\n", "line NOT_FOUND", Broken),
            ],
        );
    }
    table(
        Command::Version,
        &[
            ("VERSION 1.6.18\r\n", "version 1.6.18", Quiet),
            ("VERSION a b\r\n", "version a b", Quiet),
            ("VERSION \r\n", "line VERSION ", Broken),
            ("VERSION\r\n", "line VERSION", Broken),
            ("ERROR\r\n", "line ERROR", Quiet),
            ("OK\r\n", "line OK", Broken),
        ],
    );
}

#[test]
fn stats() {
    let stats = |args: &'static str| Command::Stats {
        args: Some(args.as_bytes()),
    };
    for args in ["", "items", "reset", "detail on", "sizes_enable"] {
        table(
            stats(args),
            &[
                ("END\r\n", "stats ", Quiet),
                // END may follow
                ("ERROR\r\n", "line ERROR", Broken),
                ("CLIENT_ERROR usage\r\n", "line CLIENT_ERROR usage", Broken),
                (
                    "STAT a 1\r\nSTAT b ERROR\r\nEND\r\n",
                    "stats STAT a 1|STAT b ERROR",
                    Quiet,
                ),
                ("STAT a 1\r\nERROR\r\n", "line ERROR", Broken),
                ("STAT a 1\r\nRESET\r\n", "line RESET", Broken),
                ("STAT a 1\r\nSTORED\r\n", "line STORED", Broken),
                ("VALUE a 1 1\r\n", "line VALUE a 1 1", Broken),
                ("STAT a 1\r\n", "", Waits),
            ],
        );
    }
    // memcached after 1.6.18 takes `stats r` for `stats reset`.
    for args in ["reset", "r", "detail on", "detail off", "d on"] {
        table(
            stats(args),
            &[
                ("RESET\r\n", "stats RESET", Quiet),
                ("OK\r\n", "stats OK", Quiet),
                (
                    "PREFIX a get 1\r\nITEM b [1 b; 0 s]\r\nEND\r\n",
                    "stats PREFIX a get 1|ITEM b [1 b; 0 s]",
                    Quiet,
                ),
            ],
        );
    }
    table(
        stats(""),
        &[
            ("RESET\r\n", "line RESET", Broken),
            ("OK\r\n", "line OK", Broken),
        ],
    );
    for args in ["sizes_enable", "sizes_disable", "sizes_enable x"] {
        table(
            stats(args),
            &[
                (
                    "STAT sizes_status enabled\r\n",
                    "stats STAT sizes_status enabled",
                    Quiet,
                ),
                (
                    "STAT sizes_status disabled\r\n",
                    "stats STAT sizes_status disabled",
                    Quiet,
                ),
                ("STAT sizes_status error\r\n", "", Waits),
                (
                    "STAT sizes_status error\r\nSTAT sizes_error cas_support_disabled\r\n",
                    "stats STAT sizes_status error|STAT sizes_error cas_support_disabled",
                    Quiet,
                ),
            ],
        );
    }
    table(
        stats("sizes"),
        &[
            (
                "STAT sizes_status disabled\r\nEND\r\n",
                "stats STAT sizes_status disabled",
                Quiet,
            ),
            ("STAT sizes_status disabled\r\n", "", Waits),
        ],
    );
}

#[test]
fn statistics_are_bounded() {
    let line = format!("STAT {}\r\n", "x".repeat(40));
    let (reply, then) = answer(
        &Command::Stats { args: None },
        line.repeat(2_000).as_bytes(),
    );
    assert_eq!(
        (&reply[..], then),
        ("bad reply: statistics too long", Broken)
    );
}

#[test]
fn lines_are_bounded() {
    let most = "x".repeat(64);
    for (line, want, then) in [
        (
            format!("VERSION {}\r\n", &most[8..]),
            format!("version {}", &most[8..]),
            Quiet,
        ),
        (
            format!("VERSION {}\n", &most[8..]),
            format!("version {}", &most[8..]),
            Quiet,
        ),
        (
            format!("{most}x\r\n"),
            "bad reply: line too long".into(),
            Broken,
        ),
        (
            format!("{most}x\n"),
            "bad reply: line too long".into(),
            Broken,
        ),
        (
            format!("{most}xx"),
            "bad reply: line too long".into(),
            Broken,
        ),
        (format!("{most}x"), String::new(), Waits),
    ] {
        assert_eq!(
            answer(&Command::Version, line.as_bytes()),
            (want, then),
            "{line:?}"
        );
    }
}

#[test]
fn statistics_are_bounded_one_by_one() {
    let reply = format!("{}END\r\n", "STAT x 1\r\n".repeat(2_000));
    let mut pipeline = Pipeline::new(LIMITS);
    for _ in 0..3 {
        pipeline.submit(1, &Command::Stats { args: None }).unwrap();
        let n = pipeline.unsent().len();
        pipeline.sent(n);
        let replies = receive(&mut pipeline, reply.as_bytes());
        assert!(matches!(&replies[0].1, Reply::Stats(lines) if lines.len() == 2_000));
    }
}
