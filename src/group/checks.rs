//! Checks of disabled servers: each is asked for its version until it has answered often enough.

use std::collections::TryReserveError;

use super::peer::Peer;

/// Bytes of an answer.
const MAX_ANSWER: usize = 256;

/// What the server has said since it was asked `version`: whether it is in order, or nothing if the
/// rest is to come.
pub fn version_answer(bytes: &[u8]) -> Option<bool> {
    const BEGIN: &[u8] = b"VERSION ";
    match memchr::memchr(b'\n', bytes) {
        Some(end) => {
            let version = bytes
                .strip_prefix(BEGIN)
                .and_then(|rest| rest.strip_suffix(b"\r\n"));
            let one_line = end.saturating_add(1) == bytes.len() && bytes.len() <= MAX_ANSWER;
            Some(one_line && version.is_some_and(|version| !version.is_empty()))
        }
        None if bytes.len() >= MAX_ANSWER => Some(false),
        None => {
            let begun = BEGIN.get(..bytes.len()).unwrap_or(BEGIN);
            (!bytes.starts_with(begun)).then_some(false)
        }
    }
}

/// How often disabled servers have passed a check, since each was disabled or failed one.
#[derive(Debug)]
pub struct Passes {
    needed: u32,
    counts: Vec<(Peer, u32)>,
}

impl Passes {
    /// A server is used again after so many in a row.
    pub fn new(needed: u32) -> Passes {
        Passes {
            needed,
            counts: Vec::new(),
        }
    }

    /// These servers are disabled now. Others begin anew when they are.
    pub fn keep(&mut self, disabled: &[Peer]) {
        self.counts.retain(|(peer, _)| disabled.contains(peer));
    }

    /// A server has passed. True if it has often enough.
    ///
    /// # Errors
    ///
    /// If there is no memory.
    pub fn pass(&mut self, peer: &Peer) -> Result<bool, TryReserveError> {
        let at = self.counts.iter().position(|(known, _)| known == peer);
        let before = at
            .and_then(|at| self.counts.get(at))
            .map_or(0, |(_, count)| *count);
        let count = before.saturating_add(1);
        if count >= self.needed {
            self.fail(peer);
            return Ok(true);
        }
        match at.and_then(|at| self.counts.get_mut(at)) {
            Some((_, known)) => *known = count,
            None => {
                self.counts.try_reserve(1)?;
                self.counts.push((peer.clone(), count));
            }
        }
        Ok(false)
    }

    /// A server has not passed: it begins anew.
    pub fn fail(&mut self, peer: &Peer) {
        self.counts.retain(|(known, _)| known != peer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(name: &str) -> Peer {
        Peer::new(name, name, false)
    }

    #[test]
    fn versions() {
        let whole = b"VERSION 1.6.18\r\n";
        for end in 0..whole.len() {
            assert_eq!(version_answer(&whole[..end]), None, "{end}");
        }
        assert_eq!(version_answer(whole), Some(true));
        assert_eq!(version_answer(b"VERSION x\r\n"), Some(true));
        for bytes in [
            &b"VERSION 1.6.18\n"[..],
            b"VERSION \r\n",
            b"VERSION 1\r\nx",
            b"VERSION 1\r\nVERSION 1\r\n",
            b"ERROR\r\n",
            b"version 1\r\n",
            b"\r\n",
            b"X",
            b"VERSIONS",
            b"SERVER_ERROR out of memory",
        ] {
            assert_eq!(
                version_answer(bytes),
                Some(false),
                "{}",
                bytes.escape_ascii()
            );
        }
        let long = |length: usize| {
            let mut text = b"VERSION ".to_vec();
            text.resize(length, b'1');
            text
        };
        assert_eq!(version_answer(&long(255)), None);
        assert_eq!(version_answer(&long(256)), Some(false));
        let ended = |length: usize| [&long(length)[..], b"\r\n"].concat();
        assert_eq!(version_answer(&ended(254)), Some(true));
        assert_eq!(version_answer(&ended(255)), Some(false));
    }

    #[test]
    fn so_many_in_a_row() {
        let (a, b) = (peer("a"), peer("b"));
        let mut passes = Passes::new(3);
        assert!(!passes.pass(&a).unwrap());
        assert!(!passes.pass(&a).unwrap());
        assert!(!passes.pass(&b).unwrap());
        assert!(passes.pass(&a).unwrap());
        // it begins anew
        assert!(!passes.pass(&a).unwrap());
        assert!(!passes.pass(&b).unwrap());
        passes.fail(&b);
        assert!(!passes.pass(&b).unwrap());
        assert!(!passes.pass(&b).unwrap());
        assert!(passes.pass(&b).unwrap());
        let mut once = Passes::new(1);
        assert!(once.pass(&a).unwrap());
        assert!(once.pass(&a).unwrap());
    }

    #[test]
    fn one_that_is_used_meanwhile_begins_anew() {
        let (a, b) = (peer("a"), peer("b"));
        let mut passes = Passes::new(2);
        assert!(!passes.pass(&a).unwrap());
        assert!(!passes.pass(&b).unwrap());
        passes.keep(std::slice::from_ref(&b));
        assert!(passes.pass(&b).unwrap());
        assert!(!passes.pass(&a).unwrap());
    }
}
