//! A method applied to a list of servers.

use std::collections::TryReserveError;

use super::method::{Method, Scheme};
use super::name::ketama_name;
use super::ring::Ring;
use super::wheel::Wheel;

/// Sum of weights on the ring of nginx's `hash … consistent`. Each costs 160 points of 8 bytes, and
/// of 4 in the ring's index: 7.5 MiB in all.
pub const MAX_CONSISTENT_WEIGHT: u64 = 4096;

/// Servers in a list. Ketama has up to 160 such points for each.
pub const MAX_MEMBERS: usize = 4096;

/// A server in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Member<'a> {
    /// As the configuration says behind `server`.
    pub server: &'a [u8],
    /// At least 1.
    pub weight: u32,
}

/// Why there is no table for a list.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// The list is empty.
    #[error("no servers")]
    Empty,
    /// More than [`MAX_MEMBERS`].
    #[error("more than {MAX_MEMBERS} servers")]
    TooMany,
    /// A server that gets no keys.
    #[error("a server of weight 0")]
    Weightless,
    /// More than [`MAX_CONSISTENT_WEIGHT`].
    #[error("sum of weights exceeds {MAX_CONSISTENT_WEIGHT} (a weight of 1 is 160 points)")]
    TooHeavy,
    /// There is no memory for it.
    #[error("no memory")]
    NoMemory(#[from] TryReserveError),
}

#[derive(Debug)]
enum Shape {
    /// The only server has all keys.
    One,
    Ring(Ring),
    Wheel(Wheel),
    Rehash(Wheel),
}

/// Which of the servers of a list has a key.
#[derive(Debug)]
pub struct Table {
    method: Method,
    shape: Shape,
    /// Of nothing. To make one anew is to ask what the CPU can do.
    crc: crc32fast::Hasher,
}

impl Table {
    /// The table of a method for a list. What it takes is bounded; a ring of 25 servers takes about
    /// half a millisecond.
    ///
    /// # Errors
    ///
    /// If the list is not for this method, or there is no memory.
    pub fn new(method: Method, members: &[Member<'_>]) -> Result<Table, BuildError> {
        check(method, members)?;
        let names = || members.iter().map(|member| ketama_name(member.server));
        let weights = || members.iter().map(|member| member.weight);
        let shape = match (method.scheme(), members) {
            (_, [_]) => Shape::One,
            (Scheme::Consistent, _) => {
                let named: Vec<_> = members.iter().map(|m| (m.server, m.weight)).collect();
                Shape::Ring(Ring::consistent(&named)?)
            }
            // what libmemcached does as soon as a server has a weight
            (Scheme::KetamaUnweighted, _) if weights().all(|weight| weight == 1) => {
                let names: Vec<_> = names().collect();
                let names = names.iter().map(Vec::as_slice);
                Shape::Ring(Ring::unweighted(names, method.hash())?)
            }
            (Scheme::Ketama | Scheme::KetamaUnweighted, _) => {
                let named: Vec<_> = names().zip(weights()).collect();
                Shape::Ring(Ring::ketama(&named)?)
            }
            (Scheme::Modula, _) => Shape::Wheel(Wheel::new(weights())?),
            (Scheme::Crc, _) => Shape::Rehash(Wheel::new(weights())?),
        };
        Ok(Table::of(method, shape))
    }

    fn of(method: Method, shape: Shape) -> Table {
        let crc = crc32fast::Hasher::new();
        Table { method, shape, crc }
    }

    /// The first server in the order in which a key's are to be tried that `wanted` accepts. The
    /// first of all is the key's own; `wanted` may be asked for a server again.
    pub fn find(&self, key: &[u8], mut wanted: impl FnMut(usize) -> bool) -> Option<usize> {
        let key = self.method.hashed_part(key);
        let hash = || self.method.hash().of(key);
        let mut wanted = |member: &usize| wanted(*member);
        match &self.shape {
            Shape::One => Some(0).filter(wanted),
            Shape::Ring(ring) => {
                let hash = match self.method.scheme() {
                    Scheme::Consistent => {
                        let mut crc = self.crc.clone();
                        crc.update(key);
                        crc.finalize()
                    }
                    _ => hash(),
                };
                ring.walk(hash).find(wanted)
            }
            Shape::Wheel(wheel) => wheel.walk(hash()).find(wanted),
            Shape::Rehash(wheel) => wheel.rehash(key).find(&mut wanted),
        }
    }

    /// The server that a key belongs to.
    pub fn home(&self, key: &[u8]) -> usize {
        self.find(key, |_| true).unwrap_or_default()
    }

    /// Number of points, 0 without a ring.
    pub fn points(&self) -> usize {
        match &self.shape {
            Shape::Ring(ring) => ring.len(),
            _ => 0,
        }
    }
}

fn check(method: Method, members: &[Member<'_>]) -> Result<(), BuildError> {
    if members.is_empty() {
        return Err(BuildError::Empty);
    }
    if members.len() > MAX_MEMBERS {
        return Err(BuildError::TooMany);
    }
    if members.iter().any(|member| member.weight == 0) {
        return Err(BuildError::Weightless);
    }
    let sum: u64 = members.iter().map(|member| u64::from(member.weight)).sum();
    if method.scheme() == Scheme::Consistent && sum > MAX_CONSISTENT_WEIGHT {
        return Err(BuildError::TooHeavy);
    }
    Ok(())
}

// for names of a test that are none of servers
#[cfg(test)]
impl Table {
    pub(super) fn with_nicknames(method: Method, names: &[(Vec<u8>, u32)]) -> Table {
        let shape = Shape::Ring(Ring::ketama(names).unwrap());
        Table::of(method, shape)
    }
}
