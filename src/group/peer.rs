//! The servers of a group, and how a list of them differs from the next.

use std::collections::TryReserveError;

use crate::distribution::{NGINX_PORT, Parts, has_port, parts};

/// A server of a group: one address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Peer {
    /// As the configuration says behind `server`; what is hashed.
    pub server: Box<[u8]>,
    /// The address as text, `10.0.0.1:11211`: for logs, results and pools. Servers at the same
    /// address have the same text.
    pub name: Box<[u8]>,
    /// At least 1.
    pub weight: u32,
    /// Whether it is used only when others are down.
    pub backup: bool,
}

impl Peer {
    /// Where to connect to, as one says it to `connect`: an address, with brackets for IPv6, and a
    /// port, or `unix:/path` and none.
    pub fn endpoint(&self) -> (&[u8], Option<u16>) {
        endpoint(&self.name)
    }

    /// Whether its port is nginx's default, because none is written.
    pub fn has_default_port(&self) -> bool {
        // the name that `service` finds has no port, but its address has one
        matches!(parts(&self.name), Parts::Host(_, Some(NGINX_PORT))) && !has_port(&self.server)
    }
}

/// As [`Peer::endpoint`], of a server with this name.
pub fn endpoint(name: &[u8]) -> (&[u8], Option<u16>) {
    match parts(name) {
        Parts::Host(host, Some(port)) => {
            let port = str::from_utf8(port).ok().and_then(|port| port.parse().ok());
            (host, port)
        }
        Parts::Host(_, None) | Parts::Unix(_) => (name, None),
    }
}

/// Those of `old`, by index, whose address is not in `new`. Their connections are to be closed.
///
/// # Errors
///
/// If there is no memory.
pub fn vanished(old: &[Peer], new: &[Peer]) -> Result<Vec<usize>, TryReserveError> {
    let known = sorted(new, |peer| &peer.name)?;
    let mut gone = Vec::new();
    gone.try_reserve(old.len())?;
    gone.extend((0..).zip(old).filter_map(|(at, peer)| {
        let found = known.binary_search_by_key(&&peer.name, |(name, _)| name);
        found.is_err().then_some(at)
    }));
    Ok(gone)
}

/// For each of `new` the index that it had in `old`: the same server at the same address keeps what
/// was counted for it.
///
/// # Errors
///
/// If there is no memory.
pub fn predecessors(old: &[Peer], new: &[Peer]) -> Result<Vec<Option<usize>>, TryReserveError> {
    let known = sorted(old, identity)?;
    let mut found = Vec::new();
    found.try_reserve(new.len())?;
    found.extend(new.iter().map(|peer| {
        let at = known.binary_search_by_key(&identity(peer), |(key, _)| *key);
        known.get(at.ok()?).map(|(_, index)| *index)
    }));
    Ok(found)
}

/// The indexes of those with one of these names.
///
/// # Errors
///
/// If there is no memory.
pub fn named(peers: &[Peer], names: &[&[u8]]) -> Result<Vec<usize>, TryReserveError> {
    let mut found = Vec::new();
    for name in names {
        for (at, _) in (0..).zip(peers).filter(|(_, peer)| *peer.name == **name) {
            found.try_reserve(1)?;
            found.push(at);
        }
    }
    Ok(found)
}

fn identity(peer: &Peer) -> (&[u8], &[u8], bool) {
    (&peer.server, &peer.name, peer.backup)
}

fn sorted<'a, K: Ord>(
    peers: &'a [Peer],
    key: impl Fn(&'a Peer) -> K,
) -> Result<Vec<(K, usize)>, TryReserveError> {
    let mut sorted = Vec::new();
    sorted.try_reserve_exact(peers.len())?;
    sorted.extend((0..).zip(peers).map(|(at, peer)| (key(peer), at)));
    sorted.sort_unstable();
    Ok(sorted)
}

#[cfg(test)]
impl Peer {
    /// One of weight 1.
    pub(super) fn new(server: &str, address: &str, backup: bool) -> Peer {
        let bytes = |text: &str| text.as_bytes().into();
        Peer {
            server: bytes(server),
            name: bytes(address),
            weight: 1,
            backup,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_to_connect_to() {
        for (name, host, port) in [
            ("10.0.0.1:11211", "10.0.0.1", Some(11211)),
            ("[::1]:80", "[::1]", Some(80)),
            ("unix:/run/m:7", "unix:/run/m:7", None),
        ] {
            let peer = Peer::new("any", name, false);
            assert_eq!(peer.endpoint(), (host.as_bytes(), port));
        }
    }

    #[test]
    fn default_ports() {
        for (server, name, expected) in [
            ("10.0.0.1", "10.0.0.1:80", true),
            ("cache-a", "10.0.0.1:80", true),
            ("[::1]", "[::1]:80", true),
            ("10.0.0.1:80", "10.0.0.1:80", false),
            ("[::1]:80", "[::1]:80", false),
            ("cache-a:11211", "10.0.0.1:11211", false),
            ("unix:/run/m", "unix:/run/m", false),
            ("target", "10.0.0.1:11211", false),
        ] {
            let peer = Peer::new(server, name, false);
            assert_eq!(peer.has_default_port(), expected, "{server}");
        }
    }

    #[test]
    fn what_vanishes_and_what_stays() {
        let old = [
            Peer::new("a", "1", false),
            Peer::new("b", "2", false),
            Peer::new("b", "3", false),
            Peer::new("c", "4", true),
        ];
        let new = [
            Peer::new("c", "4", true),
            Peer::new("b", "3", false),
            Peer::new("x", "2", false),
            Peer::new("y", "5", false),
            Peer::new("c", "4", false),
        ];
        assert_eq!(vanished(&old, &new).unwrap(), [0]);
        assert_eq!(vanished(&new, &old).unwrap(), [3]);
        assert_eq!(vanished(&old, &[]).unwrap(), [0, 1, 2, 3]);
        assert!(vanished(&[], &new).unwrap().is_empty());
        assert_eq!(
            predecessors(&old, &new).unwrap(),
            [Some(3), Some(2), None, None, None]
        );
        assert_eq!(predecessors(&[], &new).unwrap(), [None; 5]);
        assert_eq!(named(&new, &[b"4", b"2", b"9"]).unwrap(), [0, 4, 2]);
        assert!(named(&new, &[]).unwrap().is_empty());
    }
}
