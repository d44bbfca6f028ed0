//! Calls whose replies tell whose they are, and a server that answers them. It keeps nothing: what
//! it answers is in the command's key or number, and so is what the caller has to get.

use ngx_http_lua_memcached_module::protocol::{Arith, Command, Key, Verb};

use crate::input::Input;
use crate::metacalls::{self, MetaCall, Persona};
use crate::replies::{Hit, Seen};
use crate::requests::{Request, is_storage};
use crate::values::{pattern, value_of};

/// How the error lines begin that are for keys, not for commands.
pub const DEAD: &[u8] = b"SERVER_ERROR dead ";

/// An operation of one command.
#[derive(Clone, PartialEq, Debug)]
pub enum Call {
    /// Keys that begin with `g` are hits; for those that begin with `d` there is an error line.
    /// `touch`: it is a gat.
    Get {
        key: String,
        cas: bool,
        touch: bool,
    },
    Many {
        keys: Vec<String>,
        cas: bool,
        touch: bool,
    },
    Store {
        key: String,
        value: Vec<u8>,
        cas: bool,
    },
    Delete {
        key: String,
    },
    Incr {
        delta: String,
    },
    Touch {
        key: String,
    },
    FlushAll {
        delay: String,
    },
    Stats,
    Version,
    Meta(MetaCall),
    MetaNoop,
}

/// The expiry of each gat.
const EXPTIME: &[u8] = b"9";

fn plain(key: &str) -> Key<'_> {
    Key {
        bytes: key.as_bytes(),
        escape: false,
    }
}

impl Call {
    /// One that nobody else calls, but for gets, of which several may be the same.
    pub fn read(input: &mut Input<'_>, id: usize) -> Self {
        let kind = input.byte();
        if kind >= 224 {
            return Self::read_newer(input, id, kind);
        }
        let cas = kind & 16 != 0;
        let hit = if kind & 32 != 0 { 'm' } else { 'g' };
        let dead = if kind & 8 != 0 { 'd' } else { hit };
        match kind % 12 {
            0 => Call::Get {
                key: format!("{hit}{id}.{}", input.size()),
                cas,
                touch: false,
            },
            1 => Call::Get {
                key: format!("{dead}{id}.{}", input.size()),
                cas,
                touch: false,
            },
            2 | 3 => Call::Get {
                key: format!("{hit}same.{}", input.size() % 20),
                cas: false,
                touch: false,
            },
            4 | 5 => {
                let key = |n| {
                    let hit = if n == 1 { 'g' } else { dead };
                    format!("{hit}{id}-{n}.{}", input.size())
                };
                let keys = (0..1 + usize::from(kind / 64)).map(key).collect();
                Call::Many {
                    keys,
                    cas,
                    touch: false,
                }
            }
            6 | 7 => {
                let answer = ['s', 'n', 'e'][usize::from(kind / 64) % 3];
                let key = format!("{answer}{id}");
                let value = pattern(&key, input.size());
                Call::Store { key, value, cas }
            }
            8 => Call::Delete {
                key: format!("{}{id}", ['s', 'n', 'e'][usize::from(kind / 64) % 3]),
            },
            9 => Call::Incr {
                delta: id.to_string(),
            },
            10 => match kind / 64 {
                0 => Call::FlushAll {
                    delay: id.to_string(),
                },
                1 => Call::Stats,
                _ => Call::Version,
            },
            _ => Call::Touch {
                key: format!("{}{id}", ['s', 'n', 'e'][usize::from(kind / 64) % 3]),
            },
        }
    }

    /// One of the commands that came later than the others.
    fn read_newer(input: &mut Input<'_>, id: usize, kind: u8) -> Self {
        let cas = kind & 8 != 0;
        match kind & 7 {
            verb @ 0..4 => Call::Meta(MetaCall::read(input, verb, id)),
            4 => {
                let n = 1 + input.below(4);
                let key = |n| {
                    let size = input.byte();
                    let hit = ['g', 'g', 'm', 'd'][usize::from(size >> 6)];
                    format!("{hit}{id}-{n}.{size}")
                };
                Call::Many {
                    keys: (0..n).map(key).collect(),
                    cas,
                    touch: true,
                }
            }
            5 => Call::MetaNoop,
            _ => {
                // also one that is the same for many, and yet is sent for each of them
                let hit = ['g', 'm', 'd', 'g'][input.below(4)];
                let key = match kind & 16 {
                    0 => format!("{hit}{id}.{}", input.size()),
                    _ => format!("gsame.{}", input.size() % 20),
                };
                let touch = true;
                Call::Get { key, cas, touch }
            }
        }
    }

