//! Any bytes as the replies to any commands, in any reads: the pipeline comes to the same as a
//! parser that has them at once.
//!
//! Input: a byte for the limits; the number of commands and a byte for each; the number of read
//! sizes and a byte for each, used again and again; the stream.

use ngx_http_lua_memcached_module::protocol::{
    Arith, Command, Digits, Hit as OurHit, Key, Limits as OurLimits, Meta, MetaArith, MetaDelete,
    MetaGet, MetaItem, MetaOp, MetaSet, Pipeline, ReadBuf, Reply, Server, Verb, Version,
};

use std::sync::LazyLock;

use crate::input::Input;
use crate::meta;
use crate::replies::{Asked, ERRORS, Hit, InStep, Limits, Seen, StatsKind, begins_end, parse};

const SERVER_ERROR: &[&str] = &["SERVER_ERROR"];

fn key(bytes: &[u8]) -> Key<'_> {
    Key {
        bytes,
        escape: true,
    }
}

/// A command of each kind, with every form a reply may have.
fn command(n: usize) -> (Command<'static>, Asked) {
    static MANY: [Key<'static>; 4] = [
        Key {
            bytes: b"a",
            escape: true,
        },
        Key {
            bytes: b"b c",
            escape: true,
        },
        Key {
            bytes: b"",
            escape: true,
        },
        Key {
            bytes: b"dd",
            escape: false,
        },
    ];
    static TWICE: [Key<'static>; 3] = [MANY[0], MANY[0], MANY[3]];
    let get = |cas| {
        let (key, sent) = (key(b"a"), b"a".to_vec());
        (Command::Get { key, cas }, Asked::Get { key: sent, cas })
    };
    let many = |keys, sent: &[&str], cas| {
        let sent = sent.iter().map(|key| key.as_bytes().to_vec()).collect();
        let asked = Asked::GetMany { keys: sent, cas };
        (Command::GetMany { keys, cas }, asked)
    };
    let store = |verb, known| {
        let command = Command::Store {
            verb,
            key: key(b"a"),
            flags: b"0",
            exptime: b"0",
            cas_unique: Some(b"1"),
            value: b"v",
        };
        (command, plain(&["STORED"], known, SERVER_ERROR))
    };
    fn plain(
        done: &'static [&'static str],
        known: &'static [&'static str],
        errors: &'static [&'static str],
    ) -> Asked {
        Asked::Plain {
            done,
            known,
            errors,
        }
    }
    let stats = |args, kind| (Command::Stats { args }, Asked::Stats { kind });
    let one = Some(&b"1"[..]);
    let not_found: &[&str] = &["NOT_FOUND"];
    match n {
        0 => get(false),
        1 => get(true),
        2 => many(&MANY, &["a", "b%20c", "dd"], false),
        3 => many(&MANY, &["a", "b%20c", "dd"], true),
        4 => many(&TWICE, &["a", "a", "dd"], false),
        5 => store(Verb::Set, &["NOT_STORED"]),
        6 => store(Verb::Cas, &["NOT_STORED", "EXISTS", "NOT_FOUND"]),
        7 => (
            Command::Delete { key: key(b"a") },
            plain(&["DELETED"], not_found, ERRORS),
        ),
        8 => {
            let (op, key) = (Arith::Decr, key(b"a"));
            (
                Command::Arith {
                    op,
                    key,
                    delta: one,
                },
                Asked::Number,
            )
        }
        9 => {
            let (key, exptime) = (key(b"a"), one);
            let asked = plain(&["TOUCHED", "STORED"], not_found, ERRORS);
            (Command::Touch { key, exptime }, asked)
        }
        10 => (
            Command::FlushAll { delay: None },
            plain(&["OK"], &[], ERRORS),
        ),
        11 => (
            Command::Verbosity { level: one },
            plain(&["OK"], &[], ERRORS),
        ),
        12 => stats(None, StatsKind::General),
        13 => stats(Some(b"items"), StatsKind::Special),
        14 => stats(Some(b"sizes_enable"), StatsKind::SizesSwitch),
        16 => {
            let (key, exptime, cas) = (key(b"a"), one, true);
            let asked = Asked::Get {
                key: b"a".to_vec(),
                cas,
            };
            (Command::Gat { key, exptime, cas }, asked)
        }
        17 => {
            let (keys, exptime, cas) = (&MANY, one, false);
            let sent = ["a", "b%20c", "dd"].map(|key| key.as_bytes().to_vec());
            let asked = Asked::GetMany {
                keys: sent.to_vec(),
                cas,
            };
            (Command::GatMany { keys, exptime, cas }, asked)
        }
        18..=23 => meta_command(n - 18),
        24 => (Command::MetaNoop, Asked::MetaNoop),
        _ => (Command::Version, Asked::Version),
    }
}

