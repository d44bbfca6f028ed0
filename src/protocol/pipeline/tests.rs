//! The two directions of a connection: order, positions, buffers.

use super::*;
use crate::protocol::{Arg, Digits, Key, Value, Verb};

pub(super) const LIMITS: Limits = Limits {
    max_line: 2048,
    max_value: 1 << 20,
};

pub(super) fn key(bytes: &[u8]) -> Key<'_> {
    Key {
        bytes,
        escape: true,
    }
}

pub(super) fn get(name: &str) -> Command<'_> {
    Command::Get {
        key: key(name.as_bytes()),
        cas: false,
    }
}

pub(super) fn set(value: &[u8]) -> Command<'_> {
    Command::Store {
        verb: Verb::Set,
        key: key(b"k"),
        flags: b"0",
        exptime: b"0",
        cas_unique: Arg::None,
        value,
    }
}

pub(super) fn hit(data: &[u8]) -> Reply {
    Reply::Value(Value {
        data: data.to_vec(),
        flags: Digits::from(0),
        cas: None,
    })
}

pub(super) fn send_all<T: Copy>(pipeline: &mut Pipeline<T>) -> Vec<u8> {
    let sent = pipeline.unsent().to_vec();
    pipeline.sent(sent.len());
    sent
}

/// Appends received bytes as a socket would, without looking at replies.
pub(super) fn read<T: Copy>(pipeline: &mut Pipeline<T>, mut bytes: &[u8]) {
    while !bytes.is_empty() {
        let ReadBuf { buf, max } = pipeline.read_buf();
        assert!(max > 0 && buf.capacity() - buf.len() >= max);
        let (now, later) = bytes.split_at(max.min(bytes.len()));
        buf.extend_from_slice(now);
        bytes = later;
    }
}

#[test]
fn replies_come_in_order_with_their_tags() {
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.is_quiet());
    pipeline.submit('a', &get("a")).unwrap();
    pipeline.submit('b', &set(b"value")).unwrap();
    assert!(pipeline.submit('x', &get("")).is_err());
    pipeline.submit('c', &get("c")).unwrap();
    pipeline.submit('q', &Command::Quit).unwrap();
    assert_eq!((pipeline.in_flight(), pipeline.oldest()), (3, 0));
    assert_eq!(pipeline.next_reply(), None);
    assert_eq!(
        send_all(&mut pipeline),
        b"get a\r\nset k 0 0 5\r\nvalue\r\nget c\r\nquit\r\n"
    );
    assert!(pipeline.unsent().is_empty() && !pipeline.is_quiet());

    read(
        &mut pipeline,
        b"END\r\nSTORED\r\nVALUE c 0 1\r\nx\r\nEND\r\n",
    );
    assert_eq!(pipeline.next_reply(), Some(('a', Reply::Miss)));
    assert_eq!(pipeline.oldest(), 1);
    assert!(!pipeline.is_quiet());
    assert_eq!(pipeline.next_reply(), Some(('b', Reply::Done)));
    assert_eq!(pipeline.next_reply(), Some(('c', hit(b"x"))));
    assert_eq!(pipeline.next_reply(), None);
    assert!(pipeline.is_quiet());
    assert_eq!((pipeline.in_flight(), pipeline.oldest()), (0, 3));
}