    /// Hands the command to `with`.
    pub fn with_command<R>(&self, with: impl FnOnce(&Command<'_>) -> R) -> R {
        match self {
            Call::Get { key, cas, touch } => {
                let (key, cas, exptime) = (plain(key), *cas, Some(EXPTIME));
                match touch {
                    false => with(&Command::Get { key, cas }),
                    true => with(&Command::Gat { key, cas, exptime }),
                }
            }
            Call::Many { keys, cas, touch } => {
                let keys: Vec<Key<'_>> = keys.iter().map(|key| plain(key)).collect();
                let (keys, cas, exptime) = (&keys[..], *cas, Some(EXPTIME));
                match touch {
                    false => with(&Command::GetMany { keys, cas }),
                    true => with(&Command::GatMany { keys, cas, exptime }),
                }
            }
            Call::Meta(call) => call.with_command(with),
            Call::MetaNoop => with(&Command::MetaNoop),
            Call::Store { key, value, cas } => with(&Command::Store {
                verb: if *cas { Verb::Cas } else { Verb::Set },
                key: plain(key),
                flags: b"0",
                exptime: b"0",
                cas_unique: Some(b"1"),
                value,
            }),
            Call::Delete { key } => with(&Command::Delete { key: plain(key) }),
            Call::Incr { delta } => with(&Command::Arith {
                op: Arith::Incr,
                key: plain("n"),
                delta: Some(delta.as_bytes()),
            }),
            Call::Touch { key } => with(&Command::Touch {
                key: plain(key),
                exptime: Some(b"0"),
            }),
            Call::FlushAll { delay } => with(&Command::FlushAll {
                delay: Some(delay.as_bytes()),
            }),
            Call::Stats => with(&Command::Stats { args: None }),
            Call::Version => with(&Command::Version),
        }
    }

    /// What its caller has to get.
    pub fn wanted(&self, persona: Persona) -> Seen {
        let hit = |key: &String, cas: bool, keep: bool| Hit {
            key: if keep { key.clone().into() } else { vec![] },
            data: value_of(key),
            flags: b"5".to_vec(),
            cas: cas.then(|| b"6".to_vec()),
        };
        let line = |text: String| Seen::Line(text.into_bytes());
        let dead = |key: &&String| key.starts_with('d');
        match self {
            Call::Get { key, .. } if dead(&key) => line(format!("SERVER_ERROR dead {key}")),
            Call::Many { keys, .. } if keys.iter().any(|key| dead(&key)) => {
                let first = keys.iter().find(dead);
                line(format!(
                    "SERVER_ERROR dead {}",
                    first.map_or("", String::as_str)
                ))
            }
            Call::Get { key, cas, .. } if key.starts_with('g') => {
                Seen::Value(hit(key, *cas, false))
            }
            Call::Get { .. } => Seen::Miss,
            Call::Many { keys, cas, .. } => Seen::Values(
                keys.iter()
                    .filter(|key| key.starts_with('g'))
                    .map(|key| hit(key, *cas, true))
                    .collect(),
            ),
            Call::Store { key, .. } | Call::Delete { key } | Call::Touch { key } => {
                let store = matches!(self, Call::Store { .. });
                match key.as_bytes() {
                    [b's', ..] => Seen::Done,
                    [b'n', ..] if store => line("NOT_STORED".into()),
                    [b'n', ..] => line("NOT_FOUND".into()),
                    _ => line(format!("SERVER_ERROR for {key}")),
                }
            }
            Call::Incr { delta } => Seen::Number(delta.clone().into()),
            Call::FlushAll { delay } => line(format!("SERVER_ERROR for {delay}")),
            Call::Stats => Seen::Stats(vec![b"STAT pid 1".to_vec(), b"STAT x".to_vec()]),
            Call::Version => Seen::Version(persona.version().into()),
            Call::Meta(call) => call.wanted(),
            // what an error tells is known then
            Call::MetaNoop => Seen::Done,
        }
    }
}

/// The server's answer.
pub fn answer(request: &Request, persona: Persona) -> Vec<u8> {
    let text = |at: usize| String::from_utf8_lossy(&request.words[at]).into_owned();
    let name = text(0);
    let mut out = Vec::new();
    match name.as_str() {
        "get" | "gets" | "gat" | "gats" => {
            let touch = name.starts_with("gat");
            assert!(!touch || request.words[1] == EXPTIME);
            let keys = &request.words[if touch { 2 } else { 1 }..];
            for key in keys {
                let key = String::from_utf8_lossy(key);
                if key.starts_with('d') {
                    out.extend(DEAD);
                    out.extend(format!("{key}\r\n").bytes());
                    // for one key that is the reply
                    if keys.len() == 1 {
                        return out;
                    }
                }
                if key.starts_with('g') {
                    let value = value_of(&key);
                    let cas = if name.ends_with('s') { " 6" } else { "" };
                    out.extend(format!("VALUE {key} 5 {}{cas}\r\n", value.len()).bytes());
                    out.extend(value);
                    out.extend(b"\r\n");
                }
            }
            out.extend(b"END\r\n");
        }
        "incr" => out.extend(format!("{}\r\n", text(2)).bytes()),
        "flush_all" => out.extend(format!("SERVER_ERROR for {}\r\n", text(1)).bytes()),
        "stats" => out.extend(b"STAT pid 1\r\nSTAT x\r\nEND\r\n"),
        "version" => out.extend(format!("VERSION {}\r\n", persona.version()).bytes()),
        "mg" | "ms" | "md" | "ma" => return metacalls::answer(request, None),
        "mn" if persona == Persona::PlainProxy => out.extend(b"ERROR\r\n"),
        "mn" => out.extend(b"MN\r\n"),
        _ => {
            let key = text(1);
            let store = is_storage(name.as_bytes());
            if let Some(data) = &request.data {
                assert_eq!(*data, pattern(&key, data.len()), "the value arrived whole");
            }
            let line = match (key.as_bytes()[0], name.as_str()) {
                (b's', "delete") => "DELETED".into(),
                (b's', "touch") => "TOUCHED".into(),
                (b's', _) => "STORED".into(),
                (b'n', _) if store => "NOT_STORED".into(),
                (b'n', _) => "NOT_FOUND".into(),
                _ => format!("SERVER_ERROR for {key}"),
            };
            out.extend(format!("{line}\r\n").bytes());
        }
    }
    out
}
