//! Why a command is not sent.

use std::fmt;

use super::meta::BadOption;
use super::version::{Server, Unmet};

/// An argument, by the name that messages give it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Argument {
    /// Any command's key.
    Key,
    /// The keys of a list.
    Keys,
    /// Client flags of a storage command.
    Flags,
    /// Expiry of a storage command or `touch`, in seconds.
    Exptime,
    /// The version a `cas` was based on.
    CasUnique,
    /// What `incr` and `decr` add or subtract.
    Delta,
    /// Delay of `flush_all`, in seconds.
    Time,
    /// Arguments of `stats`.
    Args,
    /// Level of `verbosity`.
    Level,
}

impl fmt::Display for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Argument::Key => "key",
            Argument::Keys => "keys",
            Argument::Flags => "flags",
            Argument::Exptime => "exptime",
            Argument::CasUnique => "cas unique",
            Argument::Delta => "delta",
            Argument::Time => "time",
            Argument::Args => "args",
            Argument::Level => "level",
        })
    }
}

/// The error that the caller gets. The upper-case texts are memcached's replies to the same
/// mistake.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Answer {
    /// Too few arguments, as the server counts them.
    #[error("ERROR")]
    Error,
    /// A key that is too long, or an invalid number in a storage command.
    #[error("CLIENT_ERROR bad command line format")]
    BadFormat,
    /// The expiry of `touch`, the delay of `flush_all`.
    #[error("CLIENT_ERROR invalid exptime argument")]
    BadExptime,
    /// The delta of `incr` and `decr`.
    #[error("CLIENT_ERROR invalid numeric delta argument")]
    BadDelta,
    /// The server would see another command or more arguments.
    #[error("bad {0}: contains whitespace or control characters")]
    NotOneWord(Argument),
    /// The server would send no reply.
    #[error("bad {0}: noreply is not supported")]
    Noreply(Argument),
    /// The server would close the connection.
    #[error("bad {0}: too long")]
    TooLong(Argument),
    /// An option of a meta command; the text is in [`Refused::why`].
    #[error("bad option")]
    BadOption,
    /// The server would take it for something else, or ignore a part of it; the text is in
    /// [`Refused::why`].
    #[error("not supported by {0}")]
    NotSupported(Server),
    /// The server's version has to be asked for first.
    #[error("the version of the server is unknown")]
    VersionUnknown,
    /// The server has to be asked first whether it has meta commands.
    #[error("the version of the server is no number")]
    MetaUnknown,
    /// There is no memory for the command.
    #[error("no memory")]
    NoMemory,
}

/// A command that is not sent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Refused {
    /// The method's error, mostly: `Display` has its text.
    pub answer: Answer,
    /// For one line of a log, starting with the command's name: printable ASCII without brackets
    /// from the user, at most a few hundred bytes.
    pub why: String,
}

impl Refused {
    /// There is no memory for a command of this length in bytes.
    pub(super) fn no_memory(word: &str, bytes: usize) -> Self {
        Refused {
            answer: Answer::NoMemory,
            why: format!("{word}: no memory for {bytes} bytes"),
        }
    }
}

/// Refused for an option.
pub(super) fn bad_option(word: &str, bad: &BadOption) -> Refused {
    let why = format!("{word}: {bad}");
    let answer = Answer::BadOption;
    Refused { answer, why }
}

/// Refused for what its server can do.
pub(super) fn not_for_server(word: &str, unmet: Unmet) -> Refused {
    let why = format!("{word}: {unmet}");
    let answer = match unmet {
        Unmet::VersionUnknown => Answer::VersionUnknown,
        Unmet::MetaUnknown => Answer::MetaUnknown,
        Unmet::NotSupported { by, .. } => Answer::NotSupported(by),
    };
    Refused { answer, why }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.answer {
            Answer::BadOption | Answer::NotSupported(_) => {
                let text = self.why.split_once(": ");
                f.write_str(text.map_or(&self.why, |(_, text)| text))
            }
            answer => fmt::Display::fmt(&answer, f),
        }
    }
}

impl std::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers() {
        for (answer, text) in [
            (Answer::Error, "ERROR"),
            (Answer::BadFormat, "CLIENT_ERROR bad command line format"),
            (Answer::BadExptime, "CLIENT_ERROR invalid exptime argument"),
            (
                Answer::BadDelta,
                "CLIENT_ERROR invalid numeric delta argument",
            ),
            (
                Answer::NotOneWord(Argument::Key),
                "bad key: contains whitespace or control characters",
            ),
            (
                Answer::Noreply(Argument::CasUnique),
                "bad cas unique: noreply is not supported",
            ),
            (Answer::TooLong(Argument::Args), "bad args: too long"),
        ] {
            assert_eq!(answer.to_string(), text);
        }
    }

    #[test]
    fn a_refusal_shows_the_answer() {
        let refused = Refused {
            answer: Answer::Error,
            why: "get: key is missing or empty".into(),
        };
        assert_eq!(refused.to_string(), "ERROR");
    }

    #[test]
    fn what_depends_on_options_and_servers() {
        let bad = BadOption::unknown(crate::protocol::OptionValue::Text(b"a: b"));
        let refused = bad_option("mg", &bad);
        assert_eq!(
            refused.to_string(),
            r#"bad options: there is no option "a: b""#
        );
        assert_eq!(refused.why, r#"mg: bad options: there is no option "a: b""#);
        let by = Server::Other { meta: Some(false) };
        let what = "drop_value";
        let refused = not_for_server("md", Unmet::NotSupported { by, what });
        assert_eq!(refused.answer, Answer::NotSupported(by));
        assert_eq!(
            refused.to_string(),
            "not supported by this server: drop_value"
        );
        assert_eq!(refused.why, "md: not supported by this server: drop_value");
        for (unmet, answer, text) in [
            (
                Unmet::VersionUnknown,
                Answer::VersionUnknown,
                "the version of the server is unknown",
            ),
            (
                Unmet::MetaUnknown,
                Answer::MetaUnknown,
                "the version of the server is no number",
            ),
        ] {
            let refused = not_for_server("mg", unmet);
            assert_eq!(refused.answer, answer);
            assert_eq!(refused.to_string(), text);
            assert_eq!(refused.why, format!("mg: {text}"));
        }
    }

    #[test]
    fn without_memory() {
        let refused = Refused::no_memory("get", 7);
        assert_eq!(refused.to_string(), "no memory");
        assert_eq!(refused.why, "get: no memory for 7 bytes");
    }
}
