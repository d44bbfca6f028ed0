//! What a server can do, by its version.

use std::fmt;

/// The version of a memcached.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Version {
    major: u16,
    minor: u16,
    patch: u16,
}

impl Version {
    /// Major, minor and patch version.
    pub const fn new(major: u16, minor: u16, patch: u16) -> Self {
        Version {
            major,
            minor,
            patch,
        }
    }

    /// The three numbers at the beginning of what follows `VERSION`, which may go on with anything
    /// but a digit: `1.6.38`, `1.6.21_ubuntu`.
    pub fn parse(text: &[u8]) -> Option<Self> {
        let (major, rest) = number(text)?;
        let (minor, rest) = number(rest.strip_prefix(b".")?)?;
        let (patch, _) = number(rest.strip_prefix(b".")?)?;
        Some(Version::new(major, minor, patch))
    }
}

/// The digits at the beginning of `text` as a number, and what follows them.
fn number(text: &[u8]) -> Option<(u16, &[u8])> {
    let len = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let (digits, rest) = text.split_at_checked(len)?;
    Some((std::str::from_utf8(digits).ok()?.parse().ok()?, rest))
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What a connection's server has said of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Server {
    /// Nothing yet.
    #[default]
    Unknown,
    /// Its version.
    Memcached(Version),
    /// A version that is no number.
    Other {
        /// Whether it knows meta commands, if it was asked.
        meta: Option<bool>,
    },
}

/// Why a server is not to be sent a command.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Unmet {
    /// Its version has to be asked for first.
    #[error("the version of the server is unknown")]
    VersionUnknown,
    /// It has to be asked first whether it has meta commands; its version does not tell.
    #[error("the version of the server is no number")]
    MetaUnknown,
    /// It would take it for something else, or ignore a part of it.
    #[error("not supported by {by}: {what}")]
    NotSupported {
        /// What is known of the server.
        by: Server,
        /// What it cannot do.
        what: &'static str,
    },
}

/// A server with meta commands whose version is no number is trusted with what this one knows: the
/// oldest that has no known faults.
const ASSUMED: Version = Version::new(1, 6, 18);

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Server::Memcached(version) => write!(f, "memcached {version}"),
            Server::Unknown | Server::Other { .. } => f.write_str("this server"),
        }
    }
}

impl Server {
    /// With what follows `VERSION`. What it said of meta commands stays if that is no number.
    pub(super) fn with_version(self, text: &[u8]) -> Self {
        match (Version::parse(text), self) {
            (Some(version), _) => Server::Memcached(version),
            (None, Server::Other { meta }) => Server::Other { meta },
            (None, _) => Server::Other { meta: None },
        }
    }

    /// With its answer to `mn`. A version says more.
    pub(super) fn with_meta(self, meta: bool) -> Self {
        match self {
            Server::Memcached(_) => self,
            _ => Server::Other { meta: Some(meta) },
        }
    }

    /// Whether it can do what a command needs.
    ///
    /// # Errors
    ///
    /// It cannot, or it has to be asked first.
    pub(super) fn allows(self, needs: Needs) -> Result<(), Unmet> {
        let not_supported = |what| {
            let by = self;
            Err(Unmet::NotSupported { by, what })
        };
        let version = match self {
            Server::Unknown => return Err(Unmet::VersionUnknown),
            Server::Other { meta: None } => return Err(Unmet::MetaUnknown),
            Server::Other { meta: Some(false) } => return not_supported(Needs::META.what),
            Server::Other { meta: Some(true) } => ASSUMED,
            Server::Memcached(version) if version < Needs::META.since => {
                return not_supported(Needs::META.what);
            }
            Server::Memcached(version) => version,
        };
        match version < needs.since {
            true => not_supported(needs.what),
            false => Ok(()),
        }
    }
}

/// The oldest version that a command is for, and because of what.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Needs {
    pub(super) since: Version,
    pub(super) what: &'static str,
}

impl Needs {
    /// Of every meta command. Before, the syntax was another one, and a server took the value of a
    /// `ms` for commands.
    pub(super) const META: Self = Needs::since(1, 6, 10, "meta commands");