#[test]
fn a_batch_keeps_its_keys() {
    let mut batch = Batch::new();
    assert!(batch.is_empty());
    let keys = [key(b"a"), key(b"b")];
    batch
        .push(&Command::GetMany {
            keys: &keys,
            cas: false,
        })
        .unwrap();
    assert!(batch.push(&get("")).is_err());
    batch.push(&get("c")).unwrap();
    batch.push(&Command::Quit).unwrap();
    assert_eq!((batch.len(), batch.is_empty()), (2, false));
    assert_eq!(batch.text_len(), "get a b\r\nget c\r\nquit\r\n".len());

    let mut pipeline = Pipeline::new(LIMITS);
    pipeline.submit(1, &get("first")).unwrap();
    assert!(pipeline.submit_batch(2, &batch).is_ok());
    pipeline.submit(3, &get("last")).unwrap();
    assert_eq!(
        send_all(&mut pipeline),
        b"get first\r\nget a b\r\nget c\r\nquit\r\nget last\r\n"
    );
    read(
        &mut pipeline,
        b"VALUE first 0 0\r\n\r\nEND\r\nVALUE b 0 1\r\nx\r\nEND\r\n",
    );
    read(
        &mut pipeline,
        b"VALUE c 0 0\r\n\r\nEND\r\nVALUE last 0 0\r\n\r\nEND\r\n",
    );
    let tags: Vec<_> = std::iter::from_fn(|| pipeline.next_reply()).collect();
    assert_eq!(
        tags.iter().map(|(tag, _)| *tag).collect::<Vec<_>>(),
        [1, 2, 2, 3]
    );
    assert!(matches!(&tags[1].1, Reply::Values(values) if values.len() == 1));
    assert!(pipeline.is_quiet());
}

#[test]
fn nothing_comes_out_of_a_broken_pipeline() {
    let mut pipeline = Pipeline::new(LIMITS);
    pipeline.submit(1, &get("a")).unwrap();
    pipeline.submit(2, &get("b")).unwrap();
    send_all(&mut pipeline);
    read(&mut pipeline, b"VALUE b 0 1\r\nx\r\nEND\r\nEND\r\n");
    let unexpected = Reply::Malformed(Malformed::UnexpectedKey);
    assert_eq!(pipeline.next_reply(), Some((1, unexpected)));
    assert!(pipeline.is_broken());
    assert_eq!(pipeline.next_reply(), None);
    assert_eq!(pipeline.tags().next(), Some(2));
    pipeline.drop_in_flight();
    assert_eq!(pipeline.in_flight(), 0);
    assert_eq!(pipeline.next_reply(), None);
    assert!(pipeline.is_broken() && !pipeline.is_quiet());
}

#[test]
fn dropping_exchanges_breaks_and_dropping_none_does_not() {
    let mut pipeline = Pipeline::new(LIMITS);
    pipeline.drop_in_flight();
    assert!(pipeline.is_quiet());
    pipeline.submit(1, &get("a")).unwrap();
    pipeline.drop_in_flight();
    assert!(pipeline.is_broken());
}

#[test]
fn bytes_that_nobody_asked_for() {
    // While nothing is in flight.
    let mut pipeline = Pipeline::new(LIMITS);
    read(&mut pipeline, b"x");
    assert_eq!(pipeline.next_reply(), None);
    assert!(!pipeline.is_quiet() && !pipeline.is_broken());
    assert_eq!(pipeline.buffered(), b"x");
    pipeline.consume(1);
    assert!(pipeline.is_quiet());

    // Before the command was sent.
    pipeline.submit(1, &get("a")).unwrap();
    pipeline.submit(2, &Command::Version).unwrap();
    pipeline.sent("get a\r\n".len());
    read(&mut pipeline, b"END\r\nVERSION 1\r\n");
    assert_eq!(pipeline.next_reply(), Some((1, Reply::Miss)));
    let unsolicited = Reply::Malformed(Malformed::Unsolicited);
    assert_eq!(pipeline.next_reply(), Some((2, unsolicited)));
    assert!(pipeline.is_broken());
}

#[test]
fn a_store_may_be_refused_before_it_is_sent_whole() {
    let mut pipeline = Pipeline::new(LIMITS);
    pipeline.submit(1, &set(&[b'x'; 1000])).unwrap();
    pipeline.sent(100);
    read(
        &mut pipeline,
        b"SERVER_ERROR object too large for cache\r\n",
    );
    assert!(matches!(pipeline.next_reply(), Some((1, Reply::Line(_)))));
    assert!(!pipeline.is_broken() && !pipeline.is_quiet());
    assert_eq!(
        pipeline.unsent().len(),
        "set k 0 0 1000\r\n\r\n".len() + 1000 - 100
    );
    send_all(&mut pipeline);
    assert!(pipeline.is_quiet());
}