/// A meta command of each kind. Its opaque is its number.
fn meta_command(n: usize) -> (Command<'static>, Asked) {
    static ALL: LazyLock<Vec<(Meta<'static>, meta::Asked)>> = LazyLock::new(|| {
        let all = MetaGet {
            flags: true,
            cas: true,
            ttl: true,
            size: true,
            hit: true,
            last_access: true,
            ..MetaGet::default()
        };
        let if_changed = MetaGet {
            if_changed: Some(1),
            ..MetaGet::default()
        };
        let head = MetaGet {
            value: false,
            ttl: true,
            ..MetaGet::default()
        };
        let set = MetaSet {
            return_cas: true,
            return_size: true,
            ..MetaSet::default()
        };
        let arith = MetaArith {
            return_ttl: true,
            ..MetaArith::default()
        };
        let meta = |opaque, op| Meta {
            key: key(b"a"),
            opaque,
            op,
            bad: None,
        };
        let asked = |verb, opaque, value, if_changed, fields| meta::Asked {
            verb,
            opaque,
            value,
            if_changed,
            fields,
        };
        vec![
            (
                meta(0, MetaOp::Get(all)),
                asked("mg", "O00000000", true, false, "fctshl"),
            ),
            (
                meta(1, MetaOp::Get(if_changed)),
                asked("mg", "O00000001", true, true, ""),
            ),
            (
                meta(2, MetaOp::Get(head)),
                asked("mg", "O00000002", false, false, "t"),
            ),
            (
                meta(3, MetaOp::Set(set)),
                asked("ms", "O00000003", false, false, "cs"),
            ),
            (
                meta(4, MetaOp::Delete(MetaDelete::default())),
                asked("md", "O00000004", false, false, ""),
            ),
            (
                meta(5, MetaOp::Arith(arith)),
                asked("ma", "O00000005", true, false, "t"),
            ),
        ]
    });
    let (meta, asked) = &ALL[n];
    (Command::Meta(meta), Asked::Meta(asked.clone()))
}

/// An item's fields, sorted, and its value.
fn seen_item(item: MetaItem) -> Seen {
    let text = |letter: &str, digits: Option<Digits>| {
        digits.map(|digits| format!("{letter}{}", String::from_utf8_lossy(digits.as_bytes())))
    };
    let yes = |letter: &str, yes: bool| yes.then(|| letter.to_owned());
    let fields = [
        text("f", item.flags),
        text("c", item.cas),
        item.ttl.map(|ttl| format!("t{ttl}")),
        item.size.map(|size| format!("s{size}")),
        item.hit.map(|hit| format!("h{}", u8::from(hit))),
        item.last_access.map(|age| format!("l{age}")),
        yes("W", item.won),
        yes("X", item.stale),
        yes("Z", item.lost),
    ];
    let mut fields: Vec<_> = fields.into_iter().flatten().collect();
    fields.sort();
    Seen::Item(fields, item.value)
}

/// How many there are of [`command`].
const COMMANDS: usize = 25;

/// The module's reply in the parser's terms.
pub fn seen(reply: Reply) -> Seen {
    let text = |digits: Digits| digits.as_bytes().to_vec();
    match reply {
        Reply::Value(value) => Seen::Value(Hit {
            key: Vec::new(),
            data: value.data,
            flags: text(value.flags),
            cas: value.cas.map(text),
        }),
        Reply::Miss => Seen::Miss,
        Reply::Values(values) => Seen::Values(
            values
                .iter()
                .map(|hit: OurHit<'_>| Hit {
                    key: hit.key.to_vec(),
                    data: hit.data.to_vec(),
                    flags: hit.flags.to_vec(),
                    cas: hit.cas.map(<[u8]>::to_vec),
                })
                .collect(),
        ),
        Reply::Done => Seen::Done,
        Reply::Number(number) => Seen::Number(text(number)),
        Reply::Meta(item) => seen_item(*item),
        Reply::Version(version) => Seen::Version(version),
        Reply::Stats(lines) => Seen::Stats(lines),
        Reply::Line(line) => Seen::Line(line),
        Reply::Malformed(what) => Seen::Bad(what.to_string()),
    }
}

#[derive(PartialEq, Debug)]
struct Outcome {
    replies: Vec<(usize, Seen)>,
    broken: bool,
    in_flight: usize,
    /// A part of the next reply is there.
    amid: bool,
    /// Where nothing is in flight: what came unasked.
    rest: Vec<u8>,
}

