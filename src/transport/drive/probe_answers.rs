//! Answers to questions that a worker asks by itself.

use nginx_sys::{NGX_LOG_ERR, NGX_LOG_WARN};

use crate::group::DiscoveryError;
use crate::transport::connection::Owner;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, ProbeKey};
use crate::transport::state::poll::{NoList, Question, Said};
use crate::transport::worker::Worker;

impl Worker {
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
                match connection.pipeline.send_raw(Question::OldCluster.text()) {
                    true => {
                        self.to_flush.push(connection_key);
                        self.turn_end().post();
                    }
                    false => self.fail_probe(key, &Error::NoMemory),
                }
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
}
