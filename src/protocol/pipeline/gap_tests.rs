//! Exchanges that are withdrawn before they are sent, and those that another connection adopts.

use super::tests::{LIMITS, get, hit, read, send_all, set};
use super::*;
use crate::protocol::{Key, KeyList};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

fn list(keys: KeyList<'_>) -> Command<'_> {
    Command::GetMany { keys, cas: true }
}

const KEYS: [Key<'_>; 2] = [
    Key {
        bytes: b"a b",
        escape: true,
    },
    Key {
        bytes: b"c",
        escape: true,
    },
];

#[test]
fn what_is_withdrawn_is_not_sent() {
    let mut pipeline = Pipeline::new(LIMITS);
    for tag in 0..5 {
        assert!(pipeline.submit(tag, &get(&format!("k{tag}"))).is_ok());
    }
    pipeline.sent(8 + 3);
    // the first is sent, the second in part
    assert!(!pipeline.withdraw(0) && !pipeline.withdraw(1));
    assert!(pipeline.withdraw(3));
    assert!(!pipeline.withdraw(3) && !pipeline.withdraw(5));
    assert_eq!(pipeline.in_flight(), 4);
    assert_eq!(pipeline.tags().collect::<Vec<_>>(), [0, 1, 2, 4]);
    // nobody sends it, whatever he does not know of
    assert_eq!(pipeline.unsent(), b" k1\r\nget k2\r\n");
    pipeline.close_gaps();
    assert_eq!(pipeline.unsent(), b" k1\r\nget k2\r\nget k4\r\n");
    assert_eq!(pipeline.single_get(4), Some((&b"k4"[..], false)));
    assert_eq!(pipeline.single_get(3), None);
    send_all(&mut pipeline);
    for tag in [0, 1, 2, 4] {
        assert_eq!(pipeline.oldest(), tag);
        read(
            &mut pipeline,
            format!("VALUE k{tag} 0 1\r\nx\r\nEND\r\n").as_bytes(),
        );
        assert_eq!(pipeline.next_reply(), Some((tag, hit(b"x"))));
    }
    assert!(pipeline.is_quiet());
    assert!(pipeline.submit(5, &get("k5")).is_ok());
    assert_eq!(pipeline.newest(), Some(5));
}

#[test]
fn a_gap_that_nobody_closed_is_closed_when_it_is_reached() {
    let mut pipeline = Pipeline::new(LIMITS);
    for tag in 0..5 {
        assert!(pipeline.submit(tag, &get(&format!("k{tag}"))).is_ok());
    }
    assert!(pipeline.withdraw(2));
    assert_eq!(send_all(&mut pipeline), b"get k0\r\nget k1\r\n");
    assert_eq!(pipeline.unsent(), b"get k3\r\nget k4\r\n");
}

#[test]
fn numbers_are_not_given_twice() {
    let mut pipeline = Pipeline::new(LIMITS);
    for tag in 0..3 {
        assert!(pipeline.submit(tag, &get("k")).is_ok());
    }
    for number in [2, 1, 0] {
        assert!(pipeline.withdraw(number));
    }
    assert!(pipeline.is_quiet() && pipeline.unsent().is_empty());
    assert_eq!((pipeline.oldest(), pipeline.newest()), (3, None));
    assert!(pipeline.submit(3, &get("k")).is_ok());
    assert_eq!((pipeline.oldest(), pipeline.newest()), (3, Some(3)));
    assert_eq!(pipeline.unsent(), b"get k\r\n");
    // but one that nobody knows of yet is
    pipeline.take_back();
    assert!(pipeline.submit(4, &get("k")).is_ok());
    assert_eq!(pipeline.newest(), Some(3));
}

#[test]
fn a_gap_behind_a_command_that_was_answered_early() {
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.submit(0, &set(&[b'x'; 100])).is_ok());
    for tag in 1..4 {
        assert!(pipeline.submit(tag, &get(&format!("k{tag}"))).is_ok());
    }
    pipeline.sent(50);
    assert!(pipeline.withdraw(1));
    read(&mut pipeline, b"SERVER_ERROR too large\r\n");
    assert!(matches!(pipeline.next_reply(), Some((0, Reply::Line(_)))));
    assert_eq!((pipeline.oldest(), pipeline.in_flight()), (2, 2));
    let rest = pipeline.unsent();
    assert!(rest.starts_with(b"xxx") && rest.ends_with(b"x\r\nget k2\r\nget k3\r\n"));
    assert_eq!(rest.len(), "set k 0 0 100\r\n\r\n".len() + 100 - 50 + 16);
}