#[test]
fn raw_bytes_are_not_an_exchange() {
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.send_raw(b"mn\r\n"));
    assert_eq!(pipeline.in_flight(), 0);
    pipeline.submit(1, &get("a")).unwrap();
    assert_eq!(pipeline.unsent(), b"mn\r\nget a\r\n");
    send_all(&mut pipeline);
    read(&mut pipeline, b"MN\r\nVALUE a 0 1\r\nx\r\nEND\r\n");
    pipeline.consume(4);
    assert_eq!(pipeline.next_reply(), Some((1, hit(b"x"))));
    pipeline.consume(100);
    assert!(pipeline.is_quiet());
}

#[test]
fn raw_bytes_may_pile_up() {
    let mut pipeline = Pipeline::<()>::new(LIMITS);
    let bytes: Vec<u8> = (0..100_000u32).map(|n| n as u8).collect();
    read(&mut pipeline, &bytes);
    pipeline.consume(10);
    read(&mut pipeline, b"more");
    assert_eq!(pipeline.buffered(), [&bytes[10..], b"more"].concat());
    pipeline.consume(usize::MAX);
    assert!(pipeline.is_quiet());
    pipeline.shrink();
    assert!(pipeline.read_buf().buf.capacity() <= 16 * 1024);
}

#[test]
fn a_large_value_is_received_into_its_own_buffer() {
    let value = vec![b'v'; 100_000];
    let mut pipeline = Pipeline::new(LIMITS);
    pipeline.submit(1, &get("a")).unwrap();
    pipeline.submit(2, &Command::Version).unwrap();
    send_all(&mut pipeline);
    read(&mut pipeline, b"VALUE a 0 100000\r\nvvv");
    assert_eq!(pipeline.next_reply(), None);
    let ReadBuf { buf, max } = pipeline.read_buf();
    assert_eq!((buf.len(), max), (3, 99_997 + 7));
    assert_eq!(buf.capacity(), 100_000 + 7);
    let at = buf.as_ptr();

    // What comes with the value's end is not lost.
    read(&mut pipeline, &value[3..]);
    assert_eq!(pipeline.next_reply(), None);
    read(&mut pipeline, b"\r\nEND\r\nVERSION 1\r\n");
    let Some((1, Reply::Value(got))) = pipeline.next_reply() else {
        panic!("no value");
    };
    assert_eq!((got.data.as_ptr(), got.data), (at, value));
    assert_eq!(
        pipeline.next_reply(),
        Some((2, Reply::Version(b"1".to_vec())))
    );
    assert!(pipeline.is_quiet());
}

#[test]
fn value_buffers_are_used_again() {
    let stock = Buffers::default();
    let mut pipeline = Pipeline::new(LIMITS).with_buffers(stock.clone());
    let mut buffers = Vec::new();
    for _ in 0..3 {
        pipeline.submit(1, &get("a")).unwrap();
        send_all(&mut pipeline);
        read(&mut pipeline, b"VALUE a 0 3\r\nabc\r\nEND\r\n");
        let Some((1, Reply::Value(value))) = pipeline.next_reply() else {
            panic!("no value");
        };
        assert_eq!(value.data, b"abc");
        buffers.push(value.data.as_ptr());
        stock.recycle(Reply::Value(value));
    }
    assert!(buffers.iter().all(|at| *at == buffers[0]));

    let keys = [key(b"a")];
    pipeline
        .submit(
            1,
            &Command::GetMany {
                keys: &keys,
                cas: false,
            },
        )
        .unwrap();
    send_all(&mut pipeline);
    read(&mut pipeline, b"VALUE a 0 3\r\nabc\r\nEND\r\n");
    let Some((1, Reply::Values(values))) = pipeline.next_reply() else {
        panic!("no values");
    };
    let hit = values.iter().next().unwrap();
    assert_eq!((hit.key, hit.data), (&b"a"[..], &b"abc"[..]));
    stock.recycle(Reply::Values(values));
    pipeline.shrink();
    assert!(pipeline.is_quiet());
}

