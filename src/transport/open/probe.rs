//! Opening the connections of questions that a worker asks by itself, and looking up the names that
//! answers have.

use std::collections::VecDeque;

use nginx_sys::{NGX_LOG_ERR, NGX_LOG_WARN};

use crate::fault;
use crate::group::{Cluster, NameKind, Node, Peer};
use crate::nginx::{HttpBlock, Log};
use crate::transport::connection::Owner;
use crate::transport::connection::address::{Address, Parsed};
use crate::transport::connection::dial::Socket;
use crate::transport::connection::resolve::Resolution;
use crate::transport::error::Error;
use crate::transport::ids::{Asker, ConnectionKey, ProbeKey};
use crate::transport::state::outcome::Opened;
use crate::transport::state::poll::{Naming, Poll};
use crate::transport::worker::Worker;

/// How far the look-up of names has got.
enum Next {
    /// The answer is to come.
    Waiting,
    Complete(Box<Naming>),
    /// The endpoint that has sent the list, and why it cannot be used.
    Failed(Peer, Error),
}

impl Worker {
    /// Opens the connection of a question. Returns it if it is established at once.
    pub fn open_probe(&mut self, key: ProbeKey) -> Result<Option<ConnectionKey>, Error> {
        let probe = self.polls.probes.get(key).ok_or(Error::Closed)?;
        let (host, port) = probe.peer.endpoint();
        // a check asks whether the server is there: if not, that is no error to log
        let log = Log::silent();
        let Parsed::Address(address) = Address::parse(host, port.unwrap_or(0), log)? else {
            return Err(Error::Unknown);
        };
        let socket = Socket { log, nodelay: true };
        let opened = self.open_connection(address, socket, Owner::Probe(key), None, None, 0);
        let (connection_key, opened) = opened?;
        fault::point();
        if let Some(probe) = self.polls.probes.get_mut(key) {
            probe.connection = Some(connection_key);
        }
        Ok((opened == Opened::Connected).then_some(connection_key))
    }

    /// An endpoint has answered with a list.
    pub fn take_list(&mut self, at: usize, endpoint: Peer, cluster: Cluster) {
        let poll = self.polls.list.get_mut(at);
        let Some(discovery) = poll.and_then(Poll::discovery) else {
            return;
        };
        if !cluster.is_newer_than(discovery.version) {
            return self.end_discovery(at);
        }
        discovery.naming = Some(Naming {
            endpoint,
            version: cluster.version,
            known: Vec::new(),
            rest: VecDeque::from(cluster.nodes),
            resolution: None,
        });
        self.go_on_naming(at);
    }

    /// Uses a list, if the addresses of all its servers are known. Where they are names, those are
    /// looked up one after the other.
    pub fn go_on_naming(&mut self, at: usize) {
        let Some((kind, _)) = self.hashed_name(at) else {
            return;
        };
        let failed = match self.name_servers(at, kind) {
            Next::Waiting => return,
            Next::Complete(naming) => {
                let Naming {
                    endpoint,
                    version,
                    known,
                    ..
                } = *naming;
                let used = self.use_list(at, &endpoint, version, known);
                used.err().map(|error| (endpoint, NGX_LOG_ERR, error))
            }
            Next::Failed(endpoint, error) => {
                let level = match error {
                    Error::Host(_) => NGX_LOG_ERR,
                    _ => NGX_LOG_WARN,
                };
                Some((endpoint, level, error.to_string()))
            }
        };
        if let Some((endpoint, level, error)) = failed {
            self.tell_no_list(at, &endpoint, level, &error);
        }
        self.end_discovery(at);
    }

    fn name_servers(&mut self, at: usize, kind: NameKind) -> Next {
        let poll = self.polls.list.get_mut(at);
        let discovery = poll.and_then(Poll::discovery);
        let Some(mut naming) = discovery.and_then(|discovery| discovery.naming.take()) else {
            return Next::Waiting;
        };
        loop {
            match next_address(at, &mut naming) {
                None => return Next::Complete(Box::new(naming)),
                Some(Ok(None)) => {
                    let poll = self.polls.list.get_mut(at);
                    if let Some(discovery) = poll.and_then(Poll::discovery) {
                        discovery.naming = Some(naming);
                    }
                    return Next::Waiting;
                }
                Some(Ok(Some(mut address))) => {
                    naming.resolution = None;
                    if let Some(node) = naming.rest.pop_front() {
                        naming.known.push(Peer {
                            server: node.server(kind).into_bytes().into(),
                            name: address.text().into_bytes().into(),
                            weight: 1,
                            backup: false,
                        });
                    }
                }
                Some(Err(error)) => return Next::Failed(naming.endpoint, error),
            }
        }
    }
}

/// The address of the first server in `rest`. `Ok(None)`: its name is being looked up. `None`:
/// `rest` is empty.
fn next_address(at: usize, naming: &mut Naming) -> Option<Result<Option<Address>, Error>> {
    let node = naming.rest.front()?;
    let port = node.port;
    if let Some(resolution) = &mut naming.resolution {
        let answer = resolution.take_answer().transpose();
        return Some(answer.map(|answer| answer.map(|answer| answer.address.with_port(port))));
    }
    Some(match parse(node) {
        Ok(Parsed::Address(address)) => Ok(Some(address)),
        Ok(Parsed::Name) => look_up(at, node).map(|(resolution, address)| {
            naming.resolution = Some(resolution);
            address.map(|address| address.with_port(port))
        }),
        Err(error) => Err(error),
    })
}

fn parse(node: &Node) -> Result<Parsed, Error> {
    let host = match node.ip {
        Some(ip) if ip.is_ipv6() => format!("[{ip}]"),
        Some(ip) => ip.to_string(),
        None if node.host.contains(':') => format!("[{}]", node.host),
        None => node.host.to_string(),
    };
    Address::parse(host.as_bytes(), node.port, Log::silent())
}

type LookedUp = (Box<Resolution>, Option<Address>);

fn look_up(at: usize, node: &Node) -> Result<LookedUp, Error> {
    let resolver = HttpBlock::current().ok_or(Error::Unknown)?.resolver();
    let mut resolution = Resolution::start(node.host.as_bytes(), Asker::Poll(at), resolver)?;
    let answer = resolution.take_answer().transpose()?;
    Ok((resolution, answer.map(|answer| answer.address)))
}
