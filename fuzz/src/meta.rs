//! Meta commands: options to flags, and replies, written from protocol.txt and the rules of
//! docs/meta.md.

use ngx_http_lua_memcached_module::protocol::{
    Key, Meta, MetaArith, MetaDelete, MetaGet, MetaOp, MetaSet, OptionValue,
};

use crate::input::Input;

/// Unix time of all that is fuzzed.
const NOW: i64 = 1_700_000_000;

const NAMES: [&str; 21] = [
    "value",
    "flags",
    "cas",
    "ttl",
    "size",
    "hit",
    "last_access",
    "touch",
    "vivify",
    "recache",
    "no_bump",
    "if_changed",
    "mode",
    "new_cas",
    "return_cas",
    "return_size",
    "stale",
    "drop_value",
    "delta",
    "initial",
    "nonsense",
];
const VERBS: [&str; 4] = ["mg", "ms", "md", "ma"];
const MODES: [&str; 5] = ["set", "add", "replace", "append", "prepend"];

/// What is given as an option.
#[derive(Clone, Debug)]
enum Given {
    Boolean(bool),
    Number(f64),
    Text(Vec<u8>),
    Other,
}

/// A call with options.
pub struct Call {
    verb: usize,
    opaque: u32,
    value: Vec<u8>,
    options: Vec<(usize, Given)>,
}

impl Call {
    pub fn read(input: &mut Input<'_>, verb: usize) -> Self {
        let value = if verb == 1 { input.text() } else { Vec::new() };
        let options = (0..input.below(6)).map(|_| {
            let name = input.below(NAMES.len());
            let given = match input.below(8) {
                0 => Given::Boolean(input.flag()),
                1 | 2 => Given::Boolean(true),
                3 => Given::Number(f64::from_le_bytes(std::array::from_fn(|_| input.byte()))),
                4 => Given::Number(input.byte().into()),
                5 => Given::Text(MODES[input.below(MODES.len())].into()),
                6 => Given::Text(input.text()),
                _ => Given::Other,
            };
            (name, given)
        });
        let options = options.collect();
        Call {
            verb,
            opaque: u32::from(input.byte()) * 0x0101_0101,
            value,
            options,
        }
    }

    pub fn value(&self) -> Option<&[u8]> {
        (self.verb == 1).then_some(&self.value)
    }

    pub fn meta<'a>(&'a self, key: Key<'a>) -> Meta<'a> {
        let mut meta = Meta {
            key,
            opaque: self.opaque,
            op: match self.verb {
                0 => MetaOp::Get(MetaGet::default()),
                1 => MetaOp::Set(MetaSet {
                    value: &self.value,
                    ..MetaSet::default()
                }),
                2 => MetaOp::Delete(MetaDelete::default()),
                _ => MetaOp::Arith(MetaArith::default()),
            },
            bad: None,
        };
        for (name, given) in &self.options {
            let value = match given {
                Given::Boolean(value) => OptionValue::Boolean(*value),
                Given::Number(value) => OptionValue::Number(*value),
                Given::Text(text) => OptionValue::Text(text),
                Given::Other => OptionValue::Other("table"),
            };
            meta.set_option(NAMES[*name].as_bytes(), value, NOW);
        }
        meta
    }

    pub fn verb(&self) -> &'static str {
        VERBS[self.verb]
    }

    /// The words behind the key: what has to be sent, flags in any order. `None`: the options are
    /// to be refused.
    pub fn words(&self) -> Option<Vec<Vec<u8>>> {
        let verb = self.verb();
        let mut last: Vec<(&str, &Given)> = Vec::new();
        for (name, given) in &self.options {
            let name = NAMES[*name];
            last.retain(|(other, _)| *other != name);
            // each of them has to be good
            flag(verb, name, given)?;
            last.push((name, given));
        }
        let has = |name: &str| {
            last.iter()
                .any(|(other, given)| *other == name && !matches!(given, Given::Boolean(false)))
        };
        let mode = last.iter().find(|(name, _)| *name == "mode");
        let extends = mode.is_some_and(
            |(_, given)| matches!(given, Given::Text(mode) if mode.ends_with(b"pend")),
        );
        let value = !last
            .iter()
            .any(|(name, given)| *name == "value" && matches!(given, Given::Boolean(false)));
        let unfit = match verb {
            "mg" => has("if_changed") && !value,
            "ms" if extends => has("ttl") || has("flags") && !has("vivify"),
            "ms" => has("vivify"),
            "md" => {
                has("ttl") && !has("stale") || has("new_cas") && !has("stale") && !has("drop_value")
            }
            _ => has("initial") && !has("vivify"),
        };
        if unfit {
            return None;
        }
        let mut words: Vec<Vec<u8>> = Vec::new();
        if verb == "ms" {
            words.push(self.value.len().to_string().into());
        }
        words.push(format!("O{:08x}", self.opaque).into());
        for (name, given) in last {
            words.push(flag(verb, name, given)?);
        }
        if verb == "ma" || verb == "mg" && value {
            words.push(b"v".to_vec());
        }
        words.retain(|word| !word.is_empty());
        words.sort();
        words.dedup();
        Some(words)
    }
}

