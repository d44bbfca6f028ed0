//! What a worker asks servers by itself: whom next, and what became of it.

use nginx_sys::{NGX_LOG_INFO, NGX_LOG_NOTICE};

use crate::conf;
use crate::group::{NameKind, Peer};
use crate::nginx::{self, Log, Msec};
use crate::transport::ids::ProbeKey;
use crate::transport::state::poll::{Job, Poll, Probe, Question};
use crate::transport::state::postponed::Postponed;
use crate::transport::worker::Worker;

/// The time of a question to an endpoint, with the connection, in milliseconds.
const DISCOVERY_TIME: Msec = 2000;

/// How many servers of a list are asked, if the endpoint has no answer.
const NODES_ASKED: usize = 3;

impl Worker {
    /// Asks from now on what the current configuration says, once it is complete.
    pub fn begin_polls(&mut self) {
        self.polls.end(&mut self.connections);
        if nginx::worker_number().is_some() && nginx::has_events() {
            self.polls.stale = true;
            self.polls.arm(nginx::now());
        }
    }

    /// Asks a server, when nginx has a connection to spare. False if there is no memory.
    pub fn ask(&mut self, poll: usize, peer: Peer, question: Question, time: Msec) -> bool {
        let room = self.polls.probes.try_reserve(1).is_ok()
            && self.postponed.waiting.try_reserve(1).is_ok();
        if !room {
            return false;
        }
        let due = nginx::now().saturating_add(time);
        let key = self.polls.probes.insert(Probe {
            poll,
            peer,
            question,
            connection: None,
            due,
            answer: Vec::new(),
        });
        self.postpone(Postponed::Probe(key));
        self.polls.arm(due);
        true
    }

    /// A question is over: it is forgotten, and its connection closed.
    pub fn end_probe(&mut self, key: ProbeKey) -> Option<Probe> {
        let probe = self.polls.probes.remove(key)?;
        if let Some(connection) = probe.connection {
            self.connections.remove(connection);
        }
        Some(probe)
    }

    // ---- checks

    /// It is time to ask the disabled servers of a block.
    pub fn check_disabled(&mut self, at: usize) {
        let Some(poll) = self.polls.list.get_mut(at) else {
            return;
        };
        let disabled = conf::with_current(poll.servers, |current| current.disabled());
        let Ok(Ok(mut disabled)) = disabled else {
            return;
        };
        let Job::Check { timeout, passes } = &mut poll.job else {
            return;
        };
        passes.keep(&disabled);
        let timeout = *timeout;
        for probe in self.polls.probes.values().filter(|probe| probe.poll == at) {
            disabled.retain(|peer| *peer != probe.peer);
        }
        for peer in disabled {
            self.ask(at, peer, Question::Version, timeout);
        }
    }

    /// A disabled server has answered as it should.
    pub fn pass_check(&mut self, at: usize, peer: &Peer) {
        let Some(poll) = self.polls.list.get_mut(at) else {
            return;
        };
        let servers = poll.servers;
        let enough = poll.passes().map(|passes| passes.pass(peer));
        if !matches!(enough, Some(Ok(true))) {
            return;
        }
        let again = conf::with_current(servers, |current| current.revive(peer));
        if let Ok(true) = again {
            let [server, name] = [&peer.name, servers.name()].map(String::from_utf8_lossy);
            nginx::with_peer(Log::of_cycle(), &server, |log| {
                let line = format_args!("upstream server \"{server}\" of \"{name}\" is used again");
                log.write(NGX_LOG_INFO, 0, line);
            });
        }
    }

    // ---- lists of servers

    /// It is time to ask for a block's list of servers: its endpoints, then some of the list.
    pub fn begin_discovery(&mut self, at: usize) {
        let Some(poll) = self.polls.list.get_mut(at) else {
            return;
        };
        let endpoints = poll.servers.peers().list();
        let Some(discovery) = poll.discovery() else {
            return;
        };
        let asking = self.polls.probes.values().any(|probe| probe.poll == at);
        let Ok((endpoints, _)) = endpoints else {
            return;
        };
        if asking || discovery.is_busy() {
            return;
        }
        discovery.failed = false;
        discovery
            .left
            .extend(endpoints.into_iter().filter(|peer| !peer.backup));
        let (count, turn) = (discovery.nodes.len(), discovery.turn);
        discovery.turn = turn.wrapping_add(1);
        for n in 0..NODES_ASKED.min(count) {
            let node = discovery.nodes.get(turn.wrapping_add(n) % count);
            discovery.left.extend(node.cloned());
        }
        self.ask_next(at);
    }

    /// Asks the next one that may have a list.
    pub fn ask_next(&mut self, at: usize) {
        let poll = self.polls.list.get_mut(at);
        let next = poll
            .and_then(Poll::discovery)
            .and_then(|one| one.left.pop_front());
        if let Some(peer) = next {
            self.ask(at, peer, Question::Cluster, DISCOVERY_TIME);
        }
    }

    /// Logs that a server has no list that can be used. A reason is logged once, and only for the
    /// first such server in a round: the others are asked in its place.
    #[cold]
    pub fn tell_no_list(&mut self, at: usize, peer: &Peer, level: u32, why: &str) {
        let Some(poll) = self.polls.list.get_mut(at) else {
            return;
        };
        let name = String::from_utf8_lossy(poll.servers.name()).into_owned();
        let Some(discovery) = poll.discovery() else {
            return;
        };
        if std::mem::replace(&mut discovery.failed, true) {
            return;
        }
        let server = String::from_utf8_lossy(&peer.name);
        if discovery.told.first(format!("{server} {why}").as_bytes()) {
            nginx::with_peer(Log::of_cycle(), &server, |log| {
                let line = format_args!(
                    "lua memcached discovery: upstream \"{name}\" keeps its servers: {why}"
                );
                log.write(level, 0, line);
            });
        }
    }

    /// There is a list, maybe the same as before: nobody else needs to be asked.
    pub fn end_discovery(&mut self, at: usize) {
        let discovery = self.polls.list.get_mut(at).and_then(Poll::discovery);
        if let Some(discovery) = discovery {
            discovery.left.clear();
            discovery.naming = None;
            if !discovery.failed {
                discovery.told = Default::default();
            }
        }
    }

    /// Puts a list in place.
    pub fn use_list(
        &mut self,
        at: usize,
        endpoint: &Peer,
        version: u64,
        list: Vec<Peer>,
    ) -> Result<(), String> {
        let Some(poll) = self.polls.list.get_mut(at) else {
            return Ok(());
        };
        let servers = poll.servers;
        let Some(discovery) = poll.discovery() else {
            return Ok(());
        };
        discovery.nodes = list.clone();
        let count = list.len();
        let used = conf::with_current(servers, |current| current.replace(list));
        used.and_then(|used| used)
            .map_err(|error| error.to_string())?;
        discovery.version = Some(version);
        let [server, name] = [&endpoint.name, servers.name()].map(String::from_utf8_lossy);
        nginx::with_peer(Log::of_cycle(), &server, |log| {
            let ending = if count == 1 { "" } else { "s" };
            let line = format_args!(
                "lua memcached discovery: upstream \"{name}\" has {count} server{ending}, \
                 version {version} of its list"
            );
            log.write(NGX_LOG_NOTICE, 0, line);
        });
        Ok(())
    }

    /// Which names of servers are hashed in a block.
    pub fn hashed_name(&mut self, at: usize) -> Option<(NameKind, Option<u64>)> {
        let discovery = self.polls.list.get_mut(at)?.discovery()?;
        Some((discovery.name, discovery.version))
    }
}
