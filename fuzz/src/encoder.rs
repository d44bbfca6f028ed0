//! Any keys and arguments: memcached reads what was sent as the commands that were meant, one for
//! one, and nothing that it would take as such is refused without a reason.
//!
//! Input: the number of commands; for each a byte for the way it is submitted, one for the command,
//! and its keys and arguments.

use ngx_http_lua_memcached_module::protocol::{
    Arith, Batch, Command, Key, Limits, Meta, Pipeline, Refused, Server, VALUE_END, Verb, Version,
    unescape_into,
};

use crate::input::{Input, lua_number};
use crate::meta;
use crate::requests::{Read, Request, read};

pub const LIMITS: Limits = Limits {
    max_line: 2048,
    max_value: 1 << 20,
};

/// From here on a value is not copied into the out buffer.
const LARGE: usize = 9000;

const VERBS: [(Verb, &str); 6] = [
    (Verb::Set, "set"),
    (Verb::Add, "add"),
    (Verb::Replace, "replace"),
    (Verb::Append, "append"),
    (Verb::Prepend, "prepend"),
    (Verb::Cas, "cas"),
];

/// A command as a user calls it.
pub struct Call {
    kind: usize,
    pub meta: Option<meta::Call>,
    cas: bool,
    pub keys: Vec<(Vec<u8>, bool)>,
    args: [Option<Vec<u8>>; 3],
    value: Vec<u8>,
}

/// An argument of any type that Lua makes a text of.
fn arg(input: &mut Input<'_>) -> Option<Vec<u8>> {
    match input.below(8) {
        0 => None,
        1 => {
            let bits = std::array::from_fn(|_| input.byte());
            Some(lua_number(f64::from_le_bytes(bits)).into())
        }
        2 => {
            let bits = std::array::from_fn(|_| input.byte());
            Some(i64::from_le_bytes(bits).to_string().into())
        }
        3 => Some(usize::from(input.byte()).to_string().into()),
        _ => Some(input.text()),
    }
}

impl Call {
    pub fn read(input: &mut Input<'_>) -> Self {
        let kind = input.below(22);
        let many = if let 1 | 17 = kind {
            1 + input.below(8)
        } else {
            1
        };
        let has_key = !matches!(kind, 11..=15);
        let mut keys: Vec<_> = (0..if has_key { many } else { 0 })
            .map(|_| (input.flag(), input.text()))
            .map(|(escape, bytes)| (bytes, escape))
            .collect();
        let short = keys.iter().all(|(bytes, _)| bytes.len() < 100);
        if matches!(kind, 1 | 17) && input.below(32) == 31 && short {
            // a list that is longer than other lines may be
            keys = std::iter::repeat_n(keys, 100).flatten().collect();
        }
        let cas = matches!(kind, 0 | 1 | 16 | 17) && input.flag();
        let mut args = [None, None, None];
        let count = match kind {
            3..=5 | 11 | 12 | 13 | 16 | 17 => 1,
            6..=10 => 3,
            _ => 0,
        };
        for slot in args.iter_mut().take(count) {
            *slot = arg(input);
        }
        let mut value = Vec::new();
        if let 6..=10 = kind {
            let large = input.below(8) == 7;
            value = input.text();
            if large && !value.is_empty() {
                value = value.repeat(LARGE / value.len() + 1);
            }
        }
        let meta = (kind > 17).then(|| meta::Call::read(input, kind - 18));
        Call {
            kind,
            meta,
            cas,
            keys,
            args,
            value,
        }
    }

