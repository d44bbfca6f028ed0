//! What a worker asks servers by itself: whether a disabled one is there again, and which servers a
//! cluster has.

use std::collections::VecDeque;

use slotmap::SlotMap;

use crate::conf::Servers;
use crate::group::version_answer;
use crate::group::{ASK, ASK_OLD, Answer, Cluster, DiscoveryError, NameKind, Node, Passes, Peer};
use crate::nginx::{self, Msec, Timer};
use crate::transport::connection::Connection;
use crate::transport::connection::handlers::handlers;
use crate::transport::connection::resolve::Resolution;
use crate::transport::ids::{ConnectionKey, ProbeKey};
use crate::upstream::Once;

/// How long after a panic polls begin again, in milliseconds.
const AFTER_PANIC: Msec = 1000;

/// All polls of a worker. They belong to the configuration.
#[derive(Default)]
pub struct Polls {
    pub list: Vec<Poll>,
    /// The list is to be made of the configuration.
    pub stale: bool,
    pub probes: SlotMap<ProbeKey, Probe>,
    /// Names of servers that are in no list any more, and when their connections are looked for
    /// once more.
    pub gone: VecDeque<(Msec, Vec<Box<[u8]>>)>,
    /// Runs until the next of them is due.
    pub timer: Option<Timer>,
    pub armed: Msec,
}

/// What is asked of the servers of a block, again and again.
pub struct Poll {
    pub servers: Servers,
    pub interval: Msec,
    pub next_at: Msec,
    pub job: Job,
}

/// What a poll is for.
pub enum Job {
    Check { timeout: Msec, passes: Passes },
    Discover(Box<Discovery>),
}

/// The list of a cluster's servers, as far as it is known.
pub struct Discovery {
    pub name: NameKind,
    pub version: Option<u64>,
    /// The servers of the list.
    pub nodes: Vec<Peer>,
    /// Which of them is asked next.
    pub turn: usize,
    /// Whom to ask if the one that is being asked has no list.
    pub left: VecDeque<Peer>,
    /// A list that is to be used when the names in it are known.
    pub naming: Option<Naming>,
    /// What was said since a list came at the first attempt.
    pub told: Once,
    /// Somebody who was asked in this round had no list.
    pub failed: bool,
}

/// A list of servers whose names are being looked up.
pub struct Naming {
    /// Who has given the list.
    pub endpoint: Peer,
    pub version: u64,
    pub known: Vec<Peer>,
    pub rest: VecDeque<Node>,
    pub resolution: Option<Box<Resolution>>,
}

/// One question to one server.
pub struct Probe {
    /// The place of the poll it is for.
    pub poll: usize,
    pub peer: Peer,
    pub question: Question,
    pub connection: Option<ConnectionKey>,
    /// When its time is over.
    pub due: Msec,
    /// What was received.
    pub answer: Vec<u8>,
}

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    Version,
    Cluster,
    /// The question for servers that do not know the command `config`.
    OldCluster,
}

/// What a server has answered.
pub enum Said {
    /// The rest is to come.
    Partial,
    /// Whether the answer to `version` is as it should be.
    Version(bool),
    Cluster(Cluster),
    /// It does not know `config`: it is to be asked `OldCluster`.
    AskOld,
    /// An answer without a list that can be used.
    Bad(NoList),
}

/// Why a server has given no list.
#[derive(Debug, thiserror::Error)]
pub enum NoList {
    #[error("the server knows no list of servers")]
    Unknown,
    #[error("bad answer: {0}")]
    Bad(#[from] DiscoveryError),
}

impl Polls {
    /// Ends all polls, and drops what belongs to the configuration.
    pub fn end(&mut self, connections: &mut SlotMap<ConnectionKey, Connection>) {
        for (_, probe) in self.probes.drain() {
            if let Some(connection) = probe.connection {
                connections.remove(connection);
            }
        }
        *self = Polls::default();
    }

    /// Begins again after a panic, which has closed all connections.
    pub fn restart(&mut self) {
        self.probes.clear();
        for poll in &mut self.list {
            if let Job::Discover(discovery) = &mut poll.job {
                discovery.left.clear();
                discovery.naming = None;
            }
        }
        self.timer = None;
        if !self.list.is_empty() || self.stale {
            self.arm(nginx::now().saturating_add(AFTER_PANIC));
        }
    }

    /// Has the timer expire at this time, or earlier.
    pub fn arm(&mut self, at: Msec) {
        if self.timer.is_some() && self.armed <= at {
            return;
        }
        let mut timer = Timer::new(handlers().polls, 0);
        timer.start_cancelable(at.saturating_sub(nginx::now()));
        self.timer = Some(timer);
        self.armed = at;
    }

    /// Makes the list of what the configuration says is to be asked.
    pub fn make(&mut self) {
        self.stale = false;
        let now = nginx::now();
        for servers in Servers::polled() {
            let discover = servers.discover();
            if let Some(discover) = discover {
                self.list.push(Poll {
                    servers,
                    interval: discover.interval,
                    next_at: now,
                    job: Job::Discover(Box::new(Discovery::new(discover.name))),
                });
            }
            // if all workers share the state of servers, one worker checks them: number 0, also
            // after it was replaced
            let shared = discover.is_none() && servers.peers().are_shared();
            let mine = !shared || nginx::worker_number() == Some(0);
            if let Some(check) = servers.check().filter(|_| mine) {
                self.list.push(Poll {
                    servers,
                    interval: check.interval,
                    next_at: now.saturating_add(check.interval),
                    job: Job::Check {
                        timeout: check.timeout,
                        passes: Passes::new(check.passes),
                    },
                });
            }
        }
    }

    /// When something is to be done next.
    pub fn next_due(&self) -> Option<Msec> {
        let polls = self.list.iter().map(|poll| poll.next_at);
        let probes = self.probes.values().map(|probe| probe.due);
        let gone = self.gone.iter().map(|(due, _)| *due);
        polls.chain(probes).chain(gone).min()
    }
}

impl Question {
    pub fn text(self) -> &'static [u8] {
        match self {
            Question::Version => b"version\r\n",
            Question::Cluster => ASK,
            Question::OldCluster => ASK_OLD,
        }
    }

    /// What has been said so far.
    pub fn read(self, answer: &[u8]) -> Said {
        if self == Question::Version {
            return version_answer(answer).map_or(Said::Partial, Said::Version);
        }
        match Answer::read(answer) {
            Ok(Answer::Partial) => Said::Partial,
            Ok(Answer::List(cluster)) => Said::Cluster(cluster),
            Ok(Answer::Unknown) if self == Question::Cluster => Said::AskOld,
            Ok(Answer::Unknown) => Said::Bad(NoList::Unknown),
            Err(error) => Said::Bad(error.into()),
        }
    }
}

impl Poll {
    pub fn discovery(&mut self) -> Option<&mut Discovery> {
        match &mut self.job {
            Job::Discover(discovery) => Some(discovery),
            Job::Check { .. } => None,
        }
    }

    pub fn passes(&mut self) -> Option<&mut Passes> {
        match &mut self.job {
            Job::Check { passes, .. } => Some(passes),
            Job::Discover(_) => None,
        }
    }
}

impl Discovery {
    pub fn new(name: NameKind) -> Discovery {
        Discovery {
            name,
            version: None,
            nodes: Vec::new(),
            turn: 0,
            left: VecDeque::new(),
            naming: None,
            told: Once::new(),
            failed: false,
        }
    }

    /// Somebody is asked, or names are looked up.
    pub fn is_busy(&self) -> bool {
        !self.left.is_empty() || self.naming.is_some()
    }
}
