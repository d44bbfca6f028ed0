//! Meta commands: `mg`, `ms`, `md` and `ma`, by what their flags do.
//!
//! | file | subject |
//! |---|---|
//! | `option` | what an option can be given as, and why one is not understood |
//! | `options` | options by name, as users give them |
//! | `write` | the flags on the wire |
//! | `reply` | the lines of replies |
//!
//! Every command has an opaque, a number that its reply repeats: so a reply that belongs to another
//! command is noticed, though it has no key.

mod option;
pub(super) mod options;
pub(super) mod reply;
mod write;

pub(super) use write::Words;

pub use option::{BadOption, OptionValue, Ttl};

use super::key::Key;
use super::version::Needs;

/// A meta command.
#[derive(Clone, Debug)]
pub struct Meta<'a> {
    /// The key.
    pub key: Key<'a>,
    /// What the reply repeats: different for commands that are in flight at a time.
    pub opaque: u32,
    /// What is to be done.
    pub op: MetaOp<'a>,
    /// An option that is not understood. Then nothing is sent.
    pub bad: Option<BadOption>,
}

/// What a meta command does.
#[derive(Clone, Debug)]
pub enum MetaOp<'a> {
    /// `mg`
    Get(MetaGet),
    /// `ms`
    Set(MetaSet<'a>),
    /// `md`
    Delete(MetaDelete),
    /// `ma`
    Arith(MetaArith),
}

/// The options of `mg`.
#[derive(Clone, Debug)]
pub struct MetaGet {
    /// Whether the value is wanted. That is the default.
    pub value: bool,
    /// Whether the client flags are wanted.
    pub flags: bool,
    /// Whether the version is wanted.
    pub cas: bool,
    /// Whether the remaining time is wanted.
    pub ttl: bool,
    /// Whether the value's length is wanted.
    pub size: bool,
    /// Whether it is wanted if the item was read before.
    pub hit: bool,
    /// Whether the seconds since the last access are wanted.
    pub last_access: bool,
    /// The new expiry.
    pub touch: Option<Ttl>,
    /// The expiry of an empty item to be made if there is none; whoever makes it has won.
    pub vivify: Option<Ttl>,
    /// One who finds less time than this remaining wins.
    pub recache: Option<Ttl>,
    /// Not to count as an access.
    pub no_bump: bool,
    /// The value is only wanted if this is not its version; older servers send it anyway.
    pub if_changed: Option<u64>,
}

impl Default for MetaGet {
    fn default() -> Self {
        MetaGet {
            value: true,
            flags: false,
            cas: false,
            ttl: false,
            size: false,
            hit: false,
            last_access: false,
            touch: None,
            vivify: None,
            recache: None,
            no_bump: false,
            if_changed: None,
        }
    }
}

/// How `ms` stores.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Mode {
    /// In any case.
    #[default]
    Set,
    /// If the key is absent.
    Add,
    /// If the key is present.
    Replace,
    /// At the end of a present value.
    Append,
    /// At the beginning of a present value.
    Prepend,
}

impl Mode {
    /// It adds to what is there.
    fn extends(self) -> bool {
        matches!(self, Mode::Append | Mode::Prepend)
    }
}

/// The value and the options of `ms`.
#[derive(Clone, Debug, Default)]
pub struct MetaSet<'a> {
    /// Any bytes.
    pub value: &'a [u8],
    /// The expiry.
    pub ttl: Option<Ttl>,
    /// Client flags.
    pub flags: Option<u32>,
    /// Only if this is the version.
    pub cas: Option<u64>,
    /// How.
    pub mode: Mode,
    /// The expiry of the item that an append or prepend may make.
    pub vivify: Option<Ttl>,
    /// The version that the item gets.
    pub new_cas: Option<u64>,
    /// Whether the new version is wanted.
    pub return_cas: bool,
    /// Whether the new length is wanted.
    pub return_size: bool,
}

/// The options of `md`.
#[derive(Clone, Debug, Default)]
pub struct MetaDelete {
    /// Only if this is the version.
    pub cas: Option<u64>,
    /// To mark it as stale instead.
    pub stale: bool,
    /// The expiry of a stale item.
    pub ttl: Option<Ttl>,
    /// To keep the item and drop its value.
    pub drop_value: bool,
    /// The version that an item gets that stays.
    pub new_cas: Option<u64>,
}

