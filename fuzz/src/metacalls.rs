//! Meta commands whose replies tell whose they are, a server's answers to them, and what servers of
//! different versions can do.

use ngx_http_lua_memcached_module::protocol::{
    Command, Key, Meta, MetaArith, MetaDelete, MetaGet, MetaOp, MetaSet, Server, Version,
    meta::Mode,
};

use crate::input::Input;
use crate::replies::Seen;
use crate::requests::Request;
use crate::values::{pattern, value_of};

/// What the servers of a world are.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Persona {
    New,
    /// Its version is no number; it has meta commands.
    Proxy,
    /// The same without meta commands.
    PlainProxy,
    /// It has meta commands that a client must not use.
    Old,
}

/// What a server has to be asked before it gets a meta command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    AskVersion,
    AskMeta,
    /// It cannot do it.
    Never,
}

impl Persona {
    pub fn of(number: usize) -> Self {
        match number % 4 {
            0 => Persona::New,
            1 => Persona::Proxy,
            2 => Persona::PlainProxy,
            _ => Persona::Old,
        }
    }

    /// What follows VERSION.
    pub fn version(self) -> &'static str {
        match self {
            Persona::New => "1.6.45",
            Persona::Old => "1.6.9",
            Persona::Proxy | Persona::PlainProxy => "proxy-1.2.3",
        }
    }

    /// What is known once it has answered `version` or, with `noop`, `mn`.
    pub fn told(self, known: Server, noop: bool) -> Server {
        let meta = match (noop, known) {
            (true, Server::Memcached(_)) => return known,
            (true, _) => Some(self != Persona::PlainProxy),
            (false, Server::Other { meta }) => meta,
            (false, _) => None,
        };
        match self {
            Persona::New if !noop => Server::Memcached(Version::new(1, 6, 45)),
            Persona::Old if !noop => Server::Memcached(Version::new(1, 6, 9)),
            _ => Server::Other { meta },
        }
    }
}

/// Whether a server of which this is known gets a command that needs this version.
pub fn allows(known: Server, needs: Version) -> Result<(), Refusal> {
    let version = match known {
        Server::Unknown => return Err(Refusal::AskVersion),
        Server::Other { meta: None } => return Err(Refusal::AskMeta),
        Server::Other { meta: Some(false) } => return Err(Refusal::Never),
        Server::Other { meta: Some(true) } => Version::new(1, 6, 18),
        Server::Memcached(version) => version,
    };
    match version >= needs {
        true => Ok(()),
        false => Err(Refusal::Never),
    }
}

/// A call of one of the meta commands. The first letter of the key says what the server answers.
#[derive(Clone, PartialEq, Debug)]
pub struct MetaCall {
    verb: u8,
    pub key: String,
    opaque: u32,
    /// One bit for each option.
    options: u8,
    value: Vec<u8>,
}

impl MetaCall {
    pub fn read(input: &mut Input<'_>, verb: u8, id: usize) -> Self {
        let answer = input.below(16);
        let options = input.byte();
        // mg: hit, won, won by another, stale, not changed, miss, error
        let letter = match verb {
            0 => b"gggwzXumme"[answer % 10],
            2 => b"ssssxffe"[answer % 8],
            _ => b"ssssnxfe"[answer % 8],
        };
        let letter = char::from(letter);
        let key = format!("{letter}{id}.{}", input.size());
        let value = match verb {
            1 => pattern(&key, input.size()),
            _ => Vec::new(),
        };
        MetaCall {
            verb: verb % 4,
            opaque: id as u32,
            options,
            value,
            key,
        }
    }

    fn option(&self, bit: u8) -> bool {
        self.options >> bit & 1 == 1
    }

    fn wants_value(&self) -> bool {
        !self.option(6)
    }