    pub fn keys(&self) -> Vec<Key<'_>> {
        self.keys
            .iter()
            .map(|(bytes, escape)| Key {
                bytes,
                escape: *escape,
            })
            .collect()
    }

    /// The verb of a storage command.
    fn verb(&self) -> (Verb, &'static str) {
        VERBS[match self.kind {
            // more often than the others
            6 => 5,
            kind => (kind - 7 + usize::from(self.cas)) % 6,
        }]
    }

    pub fn command<'a>(&'a self, keys: &'a [Key<'a>], meta: Option<&'a Meta<'a>>) -> Command<'a> {
        if let Some(meta) = meta {
            return Command::Meta(meta);
        }
        let [a, b, c] = self.args.each_ref().map(Option::as_deref);
        let cas = self.cas;
        match (self.kind, keys) {
            (0, [key]) => Command::Get { key: *key, cas },
            (1, keys) => Command::GetMany { keys, cas },
            (2, [key]) => Command::Delete { key: *key },
            (3, [key]) => Command::Arith {
                op: Arith::Incr,
                key: *key,
                delta: a,
            },
            (4, [key]) => Command::Arith {
                op: Arith::Decr,
                key: *key,
                delta: a,
            },
            (5, [key]) => Command::Touch {
                key: *key,
                exptime: a,
            },
            (6..=10, [key]) => Command::Store {
                verb: self.verb().0,
                key: *key,
                flags: a.unwrap_or_default(),
                exptime: b.unwrap_or_default(),
                cas_unique: c,
                value: &self.value,
            },
            (16, [key]) => Command::Gat {
                exptime: a,
                key: *key,
                cas,
            },
            (17, keys) => Command::GatMany {
                exptime: a,
                keys,
                cas,
            },
            (11, _) => Command::FlushAll { delay: a },
            (12, _) => Command::Stats { args: a },
            (13, _) => Command::Verbosity { level: a },
            (14, _) => Command::Version,
            _ => Command::Quit,
        }
    }

    /// What is meant: words, of which none may get lost and none may become two.
    pub fn meant(&self) -> Request {
        let mut words: Vec<Vec<u8>> = Vec::new();
        let name = match self.kind {
            0 | 1 => ["get", "gets"][usize::from(self.cas)],
            2 => "delete",
            3 => "incr",
            4 => "decr",
            5 => "touch",
            6..=10 => self.verb().1,
            11 => "flush_all",
            12 => "stats",
            13 => "verbosity",
            14 => "version",
            15 => "quit",
            16 | 17 => ["gat", "gats"][usize::from(self.cas)],
            _ => self.meta.as_ref().map_or("", meta::Call::verb),
        };
        words.push(name.into());
        if let 16 | 17 = self.kind {
            words.push(self.args[0].clone().unwrap_or_default());
        }
        for (bytes, escape) in &self.keys {
            // an empty key of a list is a miss, unasked
            if matches!(self.kind, 1 | 17) && bytes.is_empty() {
                continue;
            }
            words.push(if *escape {
                escaped(bytes)
            } else {
                bytes.clone()
            });
        }
        let [a, b, c] = self
            .args
            .each_ref()
            .map(|arg| arg.clone().unwrap_or_default());
        match self.kind {
            // in the last place it would be the option
            2 if words.last().is_some_and(|key| key == b"noreply") => words.push(b"0".to_vec()),
            3..=5 | 13 => words.push(a),
            6..=10 => {
                words.extend([a, b, self.value.len().to_string().into()]);
                if name == "cas" {
                    words.push(c);
                }
            }
            11 if !a.is_empty() => words.push(a),
            12 if !a.is_empty() => words.extend(a.split(|byte| *byte == b' ').map(<[u8]>::to_vec)),
            _ => {}
        }
        let mut data = matches!(self.kind, 6..=10).then(|| self.value.clone());
        if let Some(meta) = &self.meta {
            // what is to be refused is no command
            words.extend(meta.words().unwrap_or_else(|| vec![b"?".to_vec()]));
            data = meta.value().map(<[u8]>::to_vec);
        }
        Request { words, data }
    }
}

/// As ngx.escape_uri does it.
fn escaped(bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-._~!*'()".contains(&byte) {
            out.push(byte);
        } else {
            out.extend(format!("%{byte:02X}").bytes());
        }
    }
    out
}

/// What one would write without a thought.
fn naive(request: &Request) -> Vec<u8> {
    let mut text = request.words.join(&b' ');
    text.extend_from_slice(b"\r\n");
    if let Some(data) = &request.data {
        text.extend_from_slice(data);
        text.extend_from_slice(b"\r\n");
    }
    text
}

