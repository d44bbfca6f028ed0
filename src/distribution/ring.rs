//! Points on a ring: a key belongs to the server of the first point from its hash on.

use std::collections::TryReserveError;
use std::io::Write as _;

use super::hash::{KeyHash, md5_words};
use super::name::{Parts, parts};

/// Points of a server of weight 1 on nginx's ring, and of an average one on that of weighted
/// ketama.
pub const POINTS: usize = 160;

/// Points of a server on the ring of unweighted ketama.
const UNWEIGHTED_POINTS: usize = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    hash: u32,
    member: u32,
}

/// A ring; the servers on it are numbers from 0 on.
#[derive(Debug)]
pub struct Ring {
    /// Sorted. Of points with equal hashes the first server's is first.
    points: Vec<Point>,
    /// All hashes are cut into a power of two of equal parts. This is where the points of each
    /// begin, followed by the number of points.
    starts: Vec<u32>,
    /// Bits of a hash behind those that number its part.
    shift: u32,
}

impl Ring {
    /// The ring of nginx's `hash … consistent`. `members`: names as written behind `server`, and
    /// weights.
    pub fn consistent(members: &[(&[u8], u32)]) -> Result<Ring, TryReserveError> {
        let of = |weight: u32| POINTS.saturating_mul(weight as usize);
        let mut ring = Ring::with_room(members.iter().map(|(_, weight)| of(*weight)).sum())?;
        for (member, (name, weight)) in (0..).zip(members) {
            let mut base = crc32fast::Hasher::new();
            match parts(name) {
                Parts::Unix(path) => base.update(&[path, b"\0"].concat()),
                Parts::Host(host, port) => {
                    base.update(host);
                    base.update(b"\0");
                    base.update(port.unwrap_or_default());
                }
            }
            let base = base.finalize();
            let mut hash = 0u32;
            for _ in 0..of(*weight) {
                let mut next = crc32fast::Hasher::new_with_initial(base);
                next.update(&hash.to_le_bytes());
                hash = next.finalize();
                ring.points.push(Point { hash, member });
            }
        }
        ring.points.sort_unstable();
        // nginx keeps one point of each hash
        ring.points.dedup_by_key(|point| point.hash);
        ring.indexed()
    }

    /// The ring of weighted ketama. `members`: [`super::ketama_name`]s and weights.
    pub fn ketama(members: &[(Vec<u8>, u32)]) -> Result<Ring, TryReserveError> {
        let sum = members.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let digests = |weight| digests(weight, sum, members.len());
        let wanted = members.iter().map(|(_, weight)| digests(*weight) * 4).sum();
        let mut ring = Ring::with_room(wanted)?;
        let mut text = Vec::new();
        for (member, (name, weight)) in (0..).zip(members) {
            for number in 0..digests(*weight) {
                let words = md5_words(numbered(&mut text, name, number));
                ring.points.extend(words.map(|hash| Point { hash, member }));
            }
        }
        ring.points.sort_unstable();
        ring.indexed()
    }

    /// The ring of unweighted ketama, whose points are hashed as keys are.
    pub fn unweighted<'a>(
        names: impl ExactSizeIterator<Item = &'a [u8]>,
        hash: KeyHash,
    ) -> Result<Ring, TryReserveError> {
        let mut ring = Ring::with_room(names.len().saturating_mul(UNWEIGHTED_POINTS))?;
        let mut text = Vec::new();
        for (member, name) in (0..).zip(names) {
            ring.points.extend((0..UNWEIGHTED_POINTS).map(|number| {
                let hash = hash.of(numbered(&mut text, name, number));
                Point { hash, member }
            }));
        }
        ring.points.sort_unstable();
        ring.indexed()
    }

    fn with_room(points: usize) -> Result<Ring, TryReserveError> {
        let mut ring = Ring {
            points: Vec::new(),
            starts: Vec::new(),
            shift: 0,
        };
        ring.points.try_reserve_exact(points)?;
        Ok(ring)
    }

    /// With as many parts as points, or fewer, but more than half as many: a part has one point or
    /// two if hashes are spread evenly.
    fn indexed(mut self) -> Result<Ring, TryReserveError> {
        let bits = self.points.len().max(2).ilog2();
        self.shift = 32 - bits;
        let parts = 1u64 << bits;
        self.starts.try_reserve_exact(parts as usize + 1)?;
        let mut points = (0..).zip(&self.points).peekable();
        for part in 0..=parts {
            let first = part << self.shift;
            while points
                .next_if(|(_, point)| u64::from(point.hash) < first)
                .is_some()
            {}
            let at = points.peek().map(|(at, _)| *at);
            self.starts.push(at.unwrap_or(self.points.len() as u32));
        }
        Ok(self)
    }

    /// The number of points below a hash.
    fn below(&self, hash: u32) -> usize {
        let part = (hash >> self.shift) as usize;
        let Some(&[from, to]) = self.starts.get(part..part + 2) else {
            return 0;
        };
        let of_part = self.points.get(from as usize..to as usize);
        let of_part = of_part.unwrap_or_default();
        from as usize + of_part.partition_point(|point| point.hash < hash)
    }

    /// The server of a hash, and behind it those of the following points, once around.
    pub fn walk(&self, hash: u32) -> impl Iterator<Item = usize> {
        let at = self.below(hash);
        let (before, from) = self.points.split_at(at);
        from.iter().chain(before).map(|point| point.member as usize)
    }

    /// Number of points.
    pub fn len(&self) -> usize {
        self.points.len()
    }
}

