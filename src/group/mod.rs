//! Many servers used as one: which of them takes a key while some are down. Pure: names, numbers
//! and times in, indexes out.
//!
//! | file | subject |
//! |---|---|
//! | `local` | a group with its own counts, where nginx does not know the list |
//! | `peer` | the servers of a group, and how a list differs from the next |
//! | `health` | counted failures of a server, as nginx counts them |
//! | `failover` | what becomes of the keys of a server that is down |
//! | `choice` | the server for a key |
//! | `discovery` | lists of servers that an endpoint gives |
//! | `checks` | answers of disabled servers to checks |
//! | `scatter` | keys, or commands, split among servers; results put back in order |
#![forbid(unsafe_code)]

mod checks;
mod choice;
mod discovery;
mod failover;
mod health;
mod local;
mod peer;
mod scatter;

#[cfg(test)]
mod property_tests;

pub use checks::{Passes, version_answer};
pub use choice::{Choice, Group, Policy, States};
pub use discovery::{ASK, ASK_OLD, Answer, Cluster, DiscoveryError, NameKind, Node};
pub use failover::{Failover, FailoverError, MAX_EXPTIME};
pub use health::{Failure, Health};
pub use local::Local;
pub use peer::{Peer, endpoint, named, predecessors, vanished};
pub use scatter::{Gather, Part, Scatter};