/// The options of `ma`.
#[derive(Clone, Debug, Default)]
pub struct MetaArith {
    /// What is added or subtracted; by default 1.
    pub delta: Option<u64>,
    /// To subtract.
    pub decr: bool,
    /// The number that is stored if there is none.
    pub initial: Option<u64>,
    /// To store a number if there is none, with this expiry.
    pub vivify: Option<Ttl>,
    /// The new expiry.
    pub ttl: Option<Ttl>,
    /// Only if this is the version.
    pub cas: Option<u64>,
    /// Whether the remaining time is wanted.
    pub return_ttl: bool,
}

/// What a reply has to have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Asked {
    pub verb: Word,
    /// The value is wanted.
    pub value: bool,
    /// But not if it is the one of a version.
    pub if_changed: bool,
    /// One bit for each of [`FIELDS`].
    pub fields: u8,
}

/// The flags by which items are described.
pub(super) const FIELDS: &[u8; 6] = b"fctshl";

/// Meta commands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Word {
    Get,
    Set,
    Delete,
    Arith,
}

impl<'a> Meta<'a> {
    /// The command's word on the wire.
    pub(super) fn word(&self) -> &'static str {
        match self.op {
            MetaOp::Get(_) => "mg",
            MetaOp::Set(_) => "ms",
            MetaOp::Delete(_) => "md",
            MetaOp::Arith(_) => "ma",
        }
    }

    /// The value to be stored.
    pub(super) fn value(&self) -> &'a [u8] {
        match &self.op {
            MetaOp::Set(set) => set.value,
            _ => b"",
        }
    }

    /// What the server has to know.
    pub fn needs(&self) -> Needs {
        let all = match &self.op {
            MetaOp::Get(_) | MetaOp::Arith(_) => [None, None, None],
            MetaOp::Set(set) => [
                // before, the version that came back was not the new one
                (set.return_cas).then(|| Needs::since(1, 6, 13, "return_cas")),
                (set.return_size || set.vivify.is_some()).then(|| match set.vivify {
                    None => Needs::since(1, 6, 20, "return_size"),
                    Some(_) if set.mode == Mode::Prepend => {
                        Needs::since(1, 6, 20, "vivify with prepend")
                    }
                    Some(_) => Needs::since(1, 6, 20, "vivify with append"),
                }),
                (set.new_cas.is_some()).then(|| Needs::since(1, 6, 27, "new_cas")),
            ],
            MetaOp::Delete(delete) => [
                // before, the right version was refused
                (delete.cas.is_some()).then(|| Needs::since(1, 6, 13, "cas with delete")),
                (delete.drop_value).then(|| Needs::since(1, 6, 27, "drop_value")),
                (delete.new_cas.is_some()).then(|| Needs::since(1, 6, 27, "new_cas")),
            ],
        };
        all.into_iter().flatten().fold(Needs::META, Needs::and)
    }

    /// Whether the options make sense together: a server ignores those that do not.
    pub(super) fn check(&self) -> Result<(), BadOption> {
        let unfit = |name, why| Err(BadOption::Unfit { name, why });
        if let Some(bad) = &self.bad {
            return Err(bad.clone());
        }
        match &self.op {
            MetaOp::Get(get) if get.if_changed.is_some() && !get.value => {
                unfit("if_changed", "no value is wanted")
            }
            MetaOp::Set(set) if set.mode.extends() => {
                if set.ttl.is_some() {
                    unfit("ttl", "append and prepend keep the expiry")
                } else if set.flags.is_some() && set.vivify.is_none() {
                    unfit("flags", "append and prepend keep the flags")
                } else {
                    Ok(())
                }
            }
            MetaOp::Set(set) if set.vivify.is_some() => {
                unfit("vivify", "only append and prepend need it")
            }
            MetaOp::Delete(delete) if delete.ttl.is_some() && !delete.stale => {
                unfit("ttl", "only with stale is there an item left")
            }
            MetaOp::Delete(delete)
                if delete.new_cas.is_some() && !delete.stale && !delete.drop_value =>
            {
                unfit(
                    "new_cas",
                    "only with stale or drop_value is there an item left",
                )
            }
            MetaOp::Arith(arith) if arith.initial.is_some() && arith.vivify.is_none() => {
                unfit("initial", "only with vivify is there a number made")
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
