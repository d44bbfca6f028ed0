//! Commands that not every server has, and commands that look like a get but change something.

use super::tests::{LIMITS, key};
use super::*;
use crate::protocol::{Meta, MetaDelete, MetaGet, MetaOp, MetaSet, Version};

const OLD: Server = Server::Memcached(Version::new(1, 6, 18));
const NEW: Server = Server::Memcached(Version::new(1, 6, 38));

fn meta(op: MetaOp<'_>) -> Meta<'_> {
    Meta {
        key: key(b"k"),
        opaque: 1,
        op,
        bad: None,
    }
}

fn get() -> Meta<'static> {
    meta(MetaOp::Get(MetaGet::default()))
}

fn newer() -> Meta<'static> {
    meta(MetaOp::Delete(MetaDelete {
        drop_value: true,
        ..MetaDelete::default()
    }))
}

fn pipeline(server: Server) -> Pipeline<u8> {
    let mut pipeline = Pipeline::new(LIMITS);
    pipeline.assume(server);
    pipeline
}

#[test]
fn meta_commands_wait_until_it_is_known_that_the_server_has_them() {
    let (get, newer) = (get(), newer());
    for (server, meta, answer) in [
        (
            Server::Unknown,
            &get,
            Some("the version of the server is unknown"),
        ),
        (OLD, &get, None),
        (
            OLD,
            &newer,
            Some("not supported by memcached 1.6.18: drop_value"),
        ),
        (NEW, &newer, None),
    ] {
        let command = Command::Meta(meta);
        let mut pipeline = pipeline(server);
        let mut batch = Batch::new();
        batch.push(&command).unwrap();
        let all = [
            pipeline.submit(1, &command),
            pipeline.submit_head(1, &command).map(|_| ()),
            pipeline.submit_batch(1, &batch),
        ];
        for result in all {
            assert_eq!(result.map_err(|no| no.to_string()).err().as_deref(), answer);
        }
        let sent = if answer.is_none() { 3 } else { 0 };
        assert_eq!(pipeline.in_flight(), sent);
        assert_eq!(pipeline.unsent().is_empty(), sent == 0);
    }
}

#[test]
fn what_no_server_takes_is_told_first() {
    let mut bad = newer();
    bad.key = key(b"");
    for server in [Server::Unknown, OLD, NEW] {
        let refused = pipeline(server)
            .submit(1, &Command::Meta(&bad))
            .unwrap_err();
        assert_eq!(refused.to_string(), "ERROR");
    }
}

#[test]
fn a_large_value_of_ms_is_left_to_the_caller_if_the_server_has_ms() {
    let value = vec![b'x'; SMALL_VALUE + 1];
    let set = meta(MetaOp::Set(MetaSet {
        value: &value,
        ..MetaSet::default()
    }));
    let command = Command::Meta(&set);
    let refused = pipeline(Server::Unknown)
        .submit_head(1, &command)
        .unwrap_err();
    assert_eq!(refused.why, "ms: the version of the server is unknown");
    let mut pipeline = pipeline(OLD);
    assert_eq!(pipeline.submit_head(1, &command).unwrap(), value);
    assert_eq!(
        pipeline.unsent(),
        format!("ms k {} O00000001\r\n", value.len()).as_bytes()
    );
}

#[test]
fn what_is_known_of_a_server_is_not_overwritten() {
    let mut pipeline = pipeline(OLD);
    pipeline.assume(NEW);
    assert_eq!(pipeline.server(), OLD);
}

/// Submits a command, has another pipeline adopt it, and tells what that will send.
fn adopted(command: &Command<'_>, from: Server, to: Server) -> Option<String> {
    let (mut one, mut other) = (pipeline(from), pipeline(to));
    one.submit(1, command).unwrap();
    let number = other.adopt(1, &one, 0)?;
    assert_eq!(number, 0);
    let text = other.unsent().escape_ascii().to_string();
    let n = other.unsent().len();
    other.sent(n);
    assert_eq!(other.in_flight(), 1);
    Some(text)
}