    pub(super) const fn since(major: u16, minor: u16, patch: u16, what: &'static str) -> Self {
        Needs {
            since: Version::new(major, minor, patch),
            what,
        }
    }

    /// Both.
    pub(super) fn and(self, other: Self) -> Self {
        if other.since > self.since {
            other
        } else {
            self
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions() {
        for (text, version) in [
            ("1.6.18", Some(Version::new(1, 6, 18))),
            ("1.6.21_ubuntu", Some(Version::new(1, 6, 21))),
            ("1.6.9-rc1", Some(Version::new(1, 6, 9))),
            ("12.0.345", Some(Version::new(12, 0, 345))),
            ("1.6", None),
            ("1.6.", None),
            ("1..6", None),
            ("1,6,18", None),
            ("1.6,18", None),
            ("v1.6.18", None),
            ("1.6.65536", None),
            ("", None),
        ] {
            assert_eq!(Version::parse(text.as_bytes()), version, "{text}");
        }
        assert_eq!(Version::new(1, 6, 18).to_string(), "1.6.18");
    }

    #[test]
    fn versions_in_order() {
        let all = [(1, 4, 99), (1, 6, 9), (1, 6, 10), (1, 10, 0), (2, 0, 0)];
        let all = all.map(|(major, minor, patch)| Version::new(major, minor, patch));
        assert!(all.is_sorted_by(|a, b| a < b));
    }

    #[test]
    fn what_a_server_can_do() {
        let other = |meta| Server::Other { meta };
        let newer = Needs::since(1, 6, 27, "own cas");
        let answer = |server: Server, needs| server.allows(needs).map_err(|no| no.to_string());
        let no = |text: &str| Err(text.to_owned());
        let unknown = no("the version of the server is unknown");
        assert_eq!(answer(Server::Unknown, Needs::META), unknown);
        for (text, needs, want) in [
            (
                "1.6.9",
                Needs::META,
                no("not supported by memcached 1.6.9: meta commands"),
            ),
            (
                "1.6.9",
                newer,
                no("not supported by memcached 1.6.9: meta commands"),
            ),
            ("1.6.10", Needs::META, Ok(())),
            (
                "1.6.26",
                newer,
                no("not supported by memcached 1.6.26: own cas"),
            ),
            ("1.6.27", newer, Ok(())),
        ] {
            let server = Server::Unknown.with_version(text.as_bytes());
            assert_eq!(answer(server, needs), want, "{text}");
        }
        assert_eq!(Server::Unknown.with_version(b"mcrouter"), other(None));
        let asked = other(None).allows(Needs::META);
        assert_eq!(asked, Err(Unmet::MetaUnknown));
        let without = no("not supported by this server: meta commands");
        assert_eq!(answer(other(Some(false)), newer), without);
        assert_eq!(answer(other(Some(true)), Needs::META), Ok(()));
        let as_assumed = Needs::since(1, 6, 18, "");
        assert_eq!(answer(other(Some(true)), as_assumed), Ok(()));
        let without = no("not supported by this server: own cas");
        assert_eq!(answer(other(Some(true)), newer), without);
    }

    #[test]
    fn answers_add_up() {
        let (plain, number) = (&b"mcrouter"[..], &b"1.6.27"[..]);
        let version = Server::Memcached(Version::new(1, 6, 27));
        for meta in [false, true] {
            let other = Server::Unknown.with_version(plain).with_meta(meta);
            assert_eq!(other, Server::Other { meta: Some(meta) });
            assert_eq!(other.with_version(plain), other);
            assert_eq!(other.with_version(number), version);
            assert_eq!(version.with_meta(meta), version);
            assert_eq!(Server::Unknown.with_meta(meta), other);
        }
        let replaced = Server::Other { meta: None };
        assert_eq!(version.with_version(plain), replaced);
    }

    #[test]
    fn the_newest_need_counts() {
        let newer = Needs::since(1, 6, 27, "own cas");
        assert_eq!(Needs::META.and(newer), newer);
        assert_eq!(newer.and(Needs::META), newer);
        let same = Needs::since(1, 6, 10, "other");
        assert_eq!(Needs::META.and(same), Needs::META);
    }
}
