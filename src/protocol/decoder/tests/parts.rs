//! Replies that are there in part, sizes, and the short way.

use super::*;
use crate::protocol::{Buffers, Verb};

#[test]
fn a_part_of_a_reply_is_noticed() {
    let get = Command::Get {
        key: key(b"a"),
        cas: false,
    };
    let keys = [key(b"a"), key(b"b")];
    let list = Command::GetMany {
        keys: &keys,
        cas: false,
    };
    let stats = Command::Stats { args: None };
    for (command, part) in [
        (get, "E"),
        // a header alone
        (list, "VALUE a 0 3\r\n"),
        // a value and its line end
        (list, "VALUE a 0 0\r\n\r\n"),
        (stats, "STAT a 1\r\n"),
    ] {
        let mut pipeline = asked(&command);
        assert!(!pipeline.is_amid_reply());
        assert!(receive(&mut pipeline, part.as_bytes()).is_empty());
        assert!(pipeline.is_amid_reply(), "{part:?}");
        assert!(!pipeline.is_amid_value());
        pipeline.drop_in_flight();
        let unread = !pipeline.buffered().is_empty();
        assert_eq!(pipeline.is_amid_reply(), unread, "{part:?}");
    }
    let mut pipeline = asked(&get);
    receive(&mut pipeline, b"END\r\n");
    assert!(!pipeline.is_amid_reply());
}

#[test]
fn an_error_line_for_one_key_is_the_reply_unless_the_end_is_there_behind_it() {
    let keys = [key(b"a"), key(b"")];
    let get = Command::Get {
        key: key(b"a"),
        cas: true,
    };
    let list_of_one = Command::GetMany {
        keys: &keys,
        cas: false,
    };
    let next = Command::Version;
    for command in [get, list_of_one] {
        for (behind, broken) in [
            ("", false),
            ("VERSION 1\r\n", false),
            ("ERROR\r\n", false),
            ("ENDS", false),
            ("X", false),
            ("E", true),
            ("EN", true),
            ("END", true),
            ("END\r", true),
            ("END\n", true),
            ("END\r\nVERSION 1\r\n", true),
        ] {
            let mut pipeline = asked(&command);
            assert!(pipeline.submit(2, &next).is_ok());
            let n = pipeline.unsent().len();
            pipeline.sent(n);
            let text = format!("SERVER_ERROR backend\r\n{behind}");
            let replies = receive(&mut pipeline, text.as_bytes());
            assert_eq!(show(&replies[0].1), "line SERVER_ERROR backend");
            let is_next = !broken && behind.ends_with('\n');
            assert_eq!(replies.len(), 1 + usize::from(is_next), "{behind:?}");
            assert_eq!(pipeline.is_broken(), broken, "{behind:?}");
        }
    }
}

#[test]
fn values_of_more_than_8_kib_are_large() {
    for (len, large) in [(8192, false), (8193, true)] {
        let mut pipeline = asked(&Command::Get {
            key: key(b"a"),
            cas: false,
        });
        receive(&mut pipeline, format!("VALUE a 0 {len}\r\nx").as_bytes());
        assert_eq!(pipeline.is_amid_value(), large, "{len}");
    }
}

#[test]
fn statistics_have_at_most_the_length_of_a_value() {
    // with what holds it, a line of this length takes 1 KiB
    let line = format!("STAT {}\r\n", "x".repeat(1024 - 5 - size_of::<Vec<u8>>()));
    let limits = Limits {
        max_line: 2048,
        max_value: 1 << 20,
    };
    let mut pipeline = Pipeline::new(limits);
    pipeline.submit(1, &Command::Stats { args: None }).unwrap();
    let n = pipeline.unsent().len();
    pipeline.sent(n);
    for _ in 0..1024 {
        assert!(receive(&mut pipeline, line.as_bytes()).is_empty());
    }
    let replies = receive(&mut pipeline, b"STAT\r\n");
    assert_eq!(show(&replies[0].1), "bad reply: statistics too long");
}

#[test]
fn lists_take_their_buffers_from_the_stock() {
    let stock = Buffers::default();
    let small = Vec::with_capacity(16 * 1024);
    let at = small.as_ptr();
    stock.give(small);
    stock.give(Vec::with_capacity(20_000));
    let keys = [key(b"a"), key(b"b")];
    let list = Command::GetMany {
        keys: &keys,
        cas: false,
    };
    let mut places = None;
    for _ in 0..2 {
        let mut decoder = Decoder::new(LIMITS);
        decoder.buffers = stock.clone();
        // the long way, because of the line end
        let text = b"VALUE a 0 1\nx\r\nVALUE b 0 0\n\r\nEND\r\n";
        decoder.read_buf().0.extend_from_slice(text);
        let kind = ReplyKind::GetMany {
            cas: false,
            touches: false,
            keys: 2,
        };
        let Some((Reply::Values(values), Framing::InSync)) = decoder.reply(kind, b"a b") else {
            panic!("no values");
        };
        assert_eq!(values.len(), 2);
        assert_eq!(values.bytes.as_ptr(), at);
        let found = values.items.as_ptr();
        assert_eq!(*places.get_or_insert(found), found);
        stock.recycle(Reply::Values(values));
    }
    assert!(list.can_share());
}