/// A number of a text or of Lua.
fn integer(given: &Given) -> Option<i128> {
    match given {
        Given::Number(number) if number.fract() == 0.0 && number.abs() < 1e30 => {
            Some(*number as i128)
        }
        Given::Text(text) => {
            let text = std::str::from_utf8(text).ok()?;
            let odd = |c: char| !c.is_ascii_digit() && c != '-';
            (text.len() <= 20 && !text.contains(odd)).then(|| text.parse().ok())?
        }
        _ => None,
    }
}

/// An option's flag; empty if it is the default. `None`: it is not understood.
fn flag(verb: &str, name: &str, given: &Given) -> Option<Vec<u8>> {
    let number = |letter: &str, from: i128, to: i128| {
        let number = integer(given).filter(|number| (from..=to).contains(number))?;
        Some(format!("{letter}{number}").into_bytes())
    };
    let unsigned = |letter| number(letter, 0, u64::MAX.into());
    let ttl = |letter, from: i32| {
        let seconds = integer(given)?;
        let long_ago = seconds > 2_592_000 && seconds <= NOW.into();
        if long_ago {
            None
        } else {
            number(letter, from.into(), i32::MAX.into())
        }
    };
    let yes = |letter: &str| match given {
        Given::Boolean(true) => Some(letter.as_bytes().to_vec()),
        Given::Boolean(false) => Some(Vec::new()),
        _ => None,
    };
    match (verb, name) {
        ("mg", "value") => yes("v"),
        ("mg", "flags") => yes("f"),
        ("mg", "cas") | ("ms", "return_cas") => yes("c"),
        ("mg", "ttl") | ("ma", "return_ttl") => yes("t"),
        ("mg", "size") | ("ms", "return_size") => yes("s"),
        ("mg", "hit") => yes("h"),
        ("mg", "last_access") => yes("l"),
        ("mg", "no_bump") => yes("u"),
        ("mg", "touch") | ("ms" | "md" | "ma", "ttl") => ttl("T", i32::MIN),
        ("mg" | "ms" | "ma", "vivify") => ttl("N", 0),
        ("mg", "recache") => ttl("R", 0),
        ("mg", "if_changed") | ("ms" | "md" | "ma", "cas") => unsigned("C"),
        ("ms", "flags") => number("F", 0, u32::MAX.into()),
        ("ms" | "md", "new_cas") => unsigned("E"),
        ("ms", "mode") => match given {
            Given::Text(mode) => match mode.as_slice() {
                b"set" => Some(Vec::new()),
                b"add" => Some(b"ME".to_vec()),
                b"replace" => Some(b"MR".to_vec()),
                b"append" => Some(b"MA".to_vec()),
                b"prepend" => Some(b"MP".to_vec()),
                _ => None,
            },
            _ => None,
        },
        ("md", "stale") => yes("I"),
        ("md", "drop_value") => yes("x"),
        ("ma", "delta") => unsigned("D"),
        ("ma", "initial") => unsigned("J"),
        ("ma", "decr") => yes("MD"),
        _ => None,
    }
}

/// Whether these are the words of a meta command, as memcached takes them.
pub fn is_valid(words: &[Vec<u8>]) -> bool {
    let [verb, key, flags @ ..] = words else {
        return false;
    };
    let is_number = |text: &[u8]| {
        let digits = text.strip_prefix(b"-").unwrap_or(text);
        !digits.is_empty() && digits.len() <= 20 && digits.iter().all(u8::is_ascii_digit)
    };
    let (len, flags) = match (verb.as_slice(), flags) {
        (b"ms", [len, flags @ ..]) => (Some(len), flags),
        (b"ms", []) => return false,
        _ => (None, flags),
    };
    let mut letters = Vec::new();
    key.len() <= 250
        && len.is_none_or(|len| is_number(len) && len[0] != b'-')
        && flags.iter().all(|flag| {
            let (letter, text) = (flag[0], &flag[1..]);
            let first = !letters.contains(&letter);
            letters.push(letter);
            let known: &[u8] = match verb.as_slice() {
                b"mg" => b"OvfctshluTNRC",
                b"ms" => b"OTFCEMNcs",
                b"md" => b"OCEITx",
                _ => b"ONJDMTCvt",
            };
            first
                && known.contains(&letter)
                && match letter {
                    b'O' => (1..=31).contains(&text.len()),
                    b'M' => text.len() == 1,
                    b'T' | b'F' | b'C' | b'E' | b'N' | b'R' | b'J' | b'D' => is_number(text),
                    _ => text.is_empty(),
                }
        })
}