/// Of a server's points four come from one digest. libmemcached computes their number in binary32,
/// from left to right.
fn digests(weight: u32, sum: u64, servers: usize) -> usize {
    let share = weight as f32 / sum as f32;
    (share * POINTS as f32 / 4.0 * servers as f32 + 1e-10).floor() as usize
}

/// `name-number`
fn numbered<'a>(text: &'a mut Vec<u8>, name: &[u8], number: usize) -> &'a [u8] {
    text.clear();
    text.extend_from_slice(name);
    // writing to a vector does not fail
    let _ = write!(text, "-{number}");
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(points: &[(u32, u32)]) -> Ring {
        let point = |(hash, member): &(u32, u32)| Point {
            hash: *hash,
            member: *member,
        };
        let mut ring = Ring::with_room(points.len()).unwrap();
        ring.points.extend(points.iter().map(point));
        ring.indexed().unwrap()
    }

    #[test]
    fn a_walk_begins_at_the_successor_and_goes_around() {
        let ring = ring(&[(10, 0), (20, 1), (20, 2), (30, 3)]);
        let walk = |hash| ring.walk(hash).collect::<Vec<_>>();
        assert_eq!(walk(0), [0, 1, 2, 3]);
        assert_eq!(walk(10), [0, 1, 2, 3]);
        assert_eq!(walk(11), [1, 2, 3, 0]);
        assert_eq!(walk(20), [1, 2, 3, 0]);
        assert_eq!(walk(30), [3, 0, 1, 2]);
        assert_eq!(walk(31), [0, 1, 2, 3]);
        assert_eq!(walk(u32::MAX), [0, 1, 2, 3]);
    }

    #[test]
    fn the_index_finds_what_a_search_does() {
        // one point, none in most parts, all in one part, and at both ends
        let one = [(7, 0)];
        let narrow: Vec<_> = (0..100).map(|n| (0x8000_0000 + n, n)).collect();
        let wide: Vec<_> = (0..=64u32)
            .map(|n| (n.saturating_mul(1 << 26), n))
            .collect();
        let ends = [(0, 0), (0, 1), (u32::MAX, 2), (u32::MAX, 3)];
        for points in [&one[..], &narrow, &wide, &ends, &[]] {
            let ring = ring(points);
            let near = |hash: u32| [hash.wrapping_sub(1), hash, hash.wrapping_add(1)];
            for hash in points.iter().flat_map(|(hash, _)| near(*hash)) {
                let below = points.iter().filter(|(point, _)| *point < hash).count();
                assert_eq!(ring.below(hash), below, "{hash} in {points:?}");
            }
            assert_eq!(ring.walk(1).count(), points.len());
            assert_eq!(ring.starts.capacity(), ring.starts.len());
            // at most as many parts as points
            assert!(ring.starts.len() <= points.len().max(2) + 1);
            assert!(ring.starts.len() > points.len() / 2 + 1);
        }
    }

    #[test]
    fn numbers_of_points() {
        assert_eq!(digests(1, 5, 5), 40);
        assert_eq!(digests(7, 35, 5), 40);
        // 1/11, 2/11, 3/11 and 5/11 of 4 * 40
        assert_eq!([1, 2, 3, 5].map(|w| digests(w, 11, 4)), [14, 29, 43, 72]);
        assert_eq!(digests(1, 1_000_001, 2), 0);
        assert_eq!(digests(u32::MAX, u64::from(u32::MAX) * 3, 3), 40);
    }

    #[test]
    fn equal_hashes_are_one_point_for_nginx_and_in_order_for_ketama() {
        let twins = Ring::consistent(&[(b"a:1", 1), (b"a:1", 2)]).unwrap();
        assert_eq!(twins.len(), 320);
        assert_eq!(twins.walk(0).filter(|member| *member == 0).count(), 160);

        let twins = Ring::ketama(&[(b"a".to_vec(), 1), (b"a".to_vec(), 1)]).unwrap();
        assert_eq!(twins.len(), 320);
        let members: Vec<_> = twins.walk(0).collect();
        assert!(members.chunks(2).all(|pair| pair == [0, 1]));

        let twins = Ring::unweighted([b"a".as_slice(); 2].into_iter(), KeyHash::Crc).unwrap();
        assert_eq!(twins.len(), 200);
    }

    #[test]
    fn no_more_room_than_points() {
        let weighted = [1, 2, 3, 5].map(|weight| (weight.to_string().into_bytes(), weight));
        let ring = Ring::ketama(&weighted).unwrap();
        assert_eq!(ring.points.capacity(), (14 + 29 + 43 + 72) * 4);
        let ring = Ring::consistent(&[(b"a", 1), (b"b", 3)]).unwrap();
        assert_eq!(ring.points.capacity(), 640);
        let ring = Ring::unweighted([b"a".as_slice()].into_iter(), KeyHash::Crc).unwrap();
        assert_eq!(ring.points.capacity(), 100);
    }

    #[test]
    fn a_unix_socket_has_an_empty_port_on_nginxs_ring() {
        let hashes = |name: &[u8]| -> Vec<u32> {
            let ring = Ring::consistent(&[(name, 1)]).unwrap();
            ring.points.iter().map(|point| point.hash).collect()
        };
        assert_eq!(hashes(b"unix:/m"), hashes(b"/m"));
        assert_eq!(hashes(b"unix:/m:7"), hashes(b"uNiX:/m:7"));
        assert_ne!(hashes(b"unix:/m:7"), hashes(b"/m:7"));
        assert_ne!(hashes(b"a:80"), hashes(b"a"));
    }
}
