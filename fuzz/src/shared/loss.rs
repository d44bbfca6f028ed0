//! Connections that are lost.

use ngx_http_lua_memcached_module::upstream::{Demand, Load};

use super::{Again, Link, MOST_FRUITLESS, Outcome, Place, World};
use crate::wire::Exchange;

impl World {
    /// A connection is gone. What was not sent of operations that have sent nothing goes to others,
    /// reads are asked once more, and the rest fails.
    pub(super) fn close(&mut self, at: usize) {
        let link = self.links.remove(at);
        let usable = |other: &Link| !other.opening && other.load() != Load::Unavailable;
        let standing = self.links.iter().any(usable);
        let can_move = !link.opening || standing;
        let fruitless = match (link.again, link.wire.pipeline.oldest()) {
            (Some(again), 0) => again.fruitless + 1,
            _ => 0,
        };
        let can_ask = !link.opening && fruitless < MOST_FRUITLESS;
        let mut lost: Vec<(usize, Vec<usize>, Vec<Exchange>)> = Vec::new();
        for exchange in link.wire.exchanges() {
            if let Some((tag, _, exchanges)) = lost.last_mut()
                && *tag == exchange.tag
            {
                exchanges.push(exchange);
                continue;
            }
            let followers = link.followers.get(&exchange.number);
            let all = std::iter::once(exchange.tag).chain(followers.into_iter().flatten().copied());
            let waiting: Vec<usize> = all.filter(|id| self.is_pending(*id)).collect();
            lost.push((exchange.tag, waiting, vec![exchange]));
        }
        let mut asked_again = None;
        for (_, waiting, exchanges) in lost {
            let Some(op) = waiting.first().map(|id| &self.ops[*id]) else {
                continue;
            };
            let whole = op
                .place
                .is_some_and(|place| place.first == exchanges[0].number);
            let unsent = exchanges.iter().all(|exchange| !exchange.begun);
            let repeatable = exchanges.iter().all(|exchange| exchange.repeatable);
            let to = if !whole {
                None
            } else if can_move && unsent && !op.moved && !op.again {
                let eager = false;
                let patient = false;
                self.choose(Demand { eager, patient })
            } else if can_ask && (repeatable && !op.again || unsent && op.again) {
                let until = 0;
                let open = || self.open(Some(Again { until, fruitless }));
                Some(*asked_again.get_or_insert_with(open))
            } else {
                None
            };
            match to {
                Some(to) => self.hand_over(&link, to, &waiting, &exchanges),
                None => {
                    for id in waiting {
                        self.complete(id, Outcome::Closed);
                    }
                }
            }
        }
        if self.links.is_empty() {
            while let Some(id) = self.queue.pop_front() {
                self.complete(id, Outcome::Closed);
            }
        }
        self.serve_queue();
    }

    /// Another connection gets what one has lost, unless its server may be another one.
    fn hand_over(&mut self, from: &Link, to: usize, waiting: &[usize], exchanges: &[Exchange]) {
        let link = &mut self.links[to];
        let mut numbers = Vec::new();
        for exchange in exchanges {
            let Some(number) = link.wire.adopt(waiting[0], &from.wire, exchange.number) else {
                for number in numbers {
                    assert!(link.wire.withdraw(number));
                }
                for id in waiting {
                    self.complete(*id, Outcome::Closed);
                }
                return;
            };
            numbers.push(number);
        }
        if waiting.len() > 1 {
            link.followers.insert(numbers[0], waiting[1..].to_vec());
        }
        for id in waiting {
            let op = &mut self.ops[*id];
            op.moved |= link.again.is_none();
            op.again |= link.again.is_some();
            op.place = Some(Place {
                link: link.id,
                first: numbers[0],
                last: numbers[numbers.len() - 1],
            });
        }
    }
}