#[test]
fn a_gap_before_what_is_taken_back_goes_too() {
    let mut pipeline = Pipeline::new(LIMITS);
    for name in ["a", "b", "c"] {
        assert!(pipeline.submit((), &get(name)).is_ok());
    }
    assert!(pipeline.withdraw(1));
    assert_eq!((pipeline.gaps.count, pipeline.newest()), (1, Some(2)));
    pipeline.take_back();
    assert_eq!((pipeline.gaps.count, pipeline.newest()), (0, Some(0)));
    assert_eq!(pipeline.unsent(), b"get a\r\n");
}

#[test]
fn gaps_are_closed_when_they_are_more_than_half() {
    let gaps = |commands: &[Command<'_>], sent: usize, withdrawn: &[u64]| {
        let mut pipeline = Pipeline::new(LIMITS);
        for command in commands {
            assert!(pipeline.submit((), command).is_ok());
        }
        pipeline.sent(sent);
        for number in withdrawn {
            assert!(pipeline.withdraw(*number));
        }
        (pipeline.gaps.count, pipeline.gaps.size)
    };
    let (k, big) = (get("k"), [b'x'; 100]);
    let big = set(&big);
    // half of the exchanges, and of the bytes
    assert_eq!(gaps(&[k, k, k, k], 0, &[1, 2]), (2, 14));
    // more of the exchanges
    assert_eq!(gaps(&[big, k, k, k, big], 0, &[1, 2]), (2, 14));
    assert_eq!(gaps(&[big, k, k, k, big], 0, &[1, 2, 3]), (0, 0));
    // more of the bytes
    assert_eq!(gaps(&[k, big, k, k], 0, &[1]), (0, 0));
    // of those that are still to be sent
    let (longer, long) = (get("kkkkkkkkk"), get("kkkkkkkk"));
    assert_eq!(gaps(&[big, k, longer, k], 117, &[2]), (0, 0));
    assert_eq!(gaps(&[big, k, long, k], 117, &[2]), (1, 14));
}

#[test]
fn thousands_are_withdrawn_in_little_time() {
    const MANY: u64 = 50_000;
    let orders: [fn(u64) -> u64; 4] = [
        |n| n,
        |n| MANY - 1 - n,
        // from both ends, and here and there
        |n| if n % 2 == 0 { n / 2 } else { MANY - 1 - n / 2 },
        |n| n * 77_773 % MANY,
    ];
    for order in orders {
        let mut pipeline = Pipeline::new(LIMITS);
        assert!(pipeline.submit(0, &get("first")).is_ok());
        pipeline.sent(3);
        for tag in 0..MANY {
            assert!(pipeline.submit(tag, &get("k")).is_ok());
        }
        for n in 0..MANY {
            assert!(pipeline.withdraw(1 + order(n)));
            assert_eq!(pipeline.in_flight() as u64, MANY - n);
        }
        assert_eq!(pipeline.unsent(), b" first\r\n");
    }
}