    pub fn with_command<R>(&self, with: impl FnOnce(&Command<'_>) -> R) -> R {
        let op = match self.verb {
            0 => MetaOp::Get(MetaGet {
                flags: self.option(0),
                cas: self.option(1),
                ttl: self.option(2),
                size: self.option(3),
                hit: self.option(4),
                last_access: self.option(5),
                value: self.wants_value(),
                if_changed: (self.option(7) && self.wants_value()).then_some(6),
                ..MetaGet::default()
            }),
            1 => MetaOp::Set(MetaSet {
                value: &self.value,
                return_cas: self.option(0),
                return_size: self.option(1),
                mode: if self.option(2) { Mode::Add } else { Mode::Set },
                ttl: self.option(3).then_some(60),
                ..MetaSet::default()
            }),
            2 => MetaOp::Delete(MetaDelete {
                stale: self.option(0),
                cas: self.option(1).then_some(6),
                ..MetaDelete::default()
            }),
            _ => MetaOp::Arith(MetaArith {
                return_ttl: self.option(0),
                decr: self.option(1),
                ..MetaArith::default()
            }),
        };
        let key = Key {
            bytes: self.key.as_bytes(),
            escape: false,
        };
        let (opaque, bad) = (self.opaque, None);
        with(&Command::Meta(&Meta {
            key,
            opaque,
            op,
            bad,
        }))
    }

    /// The version that a server has to have.
    pub fn needs(&self) -> Version {
        match self.verb {
            1 if self.option(1) => Version::new(1, 6, 20),
            1 if self.option(0) => Version::new(1, 6, 13),
            2 if self.option(1) => Version::new(1, 6, 13),
            _ => Version::new(1, 6, 10),
        }
    }

    pub fn wanted(&self) -> Seen {
        let letter = self.key.as_bytes()[0];
        let line = |text: &str| Seen::Line(text.into());
        match letter {
            b'm' => return Seen::Miss,
            b'n' => return line("NOT_STORED"),
            b'x' => return line("EXISTS"),
            b'f' => return line("NOT_FOUND"),
            b'e' => return line(&format!("SERVER_ERROR for {}", self.key)),
            _ => {}
        }
        let size = value_of(&self.key).len();
        let number = number_of(&self.key);
        let fields: Vec<String> = match self.verb {
            0 => (0..6)
                .filter(|bit| self.option(*bit))
                .map(|bit| match bit {
                    0 => "f5".into(),
                    1 => "c6".into(),
                    2 => format!("t{number}"),
                    3 => format!("s{size}"),
                    4 => "h1".into(),
                    _ => format!("l{number}"),
                })
                .chain(match letter {
                    b'w' => Some("W".into()),
                    b'z' => Some("Z".into()),
                    b'X' => Some("X".into()),
                    _ => None,
                })
                .collect(),
            1 => [
                self.option(0).then(|| format!("c{number}")),
                self.option(1).then(|| format!("s{}", self.value.len())),
            ]
            .into_iter()
            .flatten()
            .collect(),
            3 if self.option(0) => vec![format!("t{number}")],
            _ => Vec::new(),
        };
        let mut fields = fields;
        fields.sort();
        let value = match self.verb {
            0 if letter == b'u' && self.option(7) => None,
            0 if self.wants_value() => Some(value_of(&self.key)),
            3 => Some(number.to_string().into()),
            _ => None,
        };
        Seen::Item(fields, value)
    }

    /// Whether this may come of a server that answers meta commands for each other: the reply to a
    /// miss tells of no command.
    pub fn may_get(&self, seen: &Seen) -> bool {
        !matches!(seen, Seen::Item(..)) || *seen == self.wanted()
    }
}

/// A number that belongs to a key.
fn number_of(key: &str) -> u32 {
    let digits = key.bytes().filter(u8::is_ascii_digit);
    digits.fold(0, |n, digit| (n * 10 + u32::from(digit - b'0')) % 1_000_007)
}

/// The server's answer to a meta command. `opaque`: what is repeated instead of what was sent.
pub fn answer(request: &Request, opaque: Option<&str>) -> Vec<u8> {
    let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
    let (verb, key) = (text(&request.words[0]), text(&request.words[1]));
    let from = if verb == "ms" { 3 } else { 2 };
    let sent: Vec<String> = request.words[from..]
        .iter()
        .map(|word| text(word))
        .collect();
    let has = |letter: char| sent.iter().any(|word| word.starts_with(letter));
    let data = request.data.as_deref().unwrap_or_default();
    if verb == "ms" {
        assert_eq!(data, pattern(&key, data.len()), "the value arrived whole");
    }
    let status = match key.as_bytes()[0] {
        b'm' => return b"EN\r\n".to_vec(),
        b'e' => return format!("SERVER_ERROR for {key}\r\n").into_bytes(),
        b'n' => "NS",
        b'x' => "EX",
        b'f' => "NF",
        _ => "HD",
    };
    let number = number_of(&key);
    let size = match verb.as_str() {
        "ms" => data.len(),
        _ => value_of(&key).len(),
    };
    let unchanged = key.starts_with('u') && has('C');
    let value = match verb.as_str() {
        _ if status != "HD" || unchanged || !has('v') => None,
        "ma" => Some(number.to_string().into_bytes()),
        _ => Some(value_of(&key)),
    };
    let mut out = match &value {
        Some(value) => format!("VA {}", value.len()),
        None => status.to_owned(),
    };
    for word in &sent {
        let field = match (word.as_bytes()[0], verb.as_str()) {
            (b'O', _) => match opaque {
                Some(other) => format!("O{other}"),
                None => word.clone(),
            },
            _ if status != "HD" => continue,
            (b'f', _) => "f5".into(),
            (b'c', "ms") => format!("c{number}"),
            (b'c', _) => "c6".into(),
            (b't', _) => format!("t{number}"),
            (b's', _) => format!("s{size}"),
            (b'h', _) => "h1".into(),
            (b'l', _) => format!("l{number}"),
            _ => continue,
        };
        out.push(' ');
        out.push_str(&field);
    }
    match (verb.as_str(), key.as_bytes()[0]) {
        ("mg", b'w') => out.push_str(" W"),
        ("mg", b'z') => out.push_str(" Z"),
        ("mg", b'X') => out.push_str(" X"),
        _ => {}
    }
    let mut out = out.into_bytes();
    out.extend(b"\r\n");
    if let Some(value) = value {
        out.extend(value);
        out.extend(b"\r\n");
    }
    out
}