/// A refusal changes nothing, says why in a line fit for a log, and has a reason.
fn check_refusal(refused: &Refused, meant: &Request) {
    let why = &refused.why;
    assert!(why.bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    assert!(why.len() < 400 && !why.contains("[error]"), "{why}");
    assert!(why.as_bytes().starts_with(&meant.words[0]));

    let text = naive(meant);
    let Read::Request(request, len) = read(&text) else {
        return;
    };
    let taken = request == *meant && len == text.len();
    let args = &meant.words[1..];
    let odd = |byte: &u8| *byte <= 0x20 || *byte == 0x7f;
    let has_reason = args.iter().any(|word| word.iter().any(odd))
        || args.iter().any(|word| word == b"noreply")
        || args.iter().any(Vec::is_empty)
        // a line of gat is kept short
        || meant.words[0].starts_with(b"gat") && text.len() > 1800
        || args.iter().any(|word| word.len() > 128)
        || meant.words[0] == b"stats" && text.len() > 1024;
    assert!(!taken || has_reason, "refused without need: {why}");
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let mut pipeline = Pipeline::new(LIMITS);
    pipeline.assume(Server::Memcached(Version::new(1, 6, 45)));
    let mut wire: Vec<u8> = Vec::new();
    let mut meant: Vec<Request> = Vec::new();
    let mut replies = 0;
    for tag in 0..1 + input.below(5) {
        let way = input.below(6);
        let call = Call::read(&mut input);
        let keys = call.keys();
        let meta = call.meta.as_ref().map(|meta| meta.meta(keys[0]));
        let command = call.command(&keys, meta.as_ref());
        let request = call.meant();
        let before = pipeline.unsent().to_vec();
        let submitted = match way {
            0 => {
                let mut batch = Batch::new();
                let pushed = batch.push(&command);
                assert_eq!(batch.text_len() == 0, pushed.is_err());
                pushed.map(|()| {
                    assert!(pipeline.submit_batch(tag, &batch).is_ok());
                    &b""[..]
                })
            }
            1 => pipeline.submit(tag, &command).map(|()| &b""[..]),
            _ => pipeline.submit_head(tag, &command),
        };
        match submitted {
            Ok(value) => {
                assert!(pipeline.unsent().starts_with(&before));
                if !value.is_empty() {
                    let mut all = pipeline.unsent().to_vec();
                    all.extend_from_slice(value);
                    all.extend_from_slice(VALUE_END);
                    let sent = all.len() * input.below(9) / 8;
                    wire.extend_from_slice(&all[..sent]);
                    assert!(pipeline.sent_with(sent, value));
                    assert_eq!(pipeline.unsent(), &all[sent..]);
                }
                replies += usize::from(call.kind != 15);
                meant.push(request);
            }
            Err(refused) => {
                assert_eq!(pipeline.unsent(), before);
                check_refusal(&refused, &request);
            }
        }
        for (bytes, escape) in &call.keys {
            if *escape {
                let mut plain = Vec::new();
                unescape_into(&escaped(bytes), &mut plain);
                assert_eq!(plain, *bytes);
            }
        }
    }
    wire.extend_from_slice(pipeline.unsent());
    assert_eq!(pipeline.in_flight(), replies);

    let mut rest = wire.as_slice();
    for request in meant {
        match read(rest) {
            Read::Request(mut read, len) => {
                if read.words[0].starts_with(b"m") {
                    // flags may be in any order
                    read.words[2..].sort();
                }
                assert_eq!(read, request);
                let line = rest.split(|byte| *byte == b'\n').next().unwrap_or(rest);
                let odd = line.iter().filter(|byte| **byte < 0x20 || **byte == 0x7f);
                assert_eq!(odd.count(), 1, "only the CR");
                assert!(line.ends_with(b"\r"));
                rest = &rest[len..];
            }
            other => panic!("{other:?} instead of {request:?}"),
        }
    }
    assert!(rest.is_empty(), "more than was meant");
}
