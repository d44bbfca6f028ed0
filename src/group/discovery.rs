//! Lists of servers as ElastiCache and Memorystore give them.
//!
//! `config get cluster` is answered by `CONFIG cluster 0 LENGTH`, the text, and `END`; servers
//! before 1.4.14 have the same text as the value of a key. The text is a version, and in the line
//! below it `host|ip|port`, separated by spaces.

use std::net::IpAddr;

use crate::distribution::MAX_MEMBERS;

/// The question.
pub const ASK: &[u8] = b"config get cluster\r\n";

/// The question for those that answer the first one with `ERROR`.
pub const ASK_OLD: &[u8] = b"get AmazonElastiCache:cluster\r\n";

/// Bytes of an answer's text.
const MAX_LENGTH: usize = 1 << 20;

/// Bytes of an answer's first line.
const MAX_LINE: usize = 256;

/// What an endpoint has said so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The rest is to come.
    Partial,
    /// It does not know the question.
    Unknown,
    /// The list.
    List(Cluster),
}

/// A list of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// It grows with each change.
    pub version: u64,
    /// At least one.
    pub nodes: Vec<Node>,
}

/// A server of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub host: Box<str>,
    /// Its address, if the list has it; else the name is to be resolved.
    pub ip: Option<IpAddr>,
    /// Its port.
    pub port: u16,
}

/// What of a server is hashed, in place of a name behind `server`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKind {
    /// Its host name.
    Host,
    /// Its address.
    Ip,
}

/// Why an answer is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DiscoveryError {
    /// No `CONFIG`, `VALUE`, `END` or `ERROR`.
    #[error("unexpected answer")]
    Unexpected,
    /// More than is sensible.
    #[error("the list is too long")]
    TooLong,
    /// The length does not fit what follows.
    #[error("wrong length")]
    Length,
    /// The first line is no number.
    #[error("no version")]
    Version,
    /// No `host|ip|port`.
    #[error("a server is not written as host|ip|port")]
    Node,
    /// A cluster that is being changed may answer so.
    #[error("the list is empty")]
    Empty,
}

impl Answer {
    /// Reads what has come since the question.
    ///
    /// # Errors
    ///
    /// If it is no list. Then the connection is out of step.
    pub fn read(bytes: &[u8]) -> Result<Answer, DiscoveryError> {
        let Some(end) = memchr::memchr(b'\n', bytes) else {
            return match bytes.len() > MAX_LINE {
                true => Err(DiscoveryError::TooLong),
                false => Ok(Answer::Partial),
            };
        };
        let (line, rest) = bytes.split_at(end.saturating_add(1));
        let line = line
            .strip_suffix(b"\r\n")
            .and_then(|line| str::from_utf8(line).ok())
            .ok_or(DiscoveryError::Unexpected)?;
        let words: Vec<_> = line.split(' ').collect();
        let length = match words.as_slice() {
            ["ERROR" | "END"] if rest.is_empty() => return Ok(Answer::Unknown),
            ["CONFIG", "cluster", _, length]
            | ["VALUE", "AmazonElastiCache:cluster", _, length] => number(length.as_bytes()),
            _ => return Err(DiscoveryError::Unexpected),
        };
        let length = length.ok_or(DiscoveryError::Unexpected)?;
        let length = usize::try_from(length)
            .ok()
            .filter(|length| *length <= MAX_LENGTH)
            .ok_or(DiscoveryError::TooLong)?;
        let Some((text, tail)) = rest.split_at_checked(length) else {
            return Ok(Answer::Partial);
        };
        const TAIL: &[u8] = b"\r\nEND\r\n";
        if tail == TAIL {
            Cluster::parse(text).map(Answer::List)
        } else if TAIL.starts_with(tail) {
            Ok(Answer::Partial)
        } else {
            Err(DiscoveryError::Length)
        }
    }
}