#[test]
fn limits_hold_from_the_next_header_on() {
    let mut pipeline = Pipeline::new(LIMITS);
    pipeline.submit(1, &get("a")).unwrap();
    pipeline.set_max_value(2);
    send_all(&mut pipeline);
    read(&mut pipeline, b"VALUE a 0 3\r\nabc\r\nEND\r\n");
    let (announced, limit) = (3, 2);
    let reply = Reply::Malformed(Malformed::ValueTooLarge { announced, limit });
    assert_eq!(pipeline.next_reply(), Some((1, reply)));
}

#[test]
fn a_length_without_memory_is_an_error() {
    let mut pipeline = Pipeline::new(Limits {
        max_value: usize::MAX,
        ..LIMITS
    });
    pipeline.submit(1, &get("a")).unwrap();
    send_all(&mut pipeline);
    read(&mut pipeline, b"VALUE a 0 18446744073709551615\r\n");
    let reply = Reply::Malformed(Malformed::NoMemory);
    assert_eq!(pipeline.next_reply(), Some((1, reply)));
    assert!(pipeline.is_broken());
}

/// A connection that always has something in flight, for many rounds.
#[test]
fn memory_is_bounded_without_a_pause() {
    // With the last command of a round unsent, and with it sent but not answered.
    never_idle("get ".len() + "\r\n".len());
    never_idle(0);
}

fn never_idle(kept: usize) {
    let mut pipeline = Pipeline::new(LIMITS);
    let value = vec![b'v'; 10_000];
    pipeline.submit(0, &get("key0")).unwrap();
    for round in 1..2_000u32 {
        let name = format!("key{round}");
        pipeline.submit(round, &set(&value)).unwrap();
        pipeline.submit(round, &get(&name)).unwrap();
        let n = pipeline.unsent().len();
        pipeline.sent(if kept > 0 {
            n.saturating_sub(name.len() + kept)
        } else {
            n
        });
        let last = format!("VALUE key{} 0 1\r\nx\r\nEND\r\n", round - 1);
        read(&mut pipeline, last.as_bytes());
        assert_eq!(pipeline.next_reply(), Some((round - 1, hit(b"x"))));
        read(&mut pipeline, b"STORED\r\n");
        assert_eq!(pipeline.next_reply(), Some((round, Reply::Done)));
        assert_eq!(pipeline.in_flight(), 1);
        assert!(kept > 0 || pipeline.unsent().is_empty(), "sent again");
        assert!(
            pipeline.out.capacity() < 512 * 1024,
            "{}",
            pipeline.out.capacity()
        );
    }
    send_all(&mut pipeline);
    read(&mut pipeline, b"END\r\n");
    assert_eq!(pipeline.next_reply(), Some((1999, Reply::Miss)));
    assert!(pipeline.is_quiet());
    pipeline.shrink();
    assert!(pipeline.out.capacity() <= IDLE_OUT);
}

#[test]
fn records_end_where_commands_do() {
    let mut pipeline = Pipeline::new(LIMITS);
    for len in [10, 10, 100, 10] {
        // "set k 0 0 10" CRLF, 10 bytes, CRLF: 26 bytes
        assert!(pipeline.submit((), &set(&vec![b'v'; len])).is_ok());
    }
    let mut lens = Vec::new();
    while !pipeline.unsent().is_empty() {
        let len = pipeline.unsent_commands(60).len();
        lens.push(len);
        pipeline.sent(len);
    }
    assert_eq!(lens, [52, 117, 26]);

    let mut pipeline = Pipeline::new(LIMITS);
    for name in ["a", "b"] {
        assert!(pipeline.submit((), &get(name)).is_ok());
    }
    assert_eq!(pipeline.unsent_commands(10), b"get a\r\n");
    pipeline.sent(3);
    assert_eq!(pipeline.unsent_commands(10), b" a\r\n");
    assert_eq!(pipeline.unsent_commands(100), b" a\r\nget b\r\n");
    pipeline.sent(4);
    assert_eq!(pipeline.unsent_commands(1), b"get b\r\n");
    assert!(pipeline.send_raw(b"raw"));
    assert_eq!(pipeline.unsent_commands(1), b"get b\r\nraw");
}

