//! The model against the pipeline.

use ngx_http_lua_memcached_module::protocol;

use super::Wire;

impl Wire {
    /// The model and the pipeline agree.
    pub fn check(&self) {
        let pipeline = &self.pipeline;
        let flights = &self.flights;
        assert!(self.is_faulty() || pipeline.server() == self.known);
        assert_eq!(pipeline.unsent_len(), self.unsent());
        assert!(pipeline.unsent().len() <= self.unsent());
        let all = self.exchanges();
        assert!(
            pipeline
                .exchanges()
                .eq(all.iter().map(|e| protocol::Exchange {
                    number: e.number,
                    tag: e.tag,
                    begun: e.begun,
                    repeatable: e.repeatable,
                    is_list: e.list,
                }))
        );
        if pipeline.is_broken() {
            return;
        }
        assert_eq!(pipeline.in_flight(), flights.len());
        assert!(pipeline.tags().eq(flights.iter().map(|flight| flight.tag)));
        assert_eq!(pipeline.oldest(), self.oldest());
        assert_eq!(pipeline.newest(), flights.back().map(|last| last.number));
        let lists = flights.iter().filter(|flight| flight.list).count();
        assert_eq!(pipeline.lists(), lists);
        let mut first_unsent = None;
        let mut before = self.early;
        for flight in flights {
            let number = flight.number;
            before += flight.len - flight.sent;
            assert_eq!(pipeline.is_sent(number), before == 0);
            assert_eq!(pipeline.has_begun(number), flight.sent > 0);
            let get = flight.get.as_ref().map(|(key, cas)| (key.as_bytes(), *cas));
            assert_eq!(pipeline.single_get(number), get);
            if before > 0 && self.early == 0 {
                first_unsent = first_unsent.or(Some(number));
            }
        }
        if let Some(first) = first_unsent {
            assert_eq!(pipeline.first_unsent(), first);
        }
        let pending = all.iter().filter(|e| !e.sent).map(|e| (e.number, e.tag));
        assert!(pipeline.still_to_send().eq(pending));
        let quiet = flights.is_empty() && self.unsent() == 0;
        assert_eq!(pipeline.is_quiet(), quiet && pipeline.buffered().is_empty());
        self.check_records();
    }

    /// What goes into one TLS record is whole commands, as many as fit.
    fn check_records(&self) {
        if self.pipeline.unsent().len() < self.unsent() {
            return;
        }
        let mut end = self.early;
        let mut fitting = Vec::new();
        if end > 0 {
            fitting.push(end);
        }
        for flight in &self.flights {
            end += flight.len - flight.sent;
            if flight.len > flight.sent {
                fitting.push(end);
            }
        }
        for most in [20, 100] {
            let len = self.pipeline.unsent_commands(most).len();
            let best = fitting.iter().rev().find(|rest| **rest <= most);
            let best = best.or(fitting.first()).copied().unwrap_or(0);
            assert_eq!(len, best, "of {fitting:?}, at most {most}");
        }
    }
}