#[test]
fn a_meta_command_moves_only_to_a_server_of_the_same_kind() {
    let get = get();
    let command = Command::Meta(&get);
    assert_eq!(
        adopted(&command, OLD, OLD).as_deref(),
        Some(r"mg k O00000001 v\r\n")
    );
    assert_eq!(adopted(&command, OLD, NEW), None);
    assert_eq!(adopted(&command, OLD, Server::Unknown), None);
    let plain = Command::Delete { key: key(b"k") };
    assert_eq!(adopted(&plain, OLD, NEW).as_deref(), Some(r"delete k\r\n"));
}

#[test]
fn an_adopted_meta_command_takes_its_reply() {
    let get = get();
    let (mut one, mut other) = (pipeline(OLD), pipeline(OLD));
    one.submit(1, &Command::Version).unwrap();
    one.submit(1, &Command::Meta(&get)).unwrap();
    other.submit(2, &Command::Version).unwrap();
    assert_eq!(other.adopt(3, &one, 1), Some(1));
    let n = other.unsent().len();
    other.sent(n);
    let into = other.read_buf();
    into.buf
        .extend_from_slice(b"VERSION 1\r\nVA 1 O00000001\r\nx\r\n");
    assert!(matches!(other.next_reply(), Some((2, Reply::Version(_)))));
    assert!(matches!(other.next_reply(), Some((3, Reply::Meta(_)))));
    assert!(other.is_quiet());
}

#[test]
fn a_get_that_touches_is_joined_by_none_and_not_repeated() {
    let keys = [key(b"k"), key(b"l")];
    let exptime = Some(&b"60"[..]);
    for (command, text, single, list) in [
        (
            Command::Get {
                key: key(b"k"),
                cas: false,
            },
            r"get k\r\n",
            true,
            false,
        ),
        (
            Command::Gat {
                exptime,
                key: key(b"k"),
                cas: false,
            },
            r"gat 60 k\r\n",
            false,
            false,
        ),
        (
            Command::Gat {
                exptime,
                key: key(b"k"),
                cas: true,
            },
            r"gats 60 k\r\n",
            false,
            false,
        ),
        (
            Command::GatMany {
                exptime,
                keys: &keys,
                cas: false,
            },
            r"gat 60 k l\r\n",
            false,
            true,
        ),
        (
            Command::GatMany {
                exptime,
                keys: &keys,
                cas: true,
            },
            r"gats 60 k l\r\n",
            false,
            true,
        ),
    ] {
        assert_eq!(
            adopted(&command, Server::Unknown, Server::Unknown).as_deref(),
            Some(text)
        );
        let mut pipeline = pipeline(Server::Unknown);
        pipeline.submit(1, &command).unwrap();
        assert_eq!(pipeline.newest_get().is_some(), single, "{text}");
        assert_eq!(pipeline.single_get(0).is_some(), single, "{text}");
        let exchange = pipeline.exchanges().next().unwrap();
        assert_eq!(
            (exchange.repeatable, exchange.is_list),
            (single, list),
            "{text}"
        );
        assert_eq!(pipeline.lists(), usize::from(list));
        pipeline.sent(1);
        let mut other = self::pipeline(Server::Unknown);
        assert_eq!(
            other.adopt(1, &pipeline, 0).is_some(),
            single,
            "{text} was begun"
        );
    }
}

#[test]
fn meta_commands_are_joined_by_none_and_not_repeated() {
    let get = get();
    let mut pipeline = pipeline(OLD);
    pipeline.submit(1, &Command::Meta(&get)).unwrap();
    assert_eq!(pipeline.newest_get(), None);
    assert!(!pipeline.exchanges().next().unwrap().repeatable);
    pipeline.sent(1);
    assert_eq!(self::pipeline(OLD).adopt(1, &pipeline, 0), None);
}
