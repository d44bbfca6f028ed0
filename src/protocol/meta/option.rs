//! What an option can be given as, and why one is not understood.

use crate::protocol::quoted::Quoted;

/// Seconds up to 2592000 or a Unix time, as memcached takes all of them. Negative: at once.
pub type Ttl = i32;

/// What was given as an option, as far as options can have it.
#[derive(Clone, Copy, Debug)]
pub enum OptionValue<'a> {
    /// True or false.
    Boolean(bool),
    /// A number.
    Number(f64),
    /// A string.
    Text(&'a [u8]),
    /// Anything else: the name of its type.
    Other(&'static str),
}

impl std::fmt::Display for OptionValue<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            OptionValue::Boolean(value) => write!(f, "{value}"),
            OptionValue::Number(value) => write!(f, "{value}"),
            OptionValue::Text(text) => write!(f, "{}", Quoted(text)),
            OptionValue::Other(name) => write!(f, "a {name}"),
        }
    }
}

/// An option that is not understood.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum BadOption {
    /// The options are no table.
    #[error("bad options: expecting a table, got {0}")]
    NoTable(String),
    /// There is no such option.
    #[error("bad options: there is no option {0}")]
    Unknown(String),
    /// Its value is not one it can have.
    #[error("bad {name} option: expecting {expected}, got {seen}")]
    Value {
        /// Which option.
        name: &'static str,
        /// What it can be.
        expected: &'static str,
        /// What it was, as it may be shown.
        seen: String,
    },
    /// A number of seconds that the server takes for a time long ago.
    #[error("bad {name} option: {seen} is neither up to 2592000 seconds nor a Unix time to come")]
    LongAgo {
        /// Which option.
        name: &'static str,
        /// What it was.
        seen: Ttl,
    },
    /// It makes no sense with the others.
    #[error("bad {name} option: {why}")]
    Unfit {
        /// Which option.
        name: &'static str,
        /// Why.
        why: &'static str,
    },
}

impl BadOption {
    /// The options are this, and no table.
    pub fn no_table(seen: OptionValue<'_>) -> Self {
        BadOption::NoTable(seen.to_string())
    }

    /// There is no option that is called this.
    pub fn unknown(name: OptionValue<'_>) -> Self {
        BadOption::Unknown(name.to_string())
    }
}
