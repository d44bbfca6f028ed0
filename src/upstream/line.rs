//! A queue that can be left from anywhere.

use std::collections::VecDeque;

/// Number of holes that a line may have, whatever its length.
const HOLES: usize = 16;

/// A place in a [`Line`]. The default is no item's place. After its item has left, a place finds
/// nothing. In another line it may find something.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Place(i64);

/// Items in order. Adding at either end and removing anywhere need no search.
#[derive(Debug)]
pub struct Line<T> {
    /// In ascending order of their places; `None`: a hole. There is none at the ends.
    slots: VecDeque<(Place, Option<T>)>,
    items: usize,
    /// The places given last, at the front and at the back.
    first: i64,
    last: i64,
}

impl<T> Default for Line<T> {
    fn default() -> Self {
        Line {
            slots: VecDeque::new(),
            items: 0,
            first: 0,
            last: 0,
        }
    }
}

impl<T> Line<T> {
    /// Adds an item as the last one.
    pub fn push_back(&mut self, item: T) -> Place {
        self.last += 1;
        let place = Place(self.last);
        self.slots.push_back((place, Some(item)));
        self.items += 1;
        place
    }

    /// As [`push_back`](Self::push_back). `None`: no memory.
    pub fn try_push_back(&mut self, item: T) -> Option<Place> {
        self.slots.try_reserve(1).ok()?;
        Some(self.push_back(item))
    }

    /// Adds an item as the first one.
    pub fn push_front(&mut self, item: T) -> Place {
        self.first -= 1;
        let place = Place(self.first);
        self.slots.push_front((place, Some(item)));
        self.items += 1;
        place
    }

    fn find(&self, place: Place) -> Option<usize> {
        let at = self.slots.partition_point(|slot| slot.0.0 < place.0);
        self.slots
            .get(at)
            .filter(|slot| slot.0 == place)
            .map(|_| at)
    }

    /// Removes an item at any place.
    pub fn remove(&mut self, place: Place) -> Option<T> {
        if self.slots.front().is_some_and(|first| first.0 == place) {
            return self.pop_front();
        }
        let at = self.find(place)?;
        let (_, slot) = self.slots.get_mut(at)?;
        let item = slot.take()?;
        self.items -= 1;
        while let Some((_, None)) = self.slots.back() {
            self.slots.pop_back();
        }
        if self.slots.len() > 2 * self.items + HOLES {
            self.slots.retain(|slot| slot.1.is_some());
        }
        Some(item)
    }

    /// Removes the first item.
    #[inline]
    pub fn pop_front(&mut self) -> Option<T> {
        let (_, item) = self.slots.pop_front()?;
        self.items -= 1;
        while let Some((_, None)) = self.slots.front() {
            self.slots.pop_front();
        }
        item
    }

    /// Removes the last item.
    pub fn pop_back(&mut self) -> Option<T> {
        let (_, item) = self.slots.pop_back()?;
        self.items -= 1;
        while let Some((_, None)) = self.slots.back() {
            self.slots.pop_back();
        }
        item
    }

    /// The item at a place.
    pub fn get(&self, place: Place) -> Option<&T> {
        self.slots.get(self.find(place)?)?.1.as_ref()
    }

    /// The first item.
    pub fn front(&self) -> Option<&T> {
        self.slots.front()?.1.as_ref()
    }

    /// Number of items.
    pub fn len(&self) -> usize {
        self.items
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.items == 0
    }

    /// The items in order, each with its place.
    pub fn iter(&self) -> impl Iterator<Item = (Place, &T)> {
        let items = self.slots.iter();
        items.filter_map(|(place, item)| Some((*place, item.as_ref()?)))
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

    #[test]
    fn holes_are_few() {
        let mut line = Line::default();
        let first = line.push_back(0);
        for n in 1..1000 {
            let place = line.push_back(n);
            line.push_back(-n);
            assert_eq!(line.remove(place), Some(n));
            assert!(line.slots.len() <= 2 * line.len() + HOLES);
        }
        assert_eq!(line.len(), 1000);
        let places: Vec<_> = line.iter().map(|(place, _)| place).collect();
        for place in places.into_iter().skip(1).rev().skip(1) {
            assert!(line.remove(place).is_some());
            assert!(line.slots.len() <= 2 * line.len() + HOLES);
        }
        assert_eq!((line.get(first), line.len()), (Some(&0), 2));
        assert_eq!(line.get(Place::default()), None);
        assert_eq!(line.pop_front(), Some(0));
        // what was behind it is gone, too
        assert_eq!((line.slots.len(), line.front()), (1, Some(&-999)));
    }

    #[test]
    fn holes_go_when_they_are_many() {
        let mut line = Line::default();
        let places: Vec<_> = (0..56).map(|n| line.push_back(n)).collect();
        for place in &places[1..=36] {
            assert!(line.remove(*place).is_some());
            assert_eq!(line.slots.len(), 56);
        }
        assert!(line.remove(places[37]).is_some());
        assert_eq!((line.slots.len(), line.len()), (19, 19));
    }

    #[test]
    fn the_last_one_leaves() {
        let mut line = Line::default();
        let places: Vec<_> = (0..4).map(|n| line.push_back(n)).collect();
        assert_eq!(line.remove(places[2]), Some(2));
        assert_eq!((line.pop_back(), line.len()), (Some(3), 2));
        assert_eq!(line.slots.len(), 2);
        assert_eq!((line.pop_back(), line.len()), (Some(1), 1));
        assert_eq!((line.pop_back(), line.len()), (Some(0), 0));
        assert_eq!((line.pop_back(), line.len()), (None, 0));
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
