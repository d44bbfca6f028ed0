//! What connections with many owners need: numbers, taking back.

use super::tests::{LIMITS, get, hit, read, send_all, set};
use super::*;

#[test]
fn exchanges_are_numbered_as_they_come() {
    let mut pipeline = Pipeline::new(LIMITS);
    assert_eq!((pipeline.oldest(), pipeline.newest()), (0, None));
    for tag in 0..3 {
        assert!(pipeline.submit(tag, &get("k")).is_ok());
        assert_eq!(pipeline.newest(), Some(tag));
    }
    send_all(&mut pipeline);
    read(&mut pipeline, b"END\r\nEND\r\n");
    assert_eq!(pipeline.next_reply(), Some((0, Reply::Miss)));
    assert_eq!(pipeline.oldest(), 1);
    assert_eq!(pipeline.next_reply(), Some((1, Reply::Miss)));
    assert_eq!((pipeline.oldest(), pipeline.newest()), (2, Some(2)));
    assert_eq!(pipeline.tags().collect::<Vec<_>>(), [2]);
}

#[test]
fn the_key_of_a_single_get_is_what_is_on_the_wire() {
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.submit((), &set(b"v")).is_ok());
    assert!(pipeline.submit((), &get("a b")).is_ok());
    assert_eq!(pipeline.single_get(0), None);
    assert_eq!(pipeline.single_get(1), Some((&b"a%20b"[..], false)));
    assert_eq!(pipeline.single_get(2), None);
    send_all(&mut pipeline);
    read(&mut pipeline, b"STORED\r\n");
    assert!(pipeline.next_reply().is_some());
    assert_eq!(pipeline.single_get(0), None);
    assert_eq!(pipeline.single_get(1), Some((&b"a%20b"[..], false)));
}

#[test]
fn an_unsent_command_can_be_taken_back_and_a_sent_one_cannot() {
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.submit('a', &get("a")).is_ok());
    assert!(pipeline.submit('b', &get("b")).is_ok());
    pipeline.take_back();
    assert_eq!(pipeline.unsent(), b"get a\r\n");
    assert!(pipeline.submit('c', &get("c")).is_ok());
    assert_eq!(pipeline.newest(), Some(1));
    pipeline.sent(8);
    pipeline.take_back();
    assert_eq!(pipeline.in_flight(), 2);
    assert_eq!(send_all(&mut pipeline), b"et c\r\n");
    read(&mut pipeline, b"END\r\nVALUE c 0 1\r\nx\r\nEND\r\n");
    assert_eq!(pipeline.next_reply(), Some(('a', Reply::Miss)));
    assert_eq!(pipeline.next_reply(), Some(('c', hit(b"x"))));
    assert!(pipeline.is_quiet());
}

#[test]
fn the_first_command_that_was_not_sent_as_a_whole() {
    let mut pipeline = Pipeline::new(LIMITS);
    for tag in 0..3 {
        assert!(pipeline.submit(tag, &get("k")).is_ok());
    }
    let mut found = Vec::new();
    for _ in 0..3 * 7 {
        found.push(pipeline.first_unsent());
        pipeline.sent(1);
    }
    assert_eq!(found, [[0; 7], [1; 7], [2; 7]].concat());
    read(&mut pipeline, b"END\r\n");
    assert!(pipeline.next_reply().is_some());
    assert!(pipeline.submit(3, &get("k")).is_ok());
    assert_eq!(pipeline.first_unsent(), 3);
}

#[test]
fn a_command_is_sent_when_its_last_byte_is() {
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.submit((), &get("a")).is_ok());
    assert!(pipeline.submit((), &set(b"v")).is_ok());
    pipeline.sent(6);
    assert!(!pipeline.is_sent(0));
    pipeline.sent(1);
    assert!(pipeline.is_sent(0) && !pipeline.is_sent(1));
    send_all(&mut pipeline);
    assert!(pipeline.is_sent(1));
}

#[test]
fn a_large_value_is_noticed_while_it_comes() {
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.submit((), &get("a")).is_ok());
    send_all(&mut pipeline);
    read(&mut pipeline, b"VALUE a 0 100000\r\nx");
    assert_eq!(pipeline.next_reply(), None);
    assert!(pipeline.is_amid_value());
    read(&mut pipeline, &[b'y'; 99_999]);
    read(&mut pipeline, b"\r\nEND\r\n");
    assert!(pipeline.next_reply().is_some());
    assert!(!pipeline.is_amid_value());
}

#[test]
fn an_error_line_before_the_command_is_its_error() {
    for (bytes, line) in [
        (
            &b"ERROR Too many open connections\r\n"[..],
            Some(&b"ERROR Too many open connections"[..]),
        ),
        (b"SERVER_ERROR\n", Some(b"SERVER_ERROR")),
        (b"CLIENT_ERROR x\r\nmore", Some(b"CLIENT_ERROR x")),
        (b"ERROR Too many", None),
        (b"ERRORS\r\n", None),
        (b"END\r\nERROR\r\n", None),
        (b"\r\n", None),
    ] {
        let mut pipeline = Pipeline::new(LIMITS);
        read(&mut pipeline, bytes);
        assert_eq!(pipeline.unasked_error(), line);
        assert!(!pipeline.is_answered());
        assert!(pipeline.submit(1, &get("a")).is_ok());
        let unsolicited = Reply::Malformed(Malformed::Unsolicited);
        let reply = line.map_or(unsolicited, |line| Reply::Line(line.to_vec()));
        assert_eq!(pipeline.next_reply(), Some((1, reply)));
        assert!(pipeline.is_broken());
        assert_eq!(pipeline.buffered(), bytes);
    }
    // one that is too long is none
    let mut pipeline = Pipeline::<()>::new(LIMITS);
    let long = [b"ERROR ", vec![b'x'; LIMITS.max_line - 6].as_slice()].concat();
    read(&mut pipeline, &[&long, &b"\r\n"[..]].concat());
    assert_eq!(pipeline.unasked_error(), Some(&long[..]));
    let mut pipeline = Pipeline::<()>::new(LIMITS);
    read(&mut pipeline, &[&long, &b"x\r\n"[..]].concat());
    assert_eq!(pipeline.unasked_error(), None);
}

#[test]
fn a_command_that_was_answered_early_keeps_nobody_from_asking() {
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.submit(1, &set(b"value")).is_ok());
    pipeline.sent(5);
    assert!(!pipeline.is_answered());
    read(&mut pipeline, b"SERVER_ERROR too large\r\n");
    let line = Reply::Line(b"SERVER_ERROR too large".to_vec());
    assert_eq!(pipeline.next_reply(), Some((1, line)));
    assert!(pipeline.is_answered() && !pipeline.is_quiet());
    // what comes now is nobody's
    assert!(pipeline.submit(2, &get("a")).is_ok());
    pipeline.sent(pipeline.unsent().len() - b"get a\r\n".len());
    read(&mut pipeline, b"END\r\n");
    let unsolicited = Reply::Malformed(Malformed::Unsolicited);
    assert_eq!(pipeline.next_reply(), Some((2, unsolicited)));
}
