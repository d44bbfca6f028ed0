//! Where commands stand in the stream, and what is kept of it.

use super::tests::{LIMITS, get, hit, read, send_all, set};
use super::*;

/// With a command that was sent and answered, so that the stream does not begin with the buffer.
fn later() -> Pipeline<u32> {
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.submit(0, &get("first")).is_ok());
    send_all(&mut pipeline);
    read(&mut pipeline, b"END\r\n");
    assert!(pipeline.next_reply().is_some());
    assert_eq!((pipeline.base, pipeline.sent), (11, 0));
    pipeline
}

#[test]
fn a_command_has_begun_with_its_first_byte() {
    for mut pipeline in [Pipeline::new(LIMITS), later()] {
        let first = pipeline.oldest();
        for tag in 0..2 {
            assert!(pipeline.submit(tag, &get("k")).is_ok());
        }
        let mut begun = Vec::new();
        for _ in 0..=8 {
            begun.push([first, first + 1].map(|number| pipeline.has_begun(number)));
            pipeline.sent(1);
        }
        let want = |sent| [sent > 0, sent > 7];
        assert_eq!(begun, (0..=8).map(want).collect::<Vec<_>>());
        assert!(!pipeline.has_begun(first + 2));
    }
}

#[test]
fn positions_are_those_of_the_stream() {
    let mut pipeline = later();
    assert!(pipeline.submit(1, &get("a")).is_ok());
    assert!(pipeline.submit(2, &get("bb")).is_ok());
    assert_eq!((pipeline.oldest(), pipeline.newest()), (1, Some(2)));
    pipeline.sent(7);
    assert!(pipeline.is_sent(1) && !pipeline.is_sent(2));
    assert_eq!(pipeline.first_unsent(), 2);
    assert_eq!(pipeline.single_get(2), Some((&b"bb"[..], false)));
    assert_eq!(pipeline.unsent_commands(3), b"get bb\r\n");
    assert!(pipeline.submit(3, &get("c")).is_ok());
    pipeline.take_back();
    assert_eq!(pipeline.unsent(), b"get bb\r\n");

    let mut other = later();
    assert_eq!(other.adopt(2, &pipeline, 2), Some(1));
    assert!(pipeline.withdraw(2));
    assert_eq!((pipeline.oldest(), pipeline.newest()), (1, Some(1)));
    assert!(pipeline.is_sent(1) && !other.has_begun(1) && !other.is_sent(1));
    assert_eq!(other.single_get(1), Some((&b"bb"[..], false)));
    other.sent(1);
    assert!(other.has_begun(1) && !other.is_sent(1));
    send_all(&mut other);
    assert!(other.is_sent(1));
    for (pipeline, key, tag) in [(&mut pipeline, "a", 1), (&mut other, "bb", 2)] {
        read(
            pipeline,
            format!("VALUE {key} 0 1\r\nx\r\nEND\r\n").as_bytes(),
        );
        assert_eq!(pipeline.next_reply(), Some((tag, hit(b"x"))));
        assert!(pipeline.is_quiet());
    }
}

#[test]
fn a_batch_knows_where_its_commands_begin() {
    let mut batch = Batch::new();
    for name in ["a", "b"] {
        assert!(batch.push(&get(name)).is_ok());
    }
    let mut pipeline = later();
    assert!(pipeline.submit(1, &get("x")).is_ok());
    assert!(pipeline.submit_batch(2, &batch).is_ok());
    assert_eq!(pipeline.unsent_commands(8), b"get x\r\n");
    pipeline.sent(7);
    assert_eq!(pipeline.first_unsent(), 2);
    assert!(!pipeline.has_begun(2));
    assert_eq!(pipeline.unsent_commands(8), b"get a\r\n");
    pipeline.sent(8);
    assert!(pipeline.has_begun(3) && pipeline.is_sent(2));
}

#[test]
fn numbers_tags_and_bytes_left_to_send() {
    let mut pipeline = later();
    assert_eq!((pipeline.oldest(), pipeline.next_number()), (1, 1));
    // answered, and not submitted yet
    assert!(pipeline.is_sent(0) && !pipeline.is_sent(1) && !pipeline.is_sent(2));
    for tag in 11..15 {
        assert!(pipeline.submit(tag, &get("k")).is_ok());
    }
    assert_eq!(pipeline.next_number(), 5);
    let tags = |pipeline: &Pipeline<u32>| [0, 1, 2, 3, 4, 5].map(|number| pipeline.tag(number));
    let (one, three, four) = (Some(11), Some(13), Some(14));
    assert_eq!(tags(&pipeline), [None, one, Some(12), three, four, None]);
    assert_eq!(
        (pipeline.unsent_len(), pipeline.has_begun_oldest()),
        (28, false)
    );
    pipeline.sent(1);
    assert_eq!(
        (pipeline.unsent_len(), pipeline.has_begun_oldest()),
        (27, true)
    );
    // as a gap
    assert!(pipeline.withdraw(2));
    assert_eq!((pipeline.gaps.size, pipeline.unsent_len()), (7, 20));
    assert_eq!(tags(&pipeline), [None, one, None, three, four, None]);
    assert_eq!(pipeline.next_number(), 5);
}

