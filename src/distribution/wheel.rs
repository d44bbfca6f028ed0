//! Hash modulo the sum of weights.

use std::collections::TryReserveError;
use std::io::Write as _;

use super::hash::fifteen_bits;

/// How often nginx hashes a key again when the server that it found is not usable.
const REHASHES: u32 = 20;

/// Servers in the order of the configuration, each as often as its weight says.
#[derive(Debug)]
pub struct Wheel {
    /// Sums of the weights up to each server and with it.
    ends: Vec<u64>,
}

impl Wheel {
    /// At least one weight is not 0.
    pub fn new(weights: impl ExactSizeIterator<Item = u32>) -> Result<Wheel, TryReserveError> {
        let mut ends = Vec::new();
        ends.try_reserve_exact(weights.len())?;
        ends.extend(weights.scan(0, |end, weight| {
            *end += u64::from(weight);
            Some(*end)
        }));
        Ok(Wheel { ends })
    }

    fn at(&self, hash: u64) -> usize {
        let sum = self.ends.last().copied().unwrap_or_default().max(1);
        let place = hash % sum;
        self.ends.partition_point(|end| *end <= place)
    }

    /// The server of a hash, and behind it the others in their order.
    pub fn walk(&self, hash: u32) -> impl Iterator<Item = usize> {
        self.from(self.at(hash.into()))
    }

    fn from(&self, first: usize) -> impl Iterator<Item = usize> + use<> {
        (first..self.ends.len()).chain(0..first)
    }

    /// nginx's `hash`: the server of a key, then those of the key hashed again, `REHASHES` times.
    /// From the last one on follow the others in their order (nginx goes on by round robin there,
    /// which a cache has no use for).
    pub fn rehash<'a>(&'a self, key: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
        let mut sum = 0u64;
        let mut last = 0;
        let mut text = Vec::new();
        let mut places = (0..=REHASHES).map(move |rehash| {
            text.clear();
            if rehash > 0 {
                // writing to a vector does not fail
                let _ = write!(text, "{rehash}");
            }
            let mut crc = crc32fast::Hasher::new();
            crc.update(&text);
            crc.update(key);
            sum += u64::from(fifteen_bits(crc.finalize()));
            self.at(sum)
        });
        let mut rest = None;
        std::iter::from_fn(move || {
            if let Some(place) = places.next() {
                last = place;
                return Some(place);
            }
            rest.get_or_insert_with(|| self.from(last)).next()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wheel(weights: &[u32]) -> Wheel {
        Wheel::new(weights.iter().copied()).unwrap()
    }

    #[test]
    fn each_as_often_as_its_weight() {
        let wheel = wheel(&[1, 0, 2, 3]);
        let firsts: Vec<_> = (0..7).map(|hash| wheel.at(hash)).collect();
        assert_eq!(firsts, [0, 2, 2, 3, 3, 3, 0]);
        assert_eq!(wheel.walk(1).collect::<Vec<_>>(), [2, 3, 0, 1]);
        assert_eq!(wheel.walk(6).collect::<Vec<_>>(), [0, 1, 2, 3]);
    }

    #[test]
    fn great_weights() {
        let wheel = wheel(&[u32::MAX, u32::MAX, 1]);
        assert_eq!(wheel.at(u64::from(u32::MAX) - 1), 0);
        assert_eq!(wheel.at(u64::from(u32::MAX)), 1);
        assert_eq!(wheel.at(u64::from(u32::MAX) * 2), 2);
    }

    #[test]
    fn hashed_again_20_times_then_in_order() {
        let wheel = wheel(&[1; 5]);
        let walk: Vec<_> = wheel.rehash(b"key").collect();
        assert_eq!(walk.len(), 21 + 5);
        // by hand: the sums of (crc32(n "key") >> 16) & 0x7fff
        let mut sum = 0u64;
        for (n, place) in walk.iter().take(21).enumerate() {
            let text = if n > 0 {
                format!("{n}key")
            } else {
                "key".into()
            };
            sum += u64::from(crc32fast::hash(text.as_bytes()) >> 16 & 0x7fff);
            assert_eq!(*place as u64, sum % 5);
        }
        let last = walk[20];
        let rest: Vec<_> = (last..5).chain(0..last).collect();
        assert_eq!(walk[21..], rest);
    }
}
