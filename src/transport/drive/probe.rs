//! Questions that a worker asks by itself: their time, their connections, and their answers.

use nginx_sys::{NGX_LOG_ERR, NGX_LOG_WARN};

use crate::conf;
use crate::group::DiscoveryError;
use crate::nginx;
use crate::transport::connection::Owner;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, ProbeKey};
use crate::transport::state::poll::{Job, NoList, Question, Said};
use crate::transport::worker::Worker;

impl Worker {
    /// Something is to be asked, or time is over.
    pub fn on_polls(&mut self) {
        self.polls.timer = None;
        // with master_process off, nginx has no connections once its configuration was read again
        if nginx::is_exiting() || !nginx::has_events() {
            return self.end_polls();
        }
        if self.polls.stale {
            self.make_polls();
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
        if let Some(next) = self.next_poll() {
            self.arm_polls(next);
        }
    }

    /// There is a connection of nginx to spare for a question.
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
            // the answer, or the end, may be there, and no event would tell
            let connection = self.connections.get(connection_key);
            if connection.is_some_and(|connection| connection.nginx.is_readable()) {
                self.read(connection_key);
            }
        } else {
            self.fail_probe(key, &Error::NoMemory);
        }
    }

    /// A part of an answer has come.
    pub fn after_probe_bytes(&mut self, connection_key: ConnectionKey) {
        let Some(connection) = self.connections.get_mut(connection_key) else {
            return;
        };
        let Owner::Probe(key) = connection.owner else {
            return;
        };
        let Some(probe) = self.polls.probes.get_mut(key) else {
            return;
        };
        let bytes = connection.pipeline.buffered();
        if probe.answer.try_reserve(bytes.len()).is_err() {
            return self.fail_probe(key, &Error::NoMemory);
        }
        probe.answer.extend_from_slice(bytes);
        let taken = bytes.len();
        connection.pipeline.consume(taken);
        match probe.question.read(&probe.answer) {
            Said::Partial => {}
            Said::AskOld => {
                probe.question = Question::OldCluster;
                probe.answer.clear();
                self.after_probe_connect(connection_key);
            }
            said => self.finish_probe(key, said),
        }
    }

    /// The answer is complete, or of no use.
    pub fn finish_probe(&mut self, key: ProbeKey, said: Said) {
        let Some(probe) = self.end_probe(key) else {
            return;
        };
        match said {
            Said::Version(true) => self.pass_check(probe.poll, &probe.peer),
            Said::Cluster(cluster) => self.take_list(probe.poll, probe.peer, cluster),
            Said::Bad(why) => {
                let level = match why {
                    NoList::Bad(DiscoveryError::Empty) => NGX_LOG_ERR,
                    _ => NGX_LOG_WARN,
                };
                self.tell_no_list(probe.poll, &probe.peer, level, &why.to_string());
                self.ask_next(probe.poll);
            }
            Said::Version(false) | Said::Partial | Said::AskOld => {
                self.fail_check(probe.poll, &probe.peer);
            }
        }
    }

    /// A name in a list was looked up, or could not be.
    pub fn on_poll_resolved(&mut self, at: usize) {
        self.go_on_naming(at);
    }
}
