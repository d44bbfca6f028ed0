//! What is said once.

use std::collections::BTreeSet;

/// Maximum number of texts. After so many nothing more is said.
const MAX_TEXTS: usize = 64;

/// Maximum length of a remembered text in bytes.
const MAX_LEN: usize = 160;

/// Texts that were said already.
#[derive(Debug, Default)]
pub struct Once {
    said: BTreeSet<Box<[u8]>>,
}

impl Once {
    /// Nothing was said yet.
    pub const fn new() -> Once {
        Once {
            said: BTreeSet::new(),
        }
    }

    /// Whether this is the first time. Texts are told apart by their first bytes.
    pub fn first(&mut self, text: &[u8]) -> bool {
        let text = text.get(..MAX_LEN).unwrap_or(text);
        self.said.len() < MAX_TEXTS && !self.said.contains(text) && self.said.insert(text.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_text_once() {
        let mut once = Once::new();
        assert!(once.first(b"poolsize"));
        assert!(once.first(b"multipex"));
        assert!(!once.first(b"poolsize"));
        assert!(!once.first(b"multipex"));
    }

    #[test]
    fn so_many_and_no_more() {
        let mut once = Once::new();
        let first = |at: usize| once.first(at.to_string().as_bytes());
        assert_eq!(
            (0..1000).map(first).filter(|first| *first).count(),
            MAX_TEXTS
        );
    }

    #[test]
    fn long_texts_are_cut() {
        let mut once = Once::new();
        assert!(once.first(&[b'x'; MAX_LEN]));
        assert!(!once.first(&[b'x'; MAX_LEN + 1]));
        assert!(once.said.iter().all(|text| text.len() <= MAX_LEN));
    }
}
