//! `lua_memcached_queue [max_operations=N] [max_size=SIZE] [timeout=TIME];`

use std::ffi::CStr;

use super::multiplex::number;
use super::size;
use super::time::milliseconds;
use crate::nginx::Msec;
use crate::upstream::Bounds;

/// The limits of a background queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queueing {
    /// How much may wait for one server, in each worker.
    pub bounds: Bounds,
    /// How long a write may wait without progress.
    pub timeout: Msec,
}

impl Queueing {
    pub const DEFAULT: Queueing = Queueing {
        bounds: Bounds {
            operations: 4096,
            size: 8 * 1024 * 1024,
        },
        timeout: 1000,
    };

    /// Parses the arguments of the directive. The error is for the operator.
    pub fn parse(args: &[&[u8]]) -> Result<Queueing, &'static CStr> {
        let mut parsed = Queueing::DEFAULT;
        let mut seen = [false; 3];
        for arg in args {
            let text = *arg;
            let [operations, size, timeout] = &mut seen;
            let seen = if let Some(text) = text.strip_prefix(b"max_operations=") {
                parsed.bounds.operations = number(text)
                    .filter(|n| *n > 0)
                    .ok_or(c"needs a positive number of operations in \"max_operations\"")?;
                operations
            } else if let Some(text) = text.strip_prefix(b"max_size=") {
                parsed.bounds.size = size::parse(text)
                    .filter(|size| *size > 0)
                    .ok_or(c"needs a positive size in \"max_size\"")?;
                size
            } else if let Some(text) = text.strip_prefix(b"timeout=") {
                parsed.timeout = milliseconds(text)
                    .filter(|time| *time > 0)
                    .ok_or(c"needs a positive time in \"timeout\"")?;
                timeout
            } else {
                return Err(
                    c"takes only the parameters \"max_operations\", \"max_size\" and \"timeout\"",
                );
            };
            if std::mem::replace(seen, true) {
                return Err(c"takes each parameter only once");
            }
        }
        Ok(parsed)
    }
}