#[test]
fn lists_in_flight_are_known() {
    let mut pipeline = Pipeline::new(LIMITS);
    assert!(pipeline.submit(0, &list(&KEYS[..1])).is_ok());
    assert_eq!(pipeline.lists(), 0);
    for tag in 1..5 {
        assert!(pipeline.submit(tag, &list(&KEYS)).is_ok());
    }
    let lists = |pipeline: &Pipeline<u64>| pipeline.exchanges().filter(|e| e.is_list).count();
    assert_eq!((pipeline.lists(), lists(&pipeline)), (4, 4));
    pipeline.take_back();
    assert!(pipeline.withdraw(2));
    assert_eq!(lists(&pipeline), 2);
    pipeline.close_gaps();
    send_all(&mut pipeline);
    read(&mut pipeline, b"END\r\nEND\r\n");
    while pipeline.next_reply().is_some() {}
    assert_eq!(pipeline.lists(), 1);
    read(&mut pipeline, b"END\r\n");
    assert!(pipeline.next_reply().is_some());
    assert_eq!(pipeline.lists(), 0);

    assert!(pipeline.submit(9, &list(&KEYS)).is_ok());
    pipeline.drop_in_flight();
    assert_eq!(pipeline.lists(), 0);
}

/// Of the exchanges in flight: whether something was sent, and whether they can be asked again.
fn stages(pipeline: &Pipeline<u64>) -> Vec<(bool, bool)> {
    let exchanges = pipeline.exchanges();
    exchanges.map(|e| (e.begun, e.repeatable)).collect()
}

#[test]
fn a_read_of_which_nothing_came_can_be_asked_again() {
    const UNSENT: (bool, bool) = (false, true);
    const ASKED: (bool, bool) = (true, true);
    const BEGUN: (bool, bool) = (true, false);
    let mut pipeline = Pipeline::new(LIMITS);
    for (tag, command) in [get("k"), list(&KEYS), set(b"v"), get("l"), get("m")]
        .iter()
        .enumerate()
    {
        assert!(pipeline.submit(tag as u64, command).is_ok());
    }
    let set = (false, false);
    assert_eq!(stages(&pipeline), [UNSENT, UNSENT, set, UNSENT, UNSENT]);
    pipeline.sent(1);
    assert_eq!(stages(&pipeline)[..2], [ASKED, UNSENT]);
    pipeline.sent(pipeline.unsent().len() - "m\r\n".len());
    assert_eq!(stages(&pipeline), [ASKED, ASKED, BEGUN, ASKED, ASKED]);
    let pending = |pipeline: &Pipeline<u64>| pipeline.still_to_send().collect::<Vec<_>>();
    assert_eq!(pending(&pipeline), [(4, 4)]);
    send_all(&mut pipeline);
    assert_eq!(pending(&pipeline), []);

    read(&mut pipeline, b"E");
    assert_eq!(pipeline.next_reply(), None);
    assert_eq!(stages(&pipeline), [BEGUN, ASKED, BEGUN, ASKED, ASKED]);
    read(&mut pipeline, b"ND\r\nVALUE a%20b 0 1 7\r\nx\r\n");
    assert!(pipeline.next_reply().is_some());
    assert_eq!(pipeline.next_reply(), None);
    assert_eq!(stages(&pipeline), [BEGUN, BEGUN, ASKED, ASKED]);
    // out of step: what comes is no part of anybody's reply
    read(&mut pipeline, b"ERROR\r\nSTORED\r\nEND\r\n");
    assert!(pipeline.next_reply().is_some());
    assert!(pipeline.is_broken());
    assert_eq!(stages(&pipeline), [BEGUN, ASKED, ASKED]);
}

