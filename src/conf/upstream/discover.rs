//! `lua_memcached_discover elasticache [interval=TIME] [name=host|ip];`

use std::ffi::CStr;

use super::parameters::Parameters;
use crate::conf::time::milliseconds;
use crate::group::NameKind;
use crate::nginx::Msec;

/// How the list of servers is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discover {
    /// From one time to the next.
    pub interval: Msec,
    /// What of a server is hashed.
    pub name: NameKind,
}

/// An endpoint is not to be asked more often.
const MIN_INTERVAL: Msec = 1000;

impl Discover {
    /// The error is for the operator.
    pub(super) fn parse(mut parameters: Parameters<'_>) -> Result<Discover, &'static CStr> {
        if parameters.take(b"elasticache")? != Some(b"") {
            return Err(c"needs \"elasticache\"");
        }
        let interval = parameters.take(b"interval=")?.unwrap_or(b"60s");
        let name = parameters.take(b"name=")?.unwrap_or(b"host");
        parameters.end(c"takes only the parameters \"interval\" and \"name\"")?;
        Ok(Discover {
            interval: milliseconds(interval)
                .filter(|interval| *interval >= MIN_INTERVAL)
                .ok_or(c"needs an \"interval\" of 1s or more")?,
            name: match name {
                b"host" => NameKind::Host,
                b"ip" => NameKind::Ip,
                _ => return Err(c"needs \"name=host\" or \"name=ip\""),
            },
        })
    }
}
