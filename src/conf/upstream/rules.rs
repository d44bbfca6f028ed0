//! What nginx -t refuses of `upstream` blocks, after all are read.

use super::conf::UpstreamConf;
use super::servers::{Servers, UpstreamError, text};
use super::told;
use crate::conf::mapping;
use crate::distribution::{Method, Scheme};
use crate::group::Failover;
use crate::nginx::{BalancingMethod, Conf, Methods, Upstream};

/// What is wrong with a block.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error(transparent)]
    Unusable(#[from] UpstreamError),
    #[error(
        "upstream \"{0}\": \"lua_memcached_hash {1}\" and \"{2}\" in one upstream: \
         other users of it would look for keys in other servers"
    )]
    Contradiction(String, Method, &'static str),
    #[error("upstream \"{0}\": \"lua_memcached_failover backup\" needs a \"backup\" server")]
    NoBackup(String),
    #[error("upstream \"{0}\": \"lua_memcached_discover\" needs \"lua_memcached_hash\"")]
    NoMethod(String),
}

/// Completes the configurations of all blocks, and says what is wrong: for the operator to read.
/// For `postconfiguration`.
pub fn check(cf: Conf) -> Result<(), String> {
    let methods = Methods::learn(cf);
    for upstream in Upstream::blocks(cf) {
        let Some(conf) = UpstreamConf::of(upstream) else {
            continue;
        };
        let balancing = methods.balancing(cf, upstream);
        let own = match balancing.method {
            BalancingMethod::Hash => Some(Method::of(Scheme::Crc)),
            BalancingMethod::Consistent => Some(Method::of(Scheme::Consistent)),
            BalancingMethod::RoundRobin | BalancingMethod::Other => None,
        };
        conf.set(UpstreamConf {
            own,
            peers: balancing.peers,
            ..conf.get()
        });
    }
    for upstream in Upstream::blocks(cf) {
        let said = UpstreamConf::of(upstream).map(|conf| conf.get());
        if let Some(conf) = said.filter(UpstreamConf::is_said) {
            check_block(cf, upstream, &conf)
                .map_err(|refusal| format!("{refusal} in {}", upstream.place()))?;
        }
    }
    mapping::complete(|name| check_mapped(cf, name))
}

fn check_block(cf: Conf, upstream: Upstream, conf: &UpstreamConf) -> Result<(), Refusal> {
    let name = || text(upstream.name());
    if let (Some(said), Some(own)) = (conf.hash, conf.own)
        && said != own
    {
        let own = match own.scheme() {
            Scheme::Consistent => "hash ... consistent",
            _ => "hash ...",
        };
        return Err(Refusal::Contradiction(name(), said, own));
    }
    if conf.discover.is_some() && conf.method().is_none() {
        return Err(Refusal::NoMethod(name()));
    }
    let servers = Servers::of(upstream)?;
    let (group, _) = servers.group()?;
    let needs_backup = matches!(conf.failover, Some(Failover::Backup { .. }));
    if needs_backup && !group.peers().iter().any(|peer| peer.backup) {
        return Err(Refusal::NoBackup(name()));
    }
    told::tell(servers, &group, cf.log());
    Ok(())
}

fn check_mapped(cf: Conf, name: &[u8]) -> Result<Servers, String> {
    let upstream = Upstream::blocks(cf)
        .find(|upstream| upstream.is_named(name))
        .ok_or_else(|| format!("there is no upstream \"{}\"", text(name)))?;
    let servers = Servers::of(upstream).map_err(|error| error.to_string())?;
    let (group, _) = servers.group().map_err(|error| error.to_string())?;
    told::tell(servers, &group, cf.log());
    Ok(servers)
}