#[test]
fn another_connection_adopts_what_was_not_sent_and_what_only_reads() {
    for sent in [0, 3, usize::MAX] {
        let mut old = Pipeline::new(LIMITS);
        for (tag, command) in [get("first"), get("a b"), set(b"value"), list(&KEYS)]
            .iter()
            .enumerate()
        {
            assert!(old.submit(tag as u64, command).is_ok());
        }
        old.sent("get first\r\n".len());
        read(&mut old, b"END\r\n");
        assert!(old.next_reply().is_some());
        old.sent(sent);
        assert!(!old.withdraw(7));
        let mut new = Pipeline::new(LIMITS);
        assert!(new.submit(9, &get("own")).is_ok());
        let adopted = [3, 2, 1, 0].map(|number| new.adopt(number, &old, number));
        let wanted = match sent {
            usize::MAX => [Some(1), None, Some(2), None],
            _ => [Some(1), Some(2), Some(3), None],
        };
        assert_eq!(adopted, wanted);
        let text: &[u8] = match sent {
            usize::MAX => b"get own\r\ngets a%20b c\r\nget a%20b\r\n",
            _ => b"get own\r\ngets a%20b c\r\nset k 0 0 5\r\nvalue\r\nget a%20b\r\n",
        };
        assert_eq!(send_all(&mut new), text);
        read(&mut new, b"END\r\nVALUE c 0 1 5\r\nx\r\nEND\r\n");
        assert_eq!(new.next_reply().map(|got| got.0), Some(9));
        let Some((3, Reply::Values(values))) = new.next_reply() else {
            panic!("no values");
        };
        assert_eq!(values.iter().next().unwrap().key, b"c");
        if sent != usize::MAX {
            read(&mut new, b"STORED\r\n");
            assert_eq!(new.next_reply(), Some((2, Reply::Done)));
        }
        read(&mut new, b"VALUE a%20b 0 1\r\nx\r\nEND\r\n");
        assert_eq!(new.next_reply(), Some((1, hit(b"x"))));
        assert!(new.is_quiet());
        // it is still where it was
        assert_eq!(old.in_flight(), 3);
    }
}

/// A command of the model.
#[derive(Clone)]
struct Asked {
    number: u64,
    tag: u64,
    text: Vec<u8>,
    sent: usize,
    kind: usize,
}

#[derive(Default)]
struct Model {
    /// In flight, and what is left to send of those that were answered early.
    flights: Vec<Asked>,
    next: u64,
    answered_early: Vec<u8>,
}

impl Model {
    fn rest(&self) -> Vec<u8> {
        let mut rest = self.answered_early.clone();
        for asked in &self.flights {
            rest.extend_from_slice(&asked.text[asked.sent..]);
        }
        rest
    }

    fn note_sent(&mut self, mut n: usize) {
        let early = n.min(self.answered_early.len());
        self.answered_early.drain(..early);
        n -= early;
        for asked in &mut self.flights {
            let part = n.min(asked.text.len() - asked.sent);
            asked.sent += part;
            n -= part;
        }
    }

    fn check(&self, pipeline: &Pipeline<u64>) {
        let live = &self.flights;
        let numbers: Vec<u64> = live.iter().map(|asked| asked.number).collect();
        let found: Vec<(u64, u64)> = pipeline.exchanges().map(|e| (e.number, e.tag)).collect();
        assert_eq!(
            found,
            live.iter().map(|a| (a.number, a.tag)).collect::<Vec<_>>()
        );
        assert_eq!(pipeline.in_flight(), live.len());
        assert_eq!(
            pipeline.oldest(),
            numbers.first().copied().unwrap_or(self.next)
        );
        assert_eq!(pipeline.newest(), numbers.last().copied());
        assert_eq!(pipeline.unsent_len(), self.rest().len());
        let lists = live.iter().filter(|asked| asked.kind == 2);
        assert_eq!(pipeline.lists(), lists.count());
        assert!(self.rest().starts_with(pipeline.unsent()));
        let early = self.answered_early.is_empty();
        for asked in live {
            let whole = asked.sent == asked.text.len();
            assert_eq!(pipeline.is_sent(asked.number), whole && early);
            assert_eq!(pipeline.has_begun(asked.number), asked.sent > 0);
            let key = (asked.kind == 0).then(|| &asked.text[4..asked.text.len() - 2]);
            assert_eq!(
                pipeline.single_get(asked.number),
                key.map(|key| (key, false))
            );
        }
        let unsent = live.iter().find(|asked| asked.sent < asked.text.len());
        if let Some(first) = unsent.filter(|_| early) {
            assert_eq!(pipeline.first_unsent(), first.number);
        }
        for (at, asked) in live.iter().enumerate() {
            let mut before = self.answered_early.clone();
            let texts = live.iter().take(at).map(|asked| &asked.text[asked.sent..]);
            before.extend(texts.flatten());
            before.truncate(pipeline.unsent().len());
            assert_eq!(pipeline.unsent_before(asked.number), before);
        }
        assert_eq!(pipeline.unsent_before(self.next), pipeline.unsent());
        let unsent = live.iter().filter(|asked| asked.sent < asked.text.len());
        let unsent: Vec<(u64, u64)> = unsent.map(|a| (a.number, a.tag)).collect();
        assert_eq!(pipeline.still_to_send().collect::<Vec<_>>(), unsent);
    }
}

