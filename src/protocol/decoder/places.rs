//! Finds the keys of a reply in the command.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::protocol::reply::Malformed;

/// Number of words that a search may skip, besides one for each requested key.
const FREE_STEPS: usize = 64;

/// The search for the keys of one reply among the requested keys. Servers reply in the order of the
/// request and leave out misses, which takes one step per key. Proxies may reply in another order;
/// then an index is built.
#[derive(Default)]
pub(super) struct Search {
    /// Words skipped.
    steps: usize,
    index: Option<Box<Index>>,
}

impl Search {
    /// Looks for `key` among the `count` words of `keys`, from `from` on and then from the
    /// beginning. Returns where to continue.
    pub(super) fn find(
        &mut self,
        keys: &[u8],
        count: usize,
        from: usize,
        key: &[u8],
    ) -> Result<usize, Malformed> {
        if let Some(index) = &self.index {
            return index.find(keys, key).ok_or(Malformed::UnexpectedKey);
        }
        let (before, after) = keys.split_at_checked(from).unwrap_or((keys, b""));
        for (words, mut at) in [(after, from), (before, 0)] {
            for word in words.split(|&byte| byte == b' ') {
                at += word.len() + 1;
                if word == key {
                    return Ok(at);
                }
                self.steps += 1;
                if self.steps > count.saturating_add(FREE_STEPS) {
                    let index = Index::new(keys, count).ok_or(Malformed::NoMemory)?;
                    let index = self.index.insert(Box::new(index));
                    return index.find(keys, key).ok_or(Malformed::UnexpectedKey);
                }
            }
        }
        Err(Malformed::UnexpectedKey)
    }
}

/// The words of a text by their hashes.
struct Index {
    /// Hashes are seeded at random, so that a server cannot cause collisions.
    hasher: RandomState,
    /// In ascending order: the hash of a word, and where it begins.
    words: Vec<(u64, usize)>,
}

impl Index {
    /// `None`: no memory.
    fn new(keys: &[u8], count: usize) -> Option<Index> {
        let hasher = RandomState::new();
        let mut words = Vec::new();
        words.try_reserve_exact(count).ok()?;
        let mut begin = 0;
        for word in keys.split(|&byte| byte == b' ').take(count) {
            words.push((hasher.hash_one(word), begin));
            begin += word.len() + 1;
        }
        words.sort_unstable();
        Some(Index { hasher, words })
    }

    /// The position after the first occurrence of `key` in the text and the space that follows it.
    fn find(&self, keys: &[u8], key: &[u8]) -> Option<usize> {
        let hash = self.hasher.hash_one(key);
        let first = self.words.partition_point(|word| word.0 < hash);
        let alike = self.words.get(first..)?.iter();
        let mut alike = alike.take_while(|word| word.0 == hash);
        alike.find_map(|&(_, begin)| {
            let rest = keys.get(begin..)?.strip_prefix(key)?;
            matches!(rest, [] | [b' ', ..]).then_some(begin + key.len() + 1)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text(count: usize) -> Vec<u8> {
        let words: Vec<_> = (0..count).map(|n| format!("key:{n}")).collect();
        words.join(" ").into_bytes()
    }

    #[test]
    fn an_index_is_built_when_too_much_was_skipped() {
        let (keys, mut search) = (text(100), Search::default());
        for (n, indexed) in [(99, false), (FREE_STEPS + 1, false), (1, true)] {
            let key = format!("key:{n}");
            assert!(search.find(&keys, 100, 0, key.as_bytes()).is_ok());
            assert_eq!(search.index.is_some(), indexed, "{n}");
        }
    }

    /// Steps of a reply with these keys, by their numbers.
    fn steps(count: usize, order: impl IntoIterator<Item = usize>) -> usize {
        let (keys, mut search, mut cursor) = (text(count), Search::default(), 0);
        for n in order {
            let key = format!("key:{n}");
            cursor = search.find(&keys, count, cursor, key.as_bytes()).unwrap();
            assert!(keys[..cursor - 1].ends_with(key.as_bytes()), "{key}");
        }
        search.steps
    }

    #[test]
    fn in_the_order_asked_no_index_is_made() {
        let (keys, mut search, mut cursor) = (text(9000), Search::default(), 0);
        for n in (0..9000).step_by(7) {
            let key = format!("key:{n}");
            cursor = search.find(&keys, 9000, cursor, key.as_bytes()).unwrap();
        }
        assert!(search.index.is_none());
        assert!(search.steps < 9000);
        assert_eq!(steps(9000, 0..9000), 0);
    }

    #[test]
    fn any_order_takes_steps_in_proportion() {
        for count in [1, 2, 100, 2000, 8000] {
            let most = count + FREE_STEPS + 1;
            // backwards, from both ends by turns, always the same, one of two far away, in strides
            assert!(steps(count, (0..count).rev()) <= most);
            let ends = (0..count).map(|n| if n % 2 == 0 { count - 1 - n / 2 } else { n / 2 });
            assert!(steps(count, ends) <= most);
            assert!(steps(count, (0..count).map(|_| count - 1)) <= most);
            assert!(steps(count, (0..count).map(|n| n % 2 * (count - 1))) <= most);
            assert!(steps(count, (0..count).map(|n| n * 7919 % count)) <= most);
        }
    }

    #[test]
    fn a_key_that_was_not_asked_for_is_not_found_by_an_index_either() {
        let keys = text(1000);
        let mut search = Search::default();
        for n in (0..1000).rev() {
            let found = search.find(&keys, 1000, 0, format!("key:{n}").as_bytes());
            assert!(found.is_ok());
        }
        assert!(search.index.is_some());
        for other in [
            "",
            "key",
            "key:",
            "ey:1",
            "key:1000",
            "key:1 key:2",
            "key:99 ",
        ] {
            let found = search.find(&keys, 1000, 0, other.as_bytes());
            assert_eq!(found, Err(Malformed::UnexpectedKey), "{other:?}");
        }
    }

    proptest! {
        /// What is found is the key, at a place where it was asked for; nothing is missed.
        #[test]
        fn agrees_with_the_words(
            asked in proptest::collection::vec("[ab]{1,3}", 1..120),
            answered in proptest::collection::vec("[ab]{1,4}", 0..300),
        ) {
            let keys = asked.join(" ").into_bytes();
            let (mut search, mut cursor) = (Search::default(), 0);
            for key in answered {
                match search.find(&keys, asked.len(), cursor, key.as_bytes()) {
                    Ok(next) => {
                        let begin = next - 1 - key.len();
                        prop_assert_eq!(&keys[begin..next - 1], key.as_bytes());
                        prop_assert!(begin == 0 || keys[begin - 1] == b' ');
                        prop_assert!(matches!(keys.get(next - 1), None | Some(b' ')));
                        cursor = next;
                    }
                    Err(error) => {
                        prop_assert_eq!(error, Malformed::UnexpectedKey);
                        prop_assert!(!asked.contains(&key));
                    }
                }
                prop_assert!(search.steps <= asked.len() + FREE_STEPS + 1 + asked.len());
            }
        }
    }
}
