//! Parts of batches: what is in them, and how they are put together again.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::*;
use crate::group::{Gather, Scatter};
use crate::protocol::meta::Mode;
use crate::protocol::{
    Arith, Command, Key, Meta, MetaArith, MetaDelete, MetaGet, MetaOp, MetaSet, Verb,
};

fn key(bytes: &[u8]) -> Key<'_> {
    let escape = true;
    Key { bytes, escape }
}

fn meta<'a>(bytes: &'a [u8], op: MetaOp<'a>) -> Meta<'a> {
    Meta {
        key: key(bytes),
        opaque: 0xab,
        op,
        bad: None,
    }
}

/// A batch of these, whatever they need.
fn batch(commands: &[Command<'_>]) -> Batch {
    let mut batch = Batch::new();
    for command in commands {
        batch.push(command).unwrap();
    }
    batch
}

fn same(part: &Batch, other: &Batch) {
    let shown = |batch: &Batch| batch.text.escape_ascii().to_string();
    assert_eq!(shown(part), shown(other));
    assert_eq!(part.slots, other.slots);
    assert_eq!(part.private, other.private);
    let gated = |batch: &Batch| -> Vec<_> {
        let all = batch.gated.iter();
        all.map(|gated| (gated.slot, gated.text.clone(), gated.needs))
            .collect()
    };
    assert_eq!(gated(part), gated(other));
}

/// One of each form, with this expiry where it sets one.
fn forms<R>(exptime: i32, look: impl FnOnce(&[Command<'_>]) -> R) -> R {
    let text = exptime.to_string();
    let exptime_arg = Some(text.as_bytes());
    let ttl = Some(exptime);
    let keys = [key(b"many 1"), key(b""), key(b"many 2")];
    let get = meta(
        b"mg k",
        MetaOp::Get(MetaGet {
            touch: ttl,
            vivify: ttl,
            recache: Some(3600),
            cas: true,
            ..MetaGet::default()
        }),
    );
    let set = |mode, ttl, vivify| MetaSet {
        value: b"T0 N0\r\nms",
        mode,
        ttl,
        vivify,
        flags: vivify.map(|_| 7),
        return_size: true,
        ..MetaSet::default()
    };
    let sets = [
        meta(b"ms T0", MetaOp::Set(set(Mode::Set, ttl, None))),
        meta(b"ms R", MetaOp::Set(set(Mode::Replace, ttl, None))),
        meta(b"ms A", MetaOp::Set(set(Mode::Append, None, ttl))),
        meta(b"ms P", MetaOp::Set(set(Mode::Prepend, None, None))),
    ];
    let delete = meta(
        b"T0",
        MetaOp::Delete(MetaDelete {
            stale: true,
            ttl,
            ..MetaDelete::default()
        }),
    );
    let arith = meta(
        b"N0",
        MetaOp::Arith(MetaArith {
            vivify: ttl,
            initial: Some(3600),
            ttl,
            ..MetaArith::default()
        }),
    );
    let mut commands = vec![
        Command::Get {
            key: key(b"get 0"),
            cas: false,
        },
        Command::GetMany {
            keys: &keys,
            cas: true,
        },
        Command::Gat {
            exptime: exptime_arg,
            key: key(b"gat 0"),
            cas: true,
        },
        Command::GatMany {
            exptime: exptime_arg,
            keys: &keys,
            cas: false,
        },
        Command::Delete { key: key(b"3600") },
        Command::Arith {
            op: Arith::Decr,
            key: key(b"decr"),
            delta: Some(b"3600"),
        },
        Command::Touch {
            key: key(b"touch"),
            exptime: exptime_arg,
        },
        Command::FlushAll {
            delay: Some(b"3600"),
        },
        Command::Stats {
            args: Some(b"items 0"),
        },
        Command::Version,
        Command::MetaNoop,
        Command::Verbosity {
            level: Some(b"3600"),
        },
    ];
    for verb in [
        Verb::Set,
        Verb::Add,
        Verb::Replace,
        Verb::Append,
        Verb::Prepend,
        Verb::Cas,
    ] {
        commands.push(Command::Store {
            verb,
            key: key(b"3600 0"),
            flags: b"3600",
            exptime: text.as_bytes(),
            cas_unique: Some(b"3600"),
            value: b"set k 0 3600 1\r\nx\r\n",
        });
    }
    commands.push(Command::Meta(&get));
    commands.extend(sets.iter().map(Command::Meta));
    commands.push(Command::Meta(&delete));
    commands.push(Command::Meta(&arith));
    look(&commands)
}

#[test]
fn each_form_alone() {
    forms(3600, |commands| {
        let all = batch(commands);
        for (at, command) in commands.iter().enumerate() {
            let part = all.part(&[at], None).unwrap();
            same(&part, &batch(&[*command]));
            assert_eq!(part.can_share(), command.can_share(), "{command:?}");
        }
        let every: Vec<_> = (0..commands.len()).collect();
        same(&all.part(&every, None).unwrap(), &all);
        same(&all.part(&[], None).unwrap(), &Batch::new());
        same(
            &all.part(&[2, commands.len()], None).unwrap(),
            &all.part(&[2], None).unwrap(),
        );
    });
}

#[test]
fn what_has_no_reply_is_left_out() {
    let get = Command::Get {
        key: key(b"k"),
        cas: false,
    };
    let all = batch(&[Command::Quit, get, Command::Quit, Command::Version]);
    same(
        &all.part(&[0, 1], None).unwrap(),
        &batch(&[get, Command::Version]),
    );
}

#[test]
fn every_expiry_is_bounded() {
    for (exptime, bounded) in [
        (3600, 60),
        (0, 60),
        (5, 60),
        (60, 60),
        (60, -1),
        (7, 0),
        (7, 2_000_000),
    ] {
        forms(exptime, |commands| {
            forms(bounded, |want| {
                let every: Vec<_> = (0..commands.len()).collect();
                let bound = |number| {
                    assert_eq!(number, i64::from(exptime));
                    i64::from(bounded)
                };
                let part = batch(commands).part(&every, Some(&bound)).unwrap();
                same(&part, &batch(want));
                for at in every {
                    let part = batch(commands).part(&[at], Some(&bound)).unwrap();
                    same(&part, &batch(&want[at..=at]));
                }
            });
        });
    }
}

#[test]
fn what_says_no_expiry() {
    let bound = |number: i64| number + 60;
    let set = |mode, ttl| MetaSet {
        value: b"value",
        mode,
        ttl,
        new_cas: Some(9),
        ..MetaSet::default()
    };
    for (mode, ttl) in [
        (Mode::Set, Some(60)),
        (Mode::Add, Some(60)),
        (Mode::Replace, Some(60)),
        // these keep it
        (Mode::Append, None),
        (Mode::Prepend, None),
    ] {
        let says_none = meta(b"MA", MetaOp::Set(set(mode, None)));
        let says = meta(b"MA", MetaOp::Set(set(mode, ttl)));
        let part = batch(&[Command::Meta(&says_none)])
            .part(&[0], Some(&bound))
            .unwrap();
        same(&part, &batch(&[Command::Meta(&says)]));
    }
    // what changes no expiry stays
    for op in [
        MetaOp::Get(MetaGet::default()),
        MetaOp::Delete(MetaDelete::default()),
        MetaOp::Arith(MetaArith::default()),
    ] {
        let meta = meta(b"Tk", op);
        let all = batch(&[Command::Meta(&meta)]);
        same(&all.part(&[0], Some(&bound)).unwrap(), &all);
    }
}

#[test]
fn numbers_stay_as_they_were_written() {
    let store = |exptime| Command::Store {
        verb: Verb::Set,
        key: key(b"k"),
        flags: b"0",
        exptime,
        cas_unique: None,
        value: b"",
    };
    for (given, sent) in [
        (&b"+5"[..], &b"+5"[..]),
        (b"007", b"007"),
        (b"-1", b"-1"),
        (b"061", b"60"),
        (b"9223372036854775807", b"60"),
    ] {
        let bound = |number: i64| number.min(60);
        let part = batch(&[store(given)]).part(&[0], Some(&bound)).unwrap();
        same(&part, &batch(&[store(sent)]));
    }
}

#[test]
fn the_key_of_each() {
    forms(1, |commands| {
        let all = batch(commands);
        let keys: Vec<_> = all
            .keys()
            .map(|key| key.map_or("-", |key| std::str::from_utf8(key).unwrap()))
            .collect();
        let want = "get%200 many%201 gat%200 many%201 3600 decr touch - - - - - 3600%200 3600%200 \
                    3600%200 3600%200 3600%200 3600%200 mg%20k ms%20T0 ms%20R ms%20A ms%20P T0 N0";
        assert_eq!(keys.join(" "), want);
    });
}

#[test]
fn whose_keys_are_escaped() {
    forms(1, |commands| {
        for (command, key) in commands.iter().zip(batch(commands).keys()) {
            assert_eq!(command.escapes(), key.is_some(), "{command:?}");
        }
    });
    let raw = Key {
        escape: false,
        ..key(b"k")
    };
    let meta = Meta {
        key: raw,
        ..meta(b"k", MetaOp::Get(MetaGet::default()))
    };
    for command in [
        Command::Delete { key: raw },
        Command::GetMany {
            keys: &[raw],
            cas: false,
        },
        Command::Meta(&meta),
        Command::Quit,
    ] {
        assert!(!command.escapes(), "{command:?}");
    }
}

/// What a command of a random pipeline is made of.
#[derive(Clone, Debug)]
struct Made {
    form: usize,
    key: Vec<u8>,
    escape: bool,
    exptime: i32,
    value: Vec<u8>,
}

fn made() -> impl Strategy<Value = Made> {
    (
        0usize..12,
        "[ -~]{1,12}",
        any::<bool>(),
        prop_oneof![Just(0), -5i32..5_000_000],
        vec(prop_oneof![Just(b'\r'), Just(b'\n'), any::<u8>()], 0..40),
    )
        .prop_map(|(form, key, escape, exptime, value)| Made {
            form,
            key: match escape {
                true => key.into_bytes(),
                false => key.replace(' ', "T").into_bytes(),
            },
            escape,
            exptime,
            value,
        })
}

impl Made {
    /// Adds it to a batch; with another expiry.
    fn add(&self, batch: &mut Batch, bound: impl Fn(i64) -> i64) {
        let key = Key {
            bytes: &self.key,
            escape: self.escape,
        };
        let exptime = bound(self.exptime.into()).to_string();
        let number = self.exptime.to_string();
        let ttl = Some(bound(self.exptime.into()) as i32);
        let meta = |op| Meta {
            key,
            opaque: 5,
            op,
            bad: None,
        };
        let arg = Some(exptime.as_bytes());
        let store = |verb| Command::Store {
            verb,
            key,
            flags: b"5",
            exptime: exptime.as_bytes(),
            cas_unique: Some(b"17"),
            value: &self.value,
        };
        let given;
        let command = match self.form {
            0 => Command::Get { key, cas: true },
            1 => Command::Gat {
                exptime: arg,
                key,
                cas: false,
            },
            2 => Command::Touch { key, exptime: arg },
            3 => Command::Delete { key },
            4 => Command::Arith {
                op: Arith::Incr,
                key,
                delta: Some(number.trim_start_matches('-').as_bytes()),
            },
            5 => store(Verb::Set),
            6 => store(Verb::Cas),
            7 => Command::Stats { args: None },
            8 => {
                given = meta(MetaOp::Get(MetaGet {
                    vivify: ttl,
                    ttl: true,
                    ..MetaGet::default()
                }));
                Command::Meta(&given)
            }
            9 => {
                given = meta(MetaOp::Set(MetaSet {
                    value: &self.value,
                    ttl,
                    ..MetaSet::default()
                }));
                Command::Meta(&given)
            }
            10 => {
                given = meta(MetaOp::Delete(MetaDelete::default()));
                Command::Meta(&given)
            }
            _ => {
                given = meta(MetaOp::Arith(MetaArith {
                    vivify: ttl,
                    delta: Some(3),
                    ..MetaArith::default()
                }));
                Command::Meta(&given)
            }
        };
        batch.push(&command).unwrap();
    }
}

proptest! {
    #[test]
    fn parts_are_what_their_commands_are_alone(
        commands in vec((made(), option::of(0usize..4)), 0..24),
        limits in vec(option::of(0i64..100), 4),
    ) {
        let mut all = Batch::new();
        for (command, _) in &commands {
            command.add(&mut all, |exptime| exptime);
        }
        let scatter = Scatter::new(4, commands.iter().map(|(_, server)| *server)).unwrap();
        let mut replies = Gather::new(commands.len()).unwrap();
        for part in &scatter.parts {
            let limit = limits[part.peer];
            let bound = |exptime: i64| limit.map_or(exptime, |limit| exptime.min(limit));
            let batch = all.part(&part.places, limit.is_some().then_some(&bound)).unwrap();
            let mut alone = Batch::new();
            for place in &part.places {
                commands[*place].0.add(&mut alone, bound);
            }
            same(&batch, &alone);
            prop_assert_eq!(batch.len(), part.places.len());
            // the reply to each is its own text
            for (place, slot) in part.places.iter().zip(&batch.slots) {
                let mut own = Batch::new();
                commands[*place].0.add(&mut own, bound);
                let text = batch.text[slot.begin..].strip_prefix(&own.text[..]);
                replies.put(*place, text.map(|_| *place));
            }
        }
        replies.fill(&scatter.homeless, &None);
        prop_assert_eq!(replies.missing(), 0);
        for (place, reply) in replies.finish().into_iter().enumerate() {
            prop_assert_eq!(reply.flatten(), commands[place].1.map(|_| place));
        }
    }
}