/// The capacity of the buffer that a value of this length is received into, the long way, with a
/// small and a large one in stock.
fn capacity_for(len: usize) -> usize {
    let stock = Buffers::default();
    stock.give(Vec::with_capacity(16 * 1024));
    stock.give(Vec::with_capacity(20_000));
    let mut decoder = Decoder::new(LIMITS);
    decoder.buffers = stock;
    let kind = ReplyKind::Get {
        cas: false,
        touches: false,
    };
    let mut text = format!("VALUE a 0 {len}\n").into_bytes();
    text.resize(text.len() + len, b'x');
    text.extend_from_slice(b"\r\nEND\r\n");
    let mut rest = text.as_slice();
    loop {
        let (buf, max) = decoder.read_buf();
        assert!(max > 0 && !rest.is_empty());
        let (now, later) = rest.split_at(max.min(rest.len()).min(1000));
        buf.extend_from_slice(now);
        rest = later;
        if let Some((reply, _)) = decoder.reply(kind, b"a") {
            let Reply::Value(value) = reply else {
                panic!("{reply:?}");
            };
            assert_eq!(value.data.len(), len);
            return value.data.capacity();
        }
    }
}

#[test]
fn what_does_not_fit_into_16_kib_takes_a_large_buffer() {
    // with seven bytes for what comes behind
    assert_eq!(capacity_for(10), 16 * 1024);
    assert_eq!(capacity_for(16 * 1024 - 7), 16 * 1024);
    assert_eq!(capacity_for(16 * 1024 - 6), 20_000);
    assert_eq!(capacity_for(20_000 - 7), 20_000);
    assert_eq!(capacity_for(20_000 - 6), 20_001);
}

#[test]
fn an_idle_connection_keeps_4_kib_for_values() {
    let stock = Buffers::default();
    stock.give(Vec::with_capacity(16 * 1024));
    let mut decoder = Decoder::new(LIMITS);
    decoder.buffers = stock;
    decoder.read_buf().0.extend_from_slice(b"ERROR\r\n");
    let kind = ReplyKind::GetMany {
        cas: false,
        touches: false,
        keys: 1,
    };
    assert!(decoder.reply(kind, b"a").is_some());
    assert_eq!(decoder.partial.values.bytes.capacity(), 16 * 1024);
    decoder.shrink();
    assert_eq!(decoder.partial.values.bytes.capacity(), 4 * 1024);
}

#[test]
fn the_room_for_a_value_under_way_stays() {
    let mut pipeline = asked(&Command::Get {
        key: key(b"a"),
        cas: false,
    });
    receive(&mut pipeline, b"VALUE a 0 10000\r\nx");
    pipeline.shrink();
    let rest = format!("{}\r\nEND\r\n", "x".repeat(9999));
    let replies = receive(&mut pipeline, rest.as_bytes());
    assert!(show(&replies[0].1).starts_with("value xxx"));
}

/// What the short way makes of a text, and what it leaves.
fn at_once(kind: ReplyKind, text: &str) -> (Option<String>, String) {
    let mut decoder = Decoder::new(LIMITS);
    decoder.read_buf().0.extend_from_slice(text.as_bytes());
    let reply = decoder.at_once(kind, b"a");
    let rest = decoder.unread().escape_ascii().to_string();
    (reply.map(|reply| show(&reply)), rest)
}

#[test]
fn usual_replies_take_the_short_way() {
    let (get, gets) = (
        ReplyKind::Get {
            cas: false,
            touches: false,
        },
        ReplyKind::Get {
            cas: true,
            touches: false,
        },
    );
    let store = ReplyKind::Store { cas: false };
    for (kind, text, reply, rest) in [
        (get, "END\r\nV", "miss", "V"),
        (gets, "END\r\n", "miss", ""),
        (get, "VALUE a 5 1\r\nx\r\nEND\r\nV", "value x 5", "V"),
        (gets, "VALUE a 5 1 9\r\nx\r\nEND\r\n", "value x 5 9", ""),
        (store, "STORED\r\nE", "done", "E"),
    ] {
        assert_eq!(at_once(kind, text), (Some(reply.into()), rest.into()));
    }
    for (kind, text) in [
        (get, "END\n"),
        (get, "VALUE a 5 1\r\nx\r\nEND\r"),
        (get, "VALUE a 5 1\r\nx\r\nVALUE"),
        (store, "STORED\n"),
        (store, "NOT_STORED\r\n"),
        (ReplyKind::Delete, "END\r\n"),
        (ReplyKind::Delete, "STORED\r\n"),
        (ReplyKind::Stats(Stats::General), "END\r\n"),
    ] {
        let rest = text.as_bytes().escape_ascii().to_string();
        assert_eq!(at_once(kind, text), (None, rest), "{text:?}");
    }
}

