//! What is said once of a block that is used by key: of servers that are hardly what was meant.

use nginx_sys::{NGX_LOG_NOTICE, NGX_LOG_WARN};

use super::conf::UpstreamConf;
use super::servers::{Servers, text};
use crate::group::Group;
use crate::nginx::Log;

/// Tells of servers whose port is not written, for which nginx takes 80, and of names with several
/// addresses, of which one is used.
pub fn tell(servers: Servers, group: &Group, log: Log) {
    let upstream = servers.upstream;
    let Some(conf) = UpstreamConf::of(upstream).filter(|conf| !conf.get().told) else {
        return;
    };
    conf.set(UpstreamConf {
        told: true,
        ..conf.get()
    });
    let (block, place) = (text(upstream.name()), upstream.place());
    let apart = group.policy().method.tells_addresses_apart();
    // the addresses of a name are in a row
    for peers in group.peers().chunk_by(|a, b| a.server == b.server) {
        let Some(peer) = peers.first() else { continue };
        let server = text(&peer.server);
        let begin = format_args!("upstream \"{block}\": server \"{server}\" has");
        if peer.has_default_port() {
            let text = "no port, nginx's default is 80";
            log.write(NGX_LOG_WARN, 0, format_args!("{begin} {text} in {place}"));
        }
        // nginx writes no info while it reads its configuration
        if !apart && peers.iter().any(|other| other.name != peer.name) {
            let count = peers.len();
            let text = "addresses, of which the first usable one is used";
            let line = format_args!("{begin} {count} {text} in {place}");
            log.write(NGX_LOG_NOTICE, 0, line);
        }
    }
}