#[test]
fn a_record_takes_all_that_just_fits() {
    let mut pipeline = Pipeline::new(LIMITS);
    for name in ["a", "b", "c"] {
        assert!(pipeline.submit((), &get(name)).is_ok());
    }
    assert_eq!(pipeline.unsent_commands(13).len(), 7);
    assert_eq!(pipeline.unsent_commands(14).len(), 14);
    assert_eq!(pipeline.unsent_commands(20).len(), 14);
    assert_eq!(pipeline.unsent_commands(21).len(), 21);
}

#[test]
fn each_thing_left_to_do_keeps_from_being_quiet() {
    let mut unsent = Pipeline::<()>::new(LIMITS);
    assert!(unsent.send_raw(b"x"));
    let mut unread = Pipeline::<()>::new(LIMITS);
    read(&mut unread, b"x");
    let mut in_flight = Pipeline::new(LIMITS);
    assert!(in_flight.submit((), &get("k")).is_ok());
    send_all(&mut in_flight);
    let mut broken = Pipeline::new(LIMITS);
    assert!(broken.submit((), &get("k")).is_ok());
    send_all(&mut broken);
    broken.drop_in_flight();
    for pipeline in [unsent, unread, in_flight, broken] {
        assert!(!pipeline.is_quiet());
    }
}

#[test]
fn values_up_to_8_kib_are_copied() {
    let value = vec![b'v'; 8193];
    let mut pipeline = Pipeline::new(LIMITS);
    assert_eq!(pipeline.submit_head(1, &set(&value[1..])), Ok(&b""[..]));
    assert_eq!(
        send_all(&mut pipeline).len(),
        "set k 0 0 8192\r\n\r\n".len() + 8192
    );
    assert_eq!(pipeline.submit_head(2, &set(&value)), Ok(&value[..]));
}

#[test]
fn text_is_moved_when_that_pays() {
    // little of it was answered
    let mut pipeline = Pipeline::new(LIMITS);
    for tag in 0..3 {
        assert!(pipeline.submit(tag, &get("k")).is_ok());
    }
    send_all(&mut pipeline);
    read(&mut pipeline, b"END\r\nEND\r\n");
    while pipeline.next_reply().is_some() {}
    assert_eq!((pipeline.base, pipeline.out.len()), (0, 21));

    // much, but more is still to be sent
    let mut pipeline = Pipeline::new(LIMITS);
    let value = vec![b'v'; 70_000];
    for tag in 0..3 {
        assert!(pipeline.submit(tag, &set(&value)).is_ok());
    }
    let len = pipeline.unsent().len() / 3;
    pipeline.sent(len);
    read(&mut pipeline, b"STORED\r\n");
    assert!(pipeline.next_reply().is_some());
    assert_eq!(pipeline.base, 0);
    pipeline.sent(len);
    read(&mut pipeline, b"STORED\r\n");
    assert!(pipeline.next_reply().is_some());
    assert_eq!((pipeline.base, pipeline.out.len()), (2 * len as u64, len));

    // just 64 KiB, which are half of it
    let mut pipeline = Pipeline::<()>::new(LIMITS);
    assert!(pipeline.send_raw(&vec![b'x'; 128 * 1024]));
    pipeline.sent(64 * 1024 - 1);
    assert_eq!(pipeline.base, 0);
    pipeline.sent(1);
    assert_eq!(pipeline.base, 64 * 1024);
}

#[test]
fn what_an_early_reply_has_left_behind_is_dropped_when_it_is_sent() {
    // the text of a command in flight follows
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.submit(1, &set(&vec![b'v'; 70_000])).is_ok());
    let len = pipeline.unsent().len();
    assert!(pipeline.submit(2, &get("k")).is_ok());
    pipeline.sent(100);
    read(&mut pipeline, b"SERVER_ERROR out of memory\r\n");
    assert!(pipeline.next_reply().is_some());
    pipeline.sent(DROP_FRONT - 1 - 100);
    assert_eq!((pipeline.base, pipeline.sent), (0, DROP_FRONT - 1));
    pipeline.sent(len + 1 - DROP_FRONT);
    assert_eq!((pipeline.base, pipeline.sent), (len as u64, 0));
    assert_eq!(pipeline.unsent(), b"get k\r\n");

    // nothing does
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.submit(1, &set(b"v")).is_ok());
    let len = pipeline.unsent().len();
    pipeline.sent(10);
    read(&mut pipeline, b"SERVER_ERROR out of memory\r\n");
    assert!(pipeline.next_reply().is_some());
    pipeline.sent(len - 10);
    assert_eq!((pipeline.base, pipeline.out.len()), (len as u64, 0));
}

#[test]
fn memory_is_given_back_in_two_steps() {
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.submit(1, &set(&vec![b'v'; 300_000])).is_ok());
    send_all(&mut pipeline);
    read(&mut pipeline, b"STORED\r\n");
    assert!(pipeline.next_reply().is_some());
    assert!(pipeline.out.capacity() >= 300_000);
    pipeline.trim();
    assert_eq!(pipeline.out.capacity(), 64 * 1024);
    pipeline.shrink();
    assert_eq!(pipeline.out.capacity(), 4 * 1024);
}