#[test]
fn the_short_way_has_the_limits_of_the_long_one() {
    let kind = ReplyKind::Get {
        cas: false,
        touches: false,
    };
    let reply = |len: usize| format!("VALUE a 5 {len}\r\n{}\r\nEND\r\n", "x".repeat(len));
    assert!(at_once(kind, &reply(8192)).0.is_some());
    assert!(at_once(kind, &reply(8193)).0.is_none());
    let mut decoder = Decoder::new(Limits {
        max_value: 10,
        ..LIMITS
    });
    for (len, taken) in [(10, true), (11, false)] {
        decoder
            .read_buf()
            .0
            .extend_from_slice(reply(len).as_bytes());
        assert_eq!(decoder.at_once(kind, b"a").is_some(), taken);
    }
}

#[test]
fn values_of_a_list_take_the_short_way_as_long_as_they_come_in_order() {
    let (a, b) = ("VALUE a 0 1\r\nx\r\n", "VALUE bb 1 2\r\nyz\r\n");
    let c = "VALUE c 2 0\r\n\r\n";
    for (text, count, left) in [
        (vec![a, b, c, "END\r\n"], 3, "END\r\n"),
        (vec![a, b, c, c], 3, c),
        (vec![a, c], 1, c),
        (vec![b], 0, b),
        (vec![a, "VALUE bb 1 2\r\ny"], 1, "VALUE bb 1 2\r\ny"),
    ] {
        let mut decoder = Decoder::new(LIMITS);
        decoder
            .read_buf()
            .0
            .extend_from_slice(text.concat().as_bytes());
        assert_eq!(decoder.values_at_once(b"a bb c", false, 3), Some(()));
        let values = &decoder.partial.values;
        assert_eq!(values.len(), count, "{text:?}");
        for (hit, (key, data)) in values.iter().zip([("a", "x"), ("bb", "yz"), ("c", "")]) {
            assert_eq!((hit.key, hit.data), (key.as_bytes(), data.as_bytes()));
        }
        assert_eq!(decoder.unread(), left.as_bytes());
    }
    // no more than were asked for
    let mut decoder = Decoder::new(LIMITS);
    decoder
        .read_buf()
        .0
        .extend_from_slice([a, b].concat().as_bytes());
    decoder.values_at_once(b"a bb c", false, 1);
    assert_eq!(decoder.partial.values.len(), 1);
    // not amid a value
    let mut decoder = Decoder::new(LIMITS);
    decoder.partial.body = Body::CrLf;
    assert_eq!(decoder.values_at_once(b"a", false, 1), None);
    assert_eq!(
        decoder.at_once(
            ReplyKind::Get {
                cas: false,
                touches: false,
            },
            b"a"
        ),
        None
    );
}

#[test]
fn a_value_that_came_before_is_no_miss() {
    let get = Command::Get {
        key: key(b"a"),
        cas: false,
    };
    for sizes in [1, 2, 5, 100] {
        let mut pipeline = asked(&get);
        let mut replies = Vec::new();
        for piece in b"VALUE a 5 3\r\nabc\r\nEND\r\n".chunks(sizes) {
            replies.extend(receive(&mut pipeline, piece));
        }
        assert_eq!(replies.len(), 1);
        assert_eq!(show(&replies[0].1), "value abc 5");
    }
    let store = Command::Store {
        verb: Verb::Set,
        key: key(b"a"),
        flags: b"0",
        exptime: b"0",
        cas_unique: None,
        value: b"",
    };
    assert!(receive(&mut asked(&store), b"STORED\r").is_empty());
}

#[test]
fn a_whole_value_behind_one_that_came_before_is_too_many() {
    let mut pipeline = asked(&Command::Get {
        key: key(b"a"),
        cas: false,
    });
    assert!(receive(&mut pipeline, b"VALUE a 5 3\r\nabc\r\n").is_empty());
    let replies = receive(&mut pipeline, b"VALUE a 6 1\r\nx\r\nEND\r\n");
    assert_eq!(show(&replies[0].1), TOO_MANY);
    assert!(pipeline.is_broken());
}