impl Cluster {
    fn parse(text: &[u8]) -> Result<Cluster, DiscoveryError> {
        let text = str::from_utf8(text).map_err(|_| DiscoveryError::Node)?;
        let (version, list) = text.split_once('\n').ok_or(DiscoveryError::Version)?;
        let version = number(version.trim_ascii_end().as_bytes()).ok_or(DiscoveryError::Version)?;
        if !list.is_empty() && !list.ends_with('\n') {
            return Err(DiscoveryError::Length);
        }
        let nodes = list
            .split_ascii_whitespace()
            .map(|node| Node::parse(node).ok_or(DiscoveryError::Node))
            // one more tells that there are too many
            .take(MAX_MEMBERS.saturating_add(1))
            .collect::<Result<Vec<_>, _>>()?;
        match nodes.len() {
            0 => Err(DiscoveryError::Empty),
            1..=MAX_MEMBERS => Ok(Cluster { version, nodes }),
            _ => Err(DiscoveryError::TooLong),
        }
    }

    /// Whether it is to replace the list of that version.
    pub fn is_newer_than(&self, version: Option<u64>) -> bool {
        version.is_none_or(|version| self.version > version)
    }
}

impl Node {
    fn parse(text: &str) -> Option<Node> {
        let mut fields = text.split('|');
        let (host, ip, port) = (fields.next()?, fields.next()?, fields.next()?);
        let known = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':');
        if fields.next().is_some() || host.is_empty() || !host.chars().all(known) {
            return None;
        }
        Some(Node {
            host: host.into(),
            ip: match ip {
                "" => None,
                ip => Some(ip.parse().ok()?),
            },
            port: u16::try_from(number(port.as_bytes())?)
                .ok()
                .filter(|port| *port > 0)?,
        })
    }

    /// Its name, as a configuration would say it behind `server`: for [`super::Peer::server`].
    /// Without an address in the list, it is the host.
    pub fn server(&self, kind: NameKind) -> String {
        let port = self.port;
        match (kind, self.ip) {
            (NameKind::Ip, Some(IpAddr::V6(ip))) => format!("[{ip}]:{port}"),
            (NameKind::Ip, Some(IpAddr::V4(ip))) => format!("{ip}:{port}"),
            _ if self.host.contains(':') => format!("[{}]:{port}", self.host),
            _ => format!("{}:{port}", self.host),
        }
    }
}

