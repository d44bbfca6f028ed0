//! Questions that a worker asks by itself: their time, and their connections.

use crate::conf;
use crate::nginx;
use crate::transport::connection::Owner;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, ProbeKey};
use crate::transport::state::poll::Job;
use crate::transport::worker::Worker;

impl Worker {
    /// The timer of polls has expired: something is to be asked, or the time of a question is over.
    pub fn on_polls(&mut self) {
        self.polls.timer = None;
        // with master_process off, nginx has no connections once its configuration was read again
        if nginx::is_exiting() || !nginx::has_events() {
            return self.polls.end(&mut self.connections);
        }
        if self.polls.stale {
            self.polls.make();
        }
        let now = nginx::now();
        let probes = self.polls.probes.iter();
        let late: Vec<_> = probes
            .filter(|(_, probe)| probe.due <= now)
            .map(|(key, _)| key)
            .collect();
        for key in late {
            self.fail_probe(key, &Error::Timeout);
        }
        for at in 0..self.polls.list.len() {
            let Some(poll) = self
                .polls
                .list
                .get_mut(at)
                .filter(|poll| poll.next_at <= now)
            else {
                continue;
            };
            poll.next_at = now.saturating_add(poll.interval);
            match poll.job {
                Job::Check { .. } => self.check_disabled(at),
                Job::Discover(_) => self.begin_discovery(at),
            }
        }
        while let Some((due, _)) = self.polls.gone.front()
            && *due <= now
            && let Some((_, names)) = self.polls.gone.pop_front()
        {
            // they may have come back
            self.close_to(&conf::without_used(names));
        }
        if let Some(next) = self.polls.next_due() {
            self.polls.arm(next);
        }
    }

    /// Connects for a question, now that nginx has a connection to spare.
    pub fn connect_probe(&mut self, key: ProbeKey) {
        if !self.polls.probes.contains_key(key) {
            return;
        }
        match self.open_probe(key) {
            Ok(Some(connection)) => self.after_probe_connect(connection),
            Ok(None) => {}
            Err(error) => self.fail_probe(key, &error),
        }
    }

    /// The connection of a question is established.
    pub fn after_probe_connect(&mut self, connection_key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return;
        };
        let Owner::Probe(key) = connection.owner else {
            return;
        };
        let question = self.polls.probes.get(key).map(|probe| probe.question);
        if question.is_some_and(|question| connection.pipeline.send_raw(question.text())) {
            self.flush(connection_key);
            self.read_early(connection_key);
        } else {
            self.fail_probe(key, &Error::NoMemory);
        }
    }

    /// A name in a list was looked up, or could not be.
    pub fn on_poll_resolved(&mut self, at: usize) {
        self.go_on_naming(at);
    }
}