/// What was asked, as far as the reply's form depends on it.
#[derive(Clone, Debug)]
pub struct Asked {
    pub verb: &'static str,
    pub opaque: &'static str,
    pub value: bool,
    pub if_changed: bool,
    pub fields: &'static str,
}

/// What a line of a reply comes to.
pub enum Line {
    /// All there is: an item's fields, or what other commands would say.
    Item(Vec<String>),
    Miss,
    Other(&'static str),
    /// A value of so many bytes follows.
    Value(u64, Vec<String>),
    Bad(&'static str),
}

/// The meaning of a line that is no error line.
pub fn line(asked: &Asked, line: &[u8]) -> Line {
    if line.starts_with(b" ") {
        return Line::Bad("unexpected line");
    }
    let words: Vec<String> = line
        .split(|byte| *byte == b' ')
        .filter(|word| !word.is_empty())
        // bytes one by one, so that nothing is lost
        .map(|word| word.iter().map(|byte| char::from(*byte)).collect())
        .collect();
    let status = words.first().map_or("", String::as_str);
    let failure = match (status, asked.verb) {
        ("EN", "mg") => Some(Line::Miss),
        ("NS", "ms" | "ma") => Some(Line::Other("NOT_STORED")),
        ("EX", "ms" | "md" | "ma") => Some(Line::Other("EXISTS")),
        ("NF", "ms" | "md" | "ma") => Some(Line::Other("NOT_FOUND")),
        _ => None,
    };
    if let Some(failure) = failure {
        if words.len() == 1 {
            return failure;
        }
        return match fields(asked, &words[1..]) {
            Ok(_) => failure,
            Err(what) => Line::Bad(what),
        };
    }
    let with_value = match status {
        "VA" if asked.value => true,
        "HD" if !asked.value || asked.if_changed => false,
        _ => return Line::Bad("unexpected line"),
    };
    let rest = words
        .get(if with_value { 2 } else { 1 }..)
        .unwrap_or_default();
    let found = match fields(asked, rest) {
        Ok(found) => found,
        Err(what) => return Line::Bad(what),
    };
    let is_missing = |letter: char| {
        !found.iter().any(|field| field.starts_with(letter)) && asked.fields.contains(letter)
    };
    if asked.fields.chars().any(is_missing) {
        return Line::Bad("unexpected flags");
    }
    if !with_value {
        return Line::Item(found);
    }
    let len = words.get(1).map_or("", String::as_str);
    match len.parse() {
        _ if len.is_empty() || !len.chars().all(|c| c.is_ascii_digit()) => {
            Line::Bad("unexpected line")
        }
        Ok(len) if words[1].len() <= 20 => Line::Value(len, found),
        _ => Line::Bad("value length out of range"),
    }
}

/// The fields with their values, sorted.
fn fields(asked: &Asked, words: &[String]) -> Result<Vec<String>, &'static str> {
    let flags = Err("unexpected flags");
    let mut found: Vec<String> = Vec::new();
    let mut opaques = 0;
    for word in words {
        let first = word.chars().next().map_or(0, char::len_utf8);
        let (letter, text) = word.split_at(first);
        if letter == "O" {
            opaques += 1;
            if word != asked.opaque || opaques > 1 {
                return Err("unexpected opaque");
            }
            continue;
        }
        if found.iter().any(|field| field.starts_with(letter)) {
            return flags;
        }
        let number: Option<u64> = match text.len() <= 20 && text.chars().all(|c| c.is_ascii_digit())
        {
            true => text.parse().ok(),
            false => None,
        };
        let is_good = match letter {
            "W" | "X" | "Z" => asked.verb == "mg" && text.is_empty(),
            _ if !asked.fields.contains(letter) => false,
            "h" => text == "0" || text == "1",
            "t" => text == "-1" || number.is_some_and(|number| number <= u32::MAX.into()),
            _ => number.is_some(),
        };
        if !is_good {
            return flags;
        }
        found.push(match (letter, number) {
            // what has expired
            ("t", Some(seconds)) if seconds > i32::MAX as u64 => "t0".into(),
            // the digits as they are
            ("f" | "c", _) | (_, None) => word.clone(),
            (_, Some(number)) => format!("{letter}{number}"),
        });
    }
    match opaques {
        0 => Err("unexpected opaque"),
        _ => {
            found.sort();
            Ok(found)
        }
    }
}
