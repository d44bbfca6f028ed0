//! What a worker asks servers by itself: whether a disabled one is there again, and which servers a
//! cluster has.

use std::collections::VecDeque;

use slotmap::SlotMap;

use crate::conf::Servers;
use crate::group::version_answer;
use crate::group::{ASK, ASK_OLD, Answer, Cluster, DiscoveryError, NameKind, Node, Passes, Peer};
use crate::nginx::{Msec, Timer};
use crate::transport::connection::resolve::Resolution;
use crate::transport::ids::{ConnectionKey, ProbeKey};
use crate::upstream::Once;

/// All of a worker. It belongs to the configuration.
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
    /// As those ask that have no `config`.
    OldCluster,
}

/// What a server has answered.
pub enum Said {
    /// The rest is to come.
    Partial,
    /// It is in order, or not.
    Version(bool),
    Cluster(Cluster),
    /// To be asked in the old way.
    AskOld,
    /// Of no use.
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