type Steps = Vec<(u8, prop::sample::Index)>;

fn steps() -> impl Strategy<Value = Steps> {
    vec((0u8..16, any::<prop::sample::Index>()), 1..200)
}

/// Whatever is withdrawn when: all others are sent once, whole and in order; of what was withdrawn
/// nothing is; replies are those of the exchanges that were sent.
fn agrees_with_the_model(steps: Steps) -> Result<(), TestCaseError> {
    let mut pipeline = Pipeline::new(LIMITS);
    let mut model = Model::default();
    for (step, index) in steps {
        let tag = model.next;
        let name = format!("k{tag}");
        match step {
            0..5 => {
                let kind = usize::from(step) % 3;
                let keys = [
                    Key {
                        bytes: name.as_bytes(),
                        escape: true,
                    },
                    KEYS[1],
                ];
                let value = vec![b'v'; index.index(40)];
                let command = match kind {
                    0 => get(&name),
                    1 => set(&value),
                    _ => Command::GetMany {
                        keys: &keys,
                        cas: false,
                    },
                };
                let mut text = Vec::new();
                encode(&command, &mut text).unwrap();
                pipeline.submit(tag, &command).unwrap();
                model.flights.push(Asked {
                    number: tag,
                    tag,
                    text,
                    sent: 0,
                    kind,
                });
                model.next += 1;
                if step == 4 && index.index(2) == 0 {
                    pipeline.take_back();
                    model.flights.pop();
                    model.next -= 1;
                }
            }
            5..8 => {
                let most = pipeline.unsent().len();
                let n = if step == 7 {
                    most
                } else {
                    index.index(most + 1)
                };
                pipeline.sent(n);
                model.note_sent(n);
            }
            8..12 => {
                let numbers = model.flights.first().map_or(0, |first| first.number)..=model.next;
                let all: Vec<u64> = numbers.collect();
                let number = all[index.index(all.len())];
                let at = model
                    .flights
                    .iter()
                    .position(|a| a.number == number && a.sent == 0);
                prop_assert_eq!(pipeline.withdraw(number), at.is_some());
                if let Some(at) = at {
                    model.flights.remove(at);
                }
            }
            12 => {
                pipeline.close_gaps();
                prop_assert_eq!(pipeline.unsent(), model.rest());
            }
            13..15 => {
                let Some(first) = model.flights.first() else {
                    continue;
                };
                // a reply before any of the key was sent is none
                let early = first.kind == 1 && first.sent > 4 && model.answered_early.is_empty();
                if first.sent < first.text.len() && !early {
                    continue;
                }
                let answer: &[u8] = if first.kind == 1 {
                    b"SERVER_ERROR x\r\n"
                } else {
                    b"END\r\n"
                };
                read(&mut pipeline, answer);
                let got = pipeline.next_reply();
                prop_assert_eq!(got.map(|got| got.0), Some(first.tag));
                prop_assert!(!pipeline.is_broken());
                let first = model.flights.remove(0);
                model
                    .answered_early
                    .extend_from_slice(&first.text[first.sent..]);
            }
            _ => pipeline.trim(),
        }
        model.check(&pipeline);
    }
    pipeline.close_gaps();
    prop_assert_eq!(pipeline.unsent(), model.rest());
    Ok(())
}

proptest! {
    #[test]
    fn agrees_with_a_model(steps in steps()) {
        agrees_with_the_model(steps)?;
    }
}

/// With cases that are the same each time, because `scripts/mutants` leaves out those by chance.
#[test]
fn agrees_with_a_model_in_fixed_cases() {
    let config = Config {
        cases: 100,
        failure_persistence: None,
        ..Config::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    runner.run(&steps(), agrees_with_the_model).unwrap();
}
