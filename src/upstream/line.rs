//! A queue that can be left from anywhere.

use slotmap::{SlotMap, new_key_type};

new_key_type! {
    /// A place in a [`Line`]. One that was left finds nothing; of another line it may find
    /// something.
    pub struct Place;
}

/// Items in order. Joining at either end and leaving, wherever one stands, cost the same however
/// many there are.
#[derive(Debug)]
pub struct Line<T> {
    nodes: SlotMap<Place, Node<T>>,
    ends: Option<(Place, Place)>,
}

#[derive(Debug)]
struct Node<T> {
    item: T,
    before: Option<Place>,
    behind: Option<Place>,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Line {
            nodes: SlotMap::with_key(),
            ends: None,
        }
    }
}

impl<T> Line<T> {
    /// Adds an item as the last one.
    pub fn push_back(&mut self, item: T) -> Place {
        let last = self.ends.map(|(_, last)| last);
        let place = self.nodes.insert(Node {
            item,
            before: last,
            behind: None,
        });
        if let Some(last) = last.and_then(|last| self.nodes.get_mut(last)) {
            last.behind = Some(place);
        }
        self.ends = Some((self.ends.map_or(place, |(first, _)| first), place));
        place
    }

    /// Adds an item as the first one.
    pub fn push_front(&mut self, item: T) -> Place {
        let first = self.ends.map(|(first, _)| first);
        let place = self.nodes.insert(Node {
            item,
            before: None,
            behind: first,
        });
        if let Some(first) = first.and_then(|first| self.nodes.get_mut(first)) {
            first.before = Some(place);
        }
        self.ends = Some((place, self.ends.map_or(place, |(_, last)| last)));
        place
    }

    /// Takes an item out, wherever it stands.
    pub fn remove(&mut self, place: Place) -> Option<T> {
        let node = self.nodes.remove(place)?;
        if let Some(before) = node.before.and_then(|at| self.nodes.get_mut(at)) {
            before.behind = node.behind;
        }
        if let Some(behind) = node.behind.and_then(|at| self.nodes.get_mut(at)) {
            behind.before = node.before;
        }
        self.ends = match (self.ends, node.before, node.behind) {
            (_, None, None) => None,
            (Some((_, last)), None, Some(behind)) => Some((behind, last)),
            (Some((first, _)), Some(before), None) => Some((first, before)),
            (ends, ..) => ends,
        };
        Some(node.item)
    }

    /// Takes the first item out.
    pub fn pop_front(&mut self) -> Option<T> {
        self.ends.and_then(|(first, _)| self.remove(first))
    }

    /// Takes the last item out.
    pub fn pop_back(&mut self) -> Option<T> {
        self.ends.and_then(|(_, last)| self.remove(last))
    }

    /// The item at a place.
    pub fn get(&self, place: Place) -> Option<&T> {
        self.nodes.get(place).map(|node| &node.item)
    }

    /// The first item.
    pub fn front(&self) -> Option<&T> {
        self.ends.and_then(|(first, _)| self.get(first))
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.nodes.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.ends.is_none()
    }

    /// The items in order, each with its place.
    pub fn iter(&self) -> impl Iterator<Item = (Place, &T)> {
        let mut next = self.ends.map(|(first, _)| first);
        std::iter::from_fn(move || {
            let place = next?;
            let node = self.nodes.get(place)?;
            next = node.behind;
            Some((place, &node.item))
        })
    }
}

impl<T> IntoIterator for Line<T> {
    type Item = T;
    type IntoIter = Items<T>;

    fn into_iter(self) -> Items<T> {
        Items(self)
    }
}

/// The items of a line, the first one first.
#[derive(Debug)]
pub struct Items<T>(Line<T>);

impl<T> Iterator for Items<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[test]
    fn who_leaves_leaves_the_others_in_order() {
        let mut line = Line::default();
        let places: Vec<_> = (0..5).map(|n| line.push_back(n)).collect();
        assert_eq!(line.remove(places[2]), Some(2));
        assert_eq!(line.remove(places[2]), None);
        assert_eq!(line.get(places[2]), None);
        assert_eq!(line.remove(places[0]), Some(0));
        assert_eq!(line.remove(places[4]), Some(4));
        line.push_front(9);
        assert_eq!(line.front(), Some(&9));
        assert_eq!(line.len(), 3);
        assert_eq!(line.into_iter().collect::<Vec<_>>(), [9, 1, 3]);
    }

    proptest! {
        /// Against a model that searches.
        #[test]
        fn agrees_with_a_model(steps in proptest::collection::vec((0u8..6, 0usize..40), 0..300)) {
            let (mut line, mut model) = (Line::default(), VecDeque::new());
            for (id, (step, n)) in steps.into_iter().enumerate() {
                match step {
                    0 | 1 => model.push_back((line.push_back(id), id)),
                    2 => model.push_front((line.push_front(id), id)),
                    3 => prop_assert_eq!(line.pop_front(), model.pop_front().map(|m| m.1)),
                    4 => prop_assert_eq!(line.pop_back(), model.pop_back().map(|m| m.1)),
                    _ if model.is_empty() => {}
                    _ => {
                        let (place, id) = model.remove(n % model.len()).unwrap();
                        prop_assert_eq!(line.get(place), Some(&id));
                        prop_assert_eq!(line.remove(place), Some(id));
                    }
                }
                prop_assert_eq!(line.front(), model.front().map(|m| &m.1));
                prop_assert_eq!((line.len(), line.is_empty()), (model.len(), model.is_empty()));
                let all: Vec<_> = line.iter().map(|(place, id)| (place, *id)).collect();
                prop_assert_eq!(all, model.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
