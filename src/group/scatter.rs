//! Keys, or commands, split among servers, and results put back in order.

use std::collections::TryReserveError;

/// What one server gets.
#[derive(Debug, PartialEq, Eq)]
pub struct Part {
    /// The server.
    pub peer: usize,
    /// Which of the caller's keys, in the caller's order.
    pub places: Vec<usize>,
}

/// A list of keys split among servers.
#[derive(Debug, PartialEq, Eq)]
pub struct Scatter {
    /// In the order in which the list names the servers first.
    pub parts: Vec<Part>,
    /// Keys that no server takes.
    pub homeless: Vec<usize>,
}

impl Scatter {
    /// Splits a list. `choices` has the server of each key, below `servers`.
    ///
    /// # Errors
    ///
    /// If there is no memory.
    pub fn new(
        servers: usize,
        choices: impl Iterator<Item = Option<usize>> + Clone,
    ) -> Result<Scatter, TryReserveError> {
        let mut scatter = Scatter {
            parts: Vec::new(),
            homeless: Vec::new(),
        };
        // how many keys each server takes, and the part that it has got
        let mut of_server = Vec::new();
        of_server.try_reserve_exact(servers)?;
        of_server.resize(servers, (0usize, None));
        for peer in choices.clone().flatten() {
            if let Some((keys, _)) = of_server.get_mut(peer) {
                *keys += 1;
            }
        }
        for (place, choice) in choices.enumerate() {
            let found = choice.and_then(|peer| Some((peer, of_server.get_mut(peer)?)));
            let Some((peer, (keys, part))) = found else {
                scatter.homeless.try_reserve(1)?;
                scatter.homeless.push(place);
                continue;
            };
            let at = *part.get_or_insert(scatter.parts.len());
            if at == scatter.parts.len() {
                let mut places = Vec::new();
                places.try_reserve_exact(*keys)?;
                scatter.parts.try_reserve(1)?;
                scatter.parts.push(Part { peer, places });
            }
            if let Some(part) = scatter.parts.get_mut(at) {
                part.places.push(place);
            }
        }
        Ok(scatter)
    }
}

/// Results, put back into the order of the list.
#[derive(Debug)]
pub struct Gather<T> {
    results: Vec<Option<T>>,
    missing: usize,
}

impl<T: Clone> Gather<T> {
    /// For a list of so many keys.
    ///
    /// # Errors
    ///
    /// If there is no memory.
    pub fn new(places: usize) -> Result<Gather<T>, TryReserveError> {
        let mut results = Vec::new();
        results.try_reserve_exact(places)?;
        results.resize(places, None);
        Ok(Gather {
            results,
            missing: places,
        })
    }

    /// A result. The first for a place counts.
    pub fn put(&mut self, place: usize, result: T) {
        if let Some(slot @ None) = self.results.get_mut(place) {
            *slot = Some(result);
            self.missing = self.missing.saturating_sub(1);
        }
    }

    /// The same for all of these places that have none yet: the error of their server.
    pub fn fill(&mut self, places: &[usize], result: &T) {
        for place in places {
            self.put(*place, result.clone());
        }
    }

    /// How many results are missing.
    pub fn missing(&self) -> usize {
        self.missing
    }

    /// The results in order; `None` where one is missing.
    pub fn finish(self) -> Vec<Option<T>> {
        self.results
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn split_in_order_of_first_use() {
        let choices = [Some(2), Some(0), None, Some(2), Some(0), Some(1), Some(9)];
        let scatter = Scatter::new(3, choices.into_iter()).unwrap();
        let part = |peer, places: &[usize]| Part {
            peer,
            places: places.to_vec(),
        };
        assert_eq!(
            scatter.parts,
            [part(2, &[0, 3]), part(0, &[1, 4]), part(1, &[5])]
        );
        assert_eq!(scatter.homeless, [2, 6]);
        let empty = Scatter::new(3, [].into_iter()).unwrap();
        assert!(empty.parts.is_empty() && empty.homeless.is_empty());
    }

    #[test]
    fn put_back() {
        let mut gather = Gather::new(4).unwrap();
        gather.put(3, "d");
        gather.put(3, "late");
        gather.put(4, "nowhere");
        assert_eq!(gather.missing(), 3);
        gather.fill(&[1, 3], &"error");
        assert_eq!(gather.missing(), 2);
        gather.put(0, "a");
        assert_eq!(gather.missing(), 1);
        assert_eq!(gather.finish(), [Some("a"), Some("error"), None, Some("d")]);
    }
}
