//! Who waits, longest waiting first. Anybody may leave before it is his turn.

use slotmap::{SlotMap, new_key_type};

new_key_type! {
    /// Where somebody waits. The place of one who does not wait any more finds nothing.
    pub struct Place;
}

/// A line of those who wait. Entering and leaving cost the same however many there are.
#[derive(Debug)]
pub struct Waiters<T> {
    nodes: SlotMap<Place, Node<T>>,
    /// The first and the last one.
    ends: Option<(Place, Place)>,
}

#[derive(Debug)]
struct Node<T> {
    item: T,
    before: Option<Place>,
    behind: Option<Place>,
}

impl<T> Default for Waiters<T> {
    fn default() -> Self {
        Waiters {
            nodes: SlotMap::with_key(),
            ends: None,
        }
    }
}

impl<T: Copy> Waiters<T> {
    /// How many wait.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.nodes.is_empty()
    }

    /// One more waits, behind all others. `None`: no memory.
    pub fn enter(&mut self, item: T) -> Option<Place> {
        self.nodes.try_reserve(1).ok()?;
        let before = self.ends.map(|(_, last)| last);
        let place = self.nodes.insert(Node {
            item,
            before,
            behind: None,
        });
        if let Some(last) = before.and_then(|last| self.nodes.get_mut(last)) {
            last.behind = Some(place);
        }
        let first = self.ends.map_or(place, |(first, _)| first);
        self.ends = Some((first, place));
        Some(place)
    }

    /// One waits no more: it was his turn, or he has left. He, if he did.
    pub fn leave(&mut self, place: Place) -> Option<T> {
        let Node {
            item,
            before,
            behind,
        } = self.nodes.remove(place)?;
        if let Some(before) = before.and_then(|before| self.nodes.get_mut(before)) {
            before.behind = behind;
        }
        if let Some(behind) = behind.and_then(|behind| self.nodes.get_mut(behind)) {
            behind.before = before;
        }
        self.ends = match (self.ends, before, behind) {
            (_, None, None) | (None, ..) => None,
            (Some((_, last)), None, Some(behind)) => Some((behind, last)),
            (Some((first, _)), Some(before), None) => Some((first, before)),
            (ends, Some(_), Some(_)) => ends,
        };
        Some(item)
    }

    /// Who has waited longest.
    pub fn first(&self) -> Option<T> {
        let (first, _) = self.ends?;
        self.nodes.get(first).map(|node| node.item)
    }

    /// Who has waited longest waits no more.
    pub fn pop(&mut self) -> Option<T> {
        let (first, _) = self.ends?;
        self.leave(first)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn first_come_first_served() {
        let mut waiters = Waiters::default();
        assert_eq!(
            (waiters.first(), waiters.pop(), waiters.len()),
            (None, None, 0)
        );
        let places: Vec<_> = ('a'..='d')
            .map(|item| waiters.enter(item).unwrap())
            .collect();
        assert_eq!(waiters.leave(places[1]), Some('b'));
        assert_eq!(waiters.leave(places[1]), None);
        assert_eq!((waiters.first(), waiters.len()), (Some('a'), 3));
        assert_eq!((waiters.pop(), waiters.pop()), (Some('a'), Some('c')));
        assert_eq!(waiters.leave(places[0]), None);
        assert!(!waiters.is_empty());
        assert_eq!((waiters.pop(), waiters.pop()), (Some('d'), None));
        assert!(waiters.is_empty());
    }

    proptest! {
        /// Against a model that keeps all in a plain list.
        #[test]
        fn agrees_with_a_model(steps in proptest::collection::vec((0u8..4, 0usize..40), 0..200)) {
            let mut waiters = Waiters::default();
            let mut model: Vec<(Place, usize)> = Vec::new();
            let mut gone: Vec<Place> = Vec::new();
            for (id, (step, n)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => model.push((waiters.enter(id).unwrap(), id)),
                    2 if !model.is_empty() => {
                        let (place, item) = model.remove(n % model.len());
                        prop_assert_eq!(waiters.leave(place), Some(item));
                        gone.push(place);
                    }
                    _ => {
                        let first = (!model.is_empty()).then(|| model.remove(0));
                        prop_assert_eq!(waiters.pop(), first.map(|(_, item)| item));
                        gone.extend(first.map(|(place, _)| place));
                    }
                }
                prop_assert_eq!(waiters.first(), model.first().map(|(_, item)| *item));
                prop_assert_eq!(waiters.len(), model.len());
                for place in &gone {
                    prop_assert_eq!(waiters.leave(*place), None);
                }
            }
        }
    }
}
