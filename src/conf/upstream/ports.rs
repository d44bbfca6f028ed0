//! Servers whose port is not written. nginx takes 80 for them, which is hardly memcached's.

use nginx_sys::NGX_LOG_WARN;

use super::{Servers, UpstreamConf, text};
use crate::group::Group;
use crate::nginx::Log;

/// Tells of each such server of a block that is used by this module, once.
pub fn tell(servers: Servers, group: &Group, log: Log) {
    let upstream = servers.upstream;
    let Some(conf) = UpstreamConf::of(upstream).filter(|conf| !conf.get().ports_told) else {
        return;
    };
    conf.set(UpstreamConf {
        ports_told: true,
        ..conf.get()
    });
    let mut told: Option<&[u8]> = None;
    for peer in group.peers().iter().filter(|peer| peer.has_default_port()) {
        // a name may have several addresses, which are in a row
        if told.replace(&peer.server) == Some(&peer.server) {
            continue;
        }
        let (name, server) = (text(upstream.name()), text(&peer.server));
        let place = upstream.place();
        log.write(
            NGX_LOG_WARN,
            0,
            format_args!(
                "upstream \"{name}\": server \"{server}\" has no port, nginx's default is 80 in {place}"
            ),
        );
    }
}