fn number(digits: &[u8]) -> Option<u64> {
    let all = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
    str::from_utf8(digits).ok().filter(|_| all)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Vec<u8> {
        format!("CONFIG cluster 0 {}\r\n{text}\r\nEND\r\n", text.len()).into_bytes()
    }

    fn list(text: &str) -> Result<Vec<String>, DiscoveryError> {
        match Answer::read(&config(text))? {
            Answer::List(cluster) => {
                let text = |node: &Node| format!("{} {:?}", node.server(NameKind::Host), node.ip);
                Ok(cluster.nodes.iter().map(text).collect())
            }
            other => panic!("{other:?}"),
        }
    }

    const TWO: &str = "12\na.cfg.example|10.82.235.120|11211 b.cfg.example||11212\n";

    #[test]
    fn a_list() {
        assert_eq!(
            list(TWO).unwrap(),
            [
                "a.cfg.example:11211 Some(10.82.235.120)",
                "b.cfg.example:11212 None"
            ]
        );
        let Ok(Answer::List(cluster)) = Answer::read(&config(TWO)) else {
            panic!()
        };
        assert_eq!(cluster.version, 12);
        let old = format!(
            "VALUE AmazonElastiCache:cluster 0 {}\r\n{TWO}\r\nEND\r\n",
            TWO.len()
        );
        assert_eq!(
            Answer::read(old.as_bytes()),
            Ok(Answer::List(cluster.clone()))
        );
        for (version, newer) in [
            (None, true),
            (Some(11), true),
            (Some(12), false),
            (Some(13), false),
        ] {
            assert_eq!(cluster.is_newer_than(version), newer);
        }
        // empty lines and a carriage return
        assert_eq!(
            list("1\r\na||1\n\n b||2\r\n\n").unwrap(),
            ["a:1 None", "b:2 None"]
        );
    }

    #[test]
    fn it_may_come_in_any_pieces() {
        let whole = config(TWO);
        for end in 0..whole.len() {
            assert_eq!(Answer::read(&whole[..end]), Ok(Answer::Partial), "{end}");
        }
        assert!(matches!(Answer::read(&whole), Ok(Answer::List(_))));
    }

    #[test]
    fn those_that_do_not_know() {
        assert_eq!(Answer::read(b"ERROR\r\n"), Ok(Answer::Unknown));
        assert_eq!(Answer::read(b"END\r\n"), Ok(Answer::Unknown));
    }

    #[test]
    fn garbage() {
        for (bytes, error) in [
            (&b"ERROR\r\nERROR\r\n"[..], DiscoveryError::Unexpected),
            (b"ERROR\n", DiscoveryError::Unexpected),
            (b"\r\n", DiscoveryError::Unexpected),
            (b"\xff\r\n", DiscoveryError::Unexpected),
            (b"CONFIG cluster 0\r\n", DiscoveryError::Unexpected),
            (b"CONFIG cluster 0 -1\r\n", DiscoveryError::Unexpected),
            (b"CONFIG cluster 0 1 2\r\n", DiscoveryError::Unexpected),
            (b"CONFIG other 0 1\r\n", DiscoveryError::Unexpected),
            (b"VALUE cluster 0 1\r\n", DiscoveryError::Unexpected),
            (b"CONFIG cluster 0 1048577\r\n", DiscoveryError::TooLong),
            (
                b"CONFIG cluster 0 99999999999999999999\r\n",
                DiscoveryError::Unexpected,
            ),
            (
                b"CONFIG cluster 0 3\r\n1\na||1\n\r\nEND\r\n",
                DiscoveryError::Length,
            ),
            (
                b"CONFIG cluster 0 2\r\n1\n\r\nEND\r\nx",
                DiscoveryError::Length,
            ),
            (&[b'x'; 257], DiscoveryError::TooLong),
        ] {
            assert_eq!(Answer::read(bytes), Err(error), "{}", bytes.escape_ascii());
        }
        assert_eq!(Answer::read(&[b'x'; 256]), Ok(Answer::Partial));
        assert_eq!(
            Answer::read(b"CONFIG cluster 0 1048576\r\n"),
            Ok(Answer::Partial)
        );
    }

    #[test]
    fn lists_of_no_use() {
        for (text, error) in [
            ("", DiscoveryError::Version),
            ("12", DiscoveryError::Version),
            ("x\na||1\n", DiscoveryError::Version),
            ("-1\na||1\n", DiscoveryError::Version),
            ("1\na||1", DiscoveryError::Length),
            ("1\n", DiscoveryError::Empty),
            ("1\n \n", DiscoveryError::Empty),
            ("1\na|1\n", DiscoveryError::Node),
            ("1\na|||1\n", DiscoveryError::Node),
            ("1\na||1|\n", DiscoveryError::Node),
            ("1\n||1\n", DiscoveryError::Node),
            ("1\na||0\n", DiscoveryError::Node),
            ("1\na||65536\n", DiscoveryError::Node),
            ("1\na||1x\n", DiscoveryError::Node),
            ("1\na||+1\n", DiscoveryError::Node),
            ("1\na||\n", DiscoveryError::Node),
            ("1\na|10.0.0.256|1\n", DiscoveryError::Node),
            ("1\na/b||1\n", DiscoveryError::Node),
            ("1\na\u{e9}||1\n", DiscoveryError::Node),
        ] {
            assert_eq!(list(text), Err(error), "{text:?}");
        }
        let many = |count| format!("1\n{}\n", "a||1 ".repeat(count));
        assert_eq!(list(&many(MAX_MEMBERS + 1)), Err(DiscoveryError::TooLong));
        assert_eq!(list(&many(MAX_MEMBERS)).unwrap().len(), MAX_MEMBERS);
    }

    #[test]
    fn names() {
        let node = |text| Node::parse(text).unwrap();
        let both = |node: Node| [NameKind::Host, NameKind::Ip].map(|kind| node.server(kind));
        assert_eq!(both(node("a|10.0.0.1|7")), ["a:7", "10.0.0.1:7"]);
        assert_eq!(both(node("a||7")), ["a:7", "a:7"]);
        assert_eq!(both(node("a|::1|7")), ["a:7", "[::1]:7"]);
        assert_eq!(both(node("::1|::1|7")), ["[::1]:7", "[::1]:7"]);
    }
}
