//! Memory for commands, and who may send them.

use super::*;
use crate::protocol::{Meta, MetaSet};

#[test]
fn there_is_room_for_a_value_that_is_left_out() {
    let value = vec![b'v'; 100_000];
    let command = store(Verb::Set, b"k", ["0", "0", "nil"], &value);
    let mut out = Vec::new();
    assert!(encode_head(&command, value.len(), &mut out).is_ok());
    assert_eq!(out, b"set k 0 0 100000\r\n");
    assert!(out.capacity() - out.len() >= value.len() + 2);
}

#[test]
fn there_is_room_for_the_value_and_the_flags_of_ms() {
    let value = vec![b'v'; 100_000];
    let set = MetaSet {
        value: &value,
        ..MetaSet::default()
    };
    let meta = Meta {
        key: raw(b"k"),
        opaque: 0,
        op: MetaOp::Set(set),
        bad: None,
    };
    let mut out = Vec::new();
    assert!(encode(&Command::Meta(&meta), &mut out).is_ok());
    assert_eq!(out.capacity(), MAX_KEY_LEN + 100_000 + 512);
}

#[test]
fn the_room_for_a_list_of_gat_is_made_once() {
    let keys = vec![raw(b"k"); 700];
    let (exptime, cas) = (Some(&b"1"[..]), false);
    let command = Command::GatMany {
        exptime,
        keys: &keys,
        cas,
    };
    let mut out = Vec::new();
    assert!(encode(&command, &mut out).is_ok());
    assert_eq!(out.capacity(), 2 * 700 + 512);
}

#[test]
fn the_room_for_a_list_is_made_once() {
    let keys = vec![raw(b"k"); 1000];
    let command = Command::GetMany {
        keys: &keys,
        cas: false,
    };
    let mut out = Vec::new();
    assert!(encode(&command, &mut out).is_ok());
    assert_eq!(out.len(), "get".len() + 2 * 1000 + 2);
    // a key and its space, and what else a line may have
    assert_eq!(out.capacity(), 2 * 1000 + 512);
}

#[test]
fn long_arguments_have_room() {
    let args = "a".repeat(1024);
    let mut out = Vec::new();
    assert!(encode(&stats(&args), &mut out).is_ok());
    assert_eq!(out.capacity(), 1024 + 512);
}

#[test]
fn what_ends_or_changes_a_connection_is_private() {
    let key = raw(b"k");
    for (command, shared) in [
        (Command::Get { key, cas: true }, true),
        (store(Verb::Set, b"k", ["0", "0", "nil"], b""), true),
        (flush_all("nil"), false),
        (flush_all("0"), false),
        (stats("nil"), false),
        (stats(""), false),
        (stats("items"), false),
        (Command::Version, true),
        (verbosity("1"), false),
        (Command::Quit, false),
    ] {
        assert_eq!(command.can_share(), shared, "{command:?}");
    }
}