#[test]
fn buffers_of_large_values_go_from_one_connection_to_the_next() {
    let buffers = Buffers::default();
    let limits = Limits {
        max_line: 64,
        max_value: 1 << 20,
    };
    let value = |len: usize| {
        let mut pipeline = Pipeline::new(limits).with_buffers(buffers.clone());
        pipeline.submit(1, &get("k")).unwrap();
        send_all(&mut pipeline);
        let mut bytes = format!("VALUE k 0 {len}\r\n").into_bytes();
        bytes.resize(bytes.len() + len, b'x');
        bytes.extend_from_slice(b"\r\nEND\r\n");
        let mut bytes = bytes.as_slice();
        while !bytes.is_empty() {
            let into = pipeline.read_buf();
            assert!(into.max > 0);
            let (now, later) = bytes.split_at(into.max.min(bytes.len()));
            into.buf.extend_from_slice(now);
            bytes = later;
            if let Some((_, Reply::Value(value))) = pipeline.next_reply() {
                assert!(value.data.len() == len && value.data.iter().all(|&byte| byte == b'x'));
                let at = (value.data.as_ptr(), value.data.capacity());
                buffers.recycle(Reply::Value(value));
                assert!(pipeline.is_quiet());
                return at;
            }
        }
        panic!("no value");
    };
    let first = value(300_000);
    assert_eq!(value(200_000), first);
    assert_eq!(value(300_000), first);
    assert!(value(400_000).1 >= 400_000);
}

#[test]
fn a_large_value_is_sent_from_where_it_is() {
    let large = vec![b'v'; SMALL_VALUE + 1];
    let head = format!("get a\r\nset k 0 0 {}\r\n", large.len());
    let whole = [head.as_bytes(), &large, VALUE_END].concat();
    for sent in [0, 3, 7, head.len() - 1, head.len(), head.len() + 1]
        .into_iter()
        .chain(whole.len() - 4..=whole.len())
    {
        let mut pipeline = Pipeline::new(LIMITS);
        pipeline.submit(1, &get("a")).unwrap();
        let value = pipeline.submit_head(2, &set(&large)).unwrap();
        assert_eq!(value.as_ptr(), large.as_ptr());
        assert_eq!(pipeline.unsent(), head.as_bytes());
        assert!(pipeline.sent_with(sent, value));
        assert_eq!(send_all(&mut pipeline), whole[sent..], "{sent}");
        // the next command's key is found behind bytes that never were in the buffer
        pipeline.submit(3, &get("b")).unwrap();
        assert_eq!(send_all(&mut pipeline), b"get b\r\n");
        read(
            &mut pipeline,
            b"VALUE a 0 1\r\nx\r\nEND\r\nSTORED\r\nVALUE b 0 1\r\ny\r\nEND\r\n",
        );
        assert_eq!(pipeline.next_reply(), Some((1, hit(b"x"))));
        assert_eq!(pipeline.next_reply(), Some((2, Reply::Done)));
        assert_eq!(pipeline.next_reply(), Some((3, hit(b"y"))));
        assert!(pipeline.is_quiet());
    }
}

#[test]
fn a_small_value_and_a_refused_one_are_not_left_to_the_caller() {
    let mut pipeline = Pipeline::new(LIMITS);
    assert_eq!(pipeline.submit_head(1, &set(b"v")), Ok(&b""[..]));
    assert_eq!(send_all(&mut pipeline), b"set k 0 0 1\r\nv\r\n");
    let large = vec![b'v'; SMALL_VALUE + 1];
    let Command::Store {
        verb,
        flags,
        exptime,
        cas_unique,
        value,
        ..
    } = set(&large)
    else {
        panic!("no store");
    };
    let refused = Command::Store {
        verb,
        key: key(b""),
        flags,
        exptime,
        cas_unique,
        value,
    };
    assert!(pipeline.submit_head(1, &refused).is_err());
    assert!(pipeline.unsent().is_empty());
    assert_eq!(pipeline.in_flight(), 1);
}
