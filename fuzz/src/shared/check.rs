//! What holds after each event, and that all operations come to their end.

use super::World;

impl World {
    pub(super) fn check(&mut self) {
        for link in &self.links {
            link.wire.check();
        }
        let due = self.pending().map(|(_, op)| op.due).min();
        assert_eq!(self.deadlines.next_due(), due);
        assert_eq!(self.deadlines.is_empty(), due.is_none());
        // whoever waits is on a connection, or waits for one
        let mut waited: Vec<usize> = self.queue.iter().copied().collect();
        for link in &self.links {
            waited.extend(link.wire.exchanges().iter().map(|exchange| exchange.tag));
            waited.extend(link.followers.values().flatten());
        }
        waited.sort_unstable();
        for (id, _) in self.pending() {
            assert!(waited.binary_search(&id).is_ok(), "{id} waits for nothing");
        }
        // and nothing is still to be sent for nobody
        for at in 0..self.links.len() {
            for exchange in self.links[at].wire.exchanges() {
                let nobody = self.waiting(at, exchange).is_empty();
                assert!(exchange.sent || !nobody, "{exchange:?} is for nobody");
            }
        }
    }

    /// Everybody does what there is to be done: every operation comes to its end.
    pub(super) fn finish(&mut self) {
        while !self.links.is_empty() && self.pending().next().is_some() {
            let link = &mut self.links[0];
            link.opening = false;
            let until = link.until();
            let sent = link.wire.send_all(until);
            self.check_sent(0, &sent);
            while self.links[0].wire.serve() {}
            let over = self.receive(0, usize::MAX);
            self.check();
            if !over {
                let wire = &self.links[0].wire;
                let unsent = wire.exchanges().iter().any(|exchange| !exchange.sent);
                if unsent && !wire.is_faulty() {
                    // what had to wait, or was queued until now
                    continue;
                }
                let answered = wire.pipeline.in_flight() == 0;
                assert!(
                    answered || wire.is_faulty(),
                    "a good server answers everything"
                );
                self.close(0);
            }
        }
        assert_eq!(self.pending().count(), 0);
        assert!(self.deadlines.is_empty());
    }
}
