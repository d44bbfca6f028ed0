//! `lua_memcached_check interval=TIME [passes=N] [timeout=TIME];`

use std::ffi::CStr;

use super::parameters::Parameters;
use crate::conf::multiplex::number;
use crate::conf::time::milliseconds;
use crate::nginx::Msec;

/// How disabled servers are checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Check {
    /// From one check of a server to the next.
    pub interval: Msec,
    /// So many checks in a row must pass.
    pub passes: u32,
    /// For a check, with the connection.
    pub timeout: Msec,
}

/// Checks in a row.
const MAX_PASSES: usize = 100;

/// The shortest time that is of use.
const MIN_TIME: Msec = 10;

impl Check {
    /// The error is for the operator.
    pub(super) fn parse(mut parameters: Parameters<'_>) -> Result<Check, &'static CStr> {
        let time = |text| milliseconds(text).filter(|time| *time >= MIN_TIME);
        let interval = parameters
            .take(b"interval=")?
            .ok_or(c"needs an \"interval\"")?;
        let passes = parameters.take(b"passes=")?.unwrap_or(b"1");
        let timeout = parameters.take(b"timeout=")?.unwrap_or(b"1s");
        parameters.end(c"takes only the parameters \"interval\", \"passes\" and \"timeout\"")?;
        Ok(Check {
            interval: time(interval).ok_or(c"needs an \"interval\" of 10ms or more")?,
            passes: number(passes)
                .filter(|passes| (1..=MAX_PASSES).contains(passes))
                .and_then(|passes| u32::try_from(passes).ok())
                .ok_or(c"needs a number of \"passes\" from 1 to 100")?,
            timeout: time(timeout).ok_or(c"needs a \"timeout\" of 10ms or more")?,
        })
    }
}
