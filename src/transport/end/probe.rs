//! Questions without an answer, and the end of connections to servers that are in no list any more.

use nginx_sys::NGX_LOG_WARN;

use crate::group::Peer;
use crate::nginx::{self, Msec};
use crate::transport::connection::Owner;
use crate::transport::error::Error;
use crate::transport::ids::{ConnectionKey, ProbeKey};
use crate::transport::state::poll::{Poll, Question};
use crate::transport::worker::Worker;

/// After this time, in milliseconds, connections to a removed server are looked for once more: some
/// were about to be opened when it was removed.
const LOOK_AGAIN: Msec = 2000;

impl Worker {
    /// A question gets no answer.
    #[cold]
    pub fn fail_probe(&mut self, key: ProbeKey, error: &Error) {
        let Some(probe) = self.end_probe(key) else {
            return;
        };
        match probe.question {
            Question::Version => self.fail_check(probe.poll, &probe.peer),
            Question::Cluster | Question::OldCluster => {
                self.tell_no_list(probe.poll, &probe.peer, NGX_LOG_WARN, &error.to_string());
                self.ask_next(probe.poll);
            }
        }
    }

    /// Whether it is the connection of a question.
    pub fn is_probe(&self, key: ConnectionKey) -> bool {
        let connection = self.connections.get(key);
        connection.is_some_and(|connection| matches!(connection.owner, Owner::Probe(_)))
    }

    /// The connection of a question failed.
    #[cold]
    pub fn fail_probe_with(&mut self, connection: ConnectionKey, error: &Error) {
        if let Some(connection) = self.connections.get(connection)
            && let Owner::Probe(key) = connection.owner
        {
            self.fail_probe(key, error);
        }
    }

    /// A disabled server did not answer as it should.
    pub fn fail_check(&mut self, at: usize, peer: &Peer) {
        let passes = self.polls.list.get_mut(at).and_then(Poll::passes);
        if let Some(passes) = passes {
            passes.fail(peer);
        }
    }

    /// Closes connections to servers that were removed from their lists.
    pub fn part_with_servers(&mut self, names: Vec<Box<[u8]>>) {
        self.close_to(&names);
        let due = nginx::now().saturating_add(LOOK_AGAIN);
        if !nginx::is_exiting() && self.polls.gone.try_reserve(1).is_ok() {
            self.polls.gone.push_back((due, names));
            self.polls.arm(due);
        }
    }

    /// Closes idle connections to these servers, and the others when they are not needed any more.
    pub fn close_to(&mut self, names: &[Box<[u8]>]) {
        if names.is_empty() {
            return;
        }
        let to_them = |peer: &str| names.iter().any(|name| **name == *peer.as_bytes());
        let mut found = Vec::new();
        for (key, connection) in &mut self.connections {
            if !to_them(connection.nginx.peer()) {
                continue;
            }
            if let Some(private) = connection.private_mut() {
                private.leaving = true;
            } else if found.try_reserve(1).is_ok() {
                found.push(key);
            }
        }
        for key in found {
            match self
                .connections
                .get(key)
                .map(|connection| &connection.owner)
            {
                Some(Owner::Pool(_)) => self.evict(key),
                Some(Owner::Shared(_)) => self.part_with(key),
                _ => {}
            }
        }
    }
}
