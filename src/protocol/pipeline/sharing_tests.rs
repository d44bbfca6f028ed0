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