/// `reads`: where in the stream they ended.
fn expected(asked: &[Asked], stream: &[u8], reads: &[usize], limits: Limits) -> Outcome {
    let mut replies = Vec::new();
    let mut at = 0;
    let mut broken = false;
    for (tag, asked) in asked.iter().enumerate() {
        let Some(parsed) = parse(asked, &stream[at..], limits) else {
            break;
        };
        at += parsed.len;
        broken = match parsed.in_step {
            InStep::Yes => false,
            InStep::No => true,
            InStep::UnlessEnd => {
                let came = reads.iter().find(|read| **read >= at);
                begins_end(&stream[at..came.copied().unwrap_or(at)])
            }
        };
        // a key is reported where there may be several
        let seen = match parsed.seen {
            Seen::Value(hit) => Seen::Value(Hit {
                key: Vec::new(),
                ..hit
            }),
            seen => seen,
        };
        replies.push((tag, seen));
        if broken {
            break;
        }
    }
    let in_flight = asked.len() - replies.len();
    let idle = in_flight == 0 && !broken;
    Outcome {
        replies,
        broken,
        in_flight,
        amid: !broken && at < stream.len(),
        rest: if idle { stream[at..].to_vec() } else { vec![] },
    }
}

/// Appends received bytes as a socket would, to a buffer of at most so much memory; how many.
pub fn receive<T: Copy>(pipeline: &mut Pipeline<T>, bytes: &[u8], most: usize) -> usize {
    let ReadBuf { buf, max } = pipeline.read_buf();
    assert!(max > 0, "there is memory");
    assert!(buf.capacity() - buf.len() >= max, "the room was made");
    assert!(buf.capacity() <= most, "memory without bound");
    let n = bytes.len().min(max);
    buf.extend_from_slice(&bytes[..n]);
    n
}

fn decoded(
    commands: &[Command<'_>],
    mut stream: &[u8],
    reads: &[usize],
    limits: Limits,
) -> (Outcome, Vec<usize>) {
    let mut pipeline = Pipeline::new(OurLimits {
        max_line: limits.line,
        max_value: limits.value,
    });
    pipeline.assume(Server::Memcached(Version::new(1, 6, 45)));
    for (tag, command) in commands.iter().enumerate() {
        assert!(pipeline.submit(tag, command).is_ok());
    }
    let n = pipeline.unsent().len();
    pipeline.sent(n);

    // Values of a list lie in one buffer, which grows by doubling.
    let most = 4 * 2 * (limits.value + 1024) + 64 * 1024;
    let mut replies = Vec::new();
    let mut sizes = reads.iter().cycle();
    let (len, mut ends) = (stream.len(), Vec::new());
    // nobody reads on when something came unasked
    let ended = |pipeline: &Pipeline<usize>| {
        pipeline.is_broken() || pipeline.in_flight() == 0 && !pipeline.buffered().is_empty()
    };
    while !stream.is_empty() && !ended(&pipeline) {
        let size = sizes.next().map_or(usize::MAX, |size| size + 1);
        let n = receive(&mut pipeline, &stream[..size.min(stream.len())], most);
        stream = &stream[n..];
        ends.push(len - stream.len());
        while let Some((tag, reply)) = pipeline.next_reply() {
            replies.push((tag, seen(reply)));
        }
    }
    let (broken, in_flight) = (pipeline.is_broken(), pipeline.in_flight());
    let idle = in_flight == 0 && !broken;
    let quiet = idle && pipeline.buffered().is_empty();
    assert_eq!(pipeline.is_quiet(), quiet);
    let outcome = Outcome {
        replies,
        broken,
        in_flight,
        amid: !broken && pipeline.is_amid_reply(),
        rest: if idle {
            pipeline.buffered().to_vec()
        } else {
            vec![]
        },
    };
    (outcome, ends)
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let limits = input.byte();
    let limits = Limits {
        line: [40, 300, 2048][usize::from(limits) % 3],
        value: [100, 8192, 30_000][usize::from(limits / 3) % 3],
    };
    let n = 1 + input.below(6);
    let (commands, asked): (Vec<_>, Vec<_>) =
        (0..n).map(|_| command(input.below(COMMANDS))).unzip();
    let n = input.below(8);
    let reads: Vec<usize> = (0..n).map(|_| input.size()).collect();
    let stream = input.stream();
    let (got, ends) = decoded(&commands, &stream, &reads, limits);
    let mut want = expected(&asked, &stream, &ends, limits);
    assert_eq!(got.rest.is_empty(), want.rest.is_empty());
    want.rest.truncate(got.rest.len());
    assert_eq!(got, want);
}
