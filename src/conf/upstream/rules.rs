//! What nginx -t refuses of `upstream` blocks, after all are read.

use std::ffi::c_void;
use std::sync::atomic::Ordering;

use nginx_sys::{ngx_conf_t, ngx_http_conf_ctx_t};

use super::{Servers, UpstreamConf, UpstreamError, text};
use crate::conf::{INDEX, mapping};
use crate::distribution::{Method, Scheme};
use crate::group::Failover;
use crate::nginx::{BalancingMethod, Methods, Upstream};

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

/// Completes the configurations of all blocks, and says what is wrong: for the
/// operator to read.
///
/// # Safety
///
/// To be called from `postconfiguration`, with its `cf`.
pub unsafe fn check(cf: *mut ngx_conf_t) -> Result<(), String> {
    // SAFETY: by this function's contract. Nobody else refers to a block's
    // configuration now.
    unsafe {
        let main_conf = (*(*cf).ctx.cast::<ngx_http_conf_ctx_t>()).main_conf;
        let methods = Methods::learn(cf);
        for upstream in Upstream::blocks(main_conf) {
            let conf = upstream.module_conf(INDEX.load(Ordering::Relaxed));
            let Some(conf) = conf.cast::<UpstreamConf>().as_mut() else {
                continue;
            };
            let balancing = methods.balancing(cf, upstream);
            conf.readable = balancing.has_nginxs_peers;
            conf.own = match balancing.method {
                BalancingMethod::Hash => Some(Method::of(Scheme::Crc)),
                BalancingMethod::Consistent => Some(Method::of(Scheme::Consistent)),
                BalancingMethod::RoundRobin | BalancingMethod::Other => None,
            };
        }
        for upstream in Upstream::blocks(main_conf) {
            let said = UpstreamConf::of(upstream).filter(|conf| conf.is_said());
            if let Some(conf) = said {
                check_block(upstream, conf).map_err(|refusal| {
                    let (file, line) = upstream.place();
                    format!("{refusal} in {file}:{line}")
                })?;
            }
        }
        mapping::complete(|name| check_mapped(main_conf, name))
    }
}

/// # Safety
///
/// As for [`check`], whose block it is.
unsafe fn check_block(upstream: Upstream, conf: &UpstreamConf) -> Result<(), Refusal> {
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
    // SAFETY: by this function's contract.
    let (group, _) = unsafe { Servers::of(upstream)? }.group()?;
    let needs_backup = matches!(conf.failover, Some(Failover::Backup { .. }));
    if needs_backup && !group.peers().iter().any(|peer| peer.backup) {
        return Err(Refusal::NoBackup(name()));
    }
    Ok(())
}

/// # Safety
///
/// As for [`check`]; `main_conf` is its configuration's.
unsafe fn check_mapped(main_conf: *mut *mut c_void, name: &[u8]) -> Result<Servers, String> {
    // SAFETY: by this function's contract.
    unsafe {
        let upstream = Upstream::named(main_conf, name)
            .ok_or_else(|| format!("there is no upstream \"{}\"", text(name)))?;
        let servers = Servers::of(upstream).map_err(|error| error.to_string())?;
        servers.group().map_err(|error| error.to_string())?;
        Ok(servers)
    }
}
