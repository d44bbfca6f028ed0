//! `lua_memcached_multiplex off | <connections> [max_operations=N] [max_size=SIZE];`

use std::cell::RefCell;
use std::ffi::CStr;

use super::size;
use crate::nginx::Conf;
use crate::upstream::Bounds;

/// Maximum number of shared connections from a worker to a server.
pub const MAX_CONNECTIONS: usize = 64;

/// Operations that may wait for one server in one worker.
const DEFAULT_MAX_OPERATIONS: usize = 16384;

/// Bytes of commands that may wait to be sent to one server in one worker, wherever they wait.
const DEFAULT_MAX_SIZE: usize = 64 * 1024 * 1024;

/// How connections are shared in a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiplex {
    /// Number of shared connections from a worker to each server; 0: none.
    pub connections: usize,
    /// How much may wait for one server, in each worker: operations that coroutines wait for, and
    /// bytes to be sent. One command may always wait, whatever its size.
    pub bounds: Bounds,
}

impl Multiplex {
    /// Nothing is shared.
    pub const OFF: Multiplex = Multiplex {
        connections: 0,
        bounds: Bounds {
            operations: DEFAULT_MAX_OPERATIONS,
            size: DEFAULT_MAX_SIZE,
        },
    };

    /// Parses the arguments of the directive. The error is for the operator.
    pub fn parse(args: &[&[u8]]) -> Result<Multiplex, &'static CStr> {
        let mut parsed = Multiplex::OFF;
        let (mut operations, mut size) = (false, false);
        let first = |seen: &mut bool| match std::mem::replace(seen, true) {
            false => Ok(()),
            true => Err(c"takes each parameter only once"),
        };
        for (at, arg) in args.iter().enumerate() {
            let text = *arg;
            if at == 0 {
                if text != b"off" {
                    parsed.connections = number(text)
                        .filter(|n| (1..=MAX_CONNECTIONS).contains(n))
                        .ok_or(c"needs \"off\" or a number of connections from 1 to 64")?;
                }
            } else if parsed.connections == 0 {
                return Err(c"\"off\" takes no parameters");
            } else if let Some(text) = text.strip_prefix(b"max_operations=") {
                first(&mut operations)?;
                parsed.bounds.operations = number(text)
                    .filter(|n| *n > 0)
                    .ok_or(c"needs a positive number of operations in \"max_operations\"")?;
            } else if let Some(text) = text.strip_prefix(b"max_size=") {
                first(&mut size)?;
                parsed.bounds.size = size::parse(text)
                    .filter(|size| *size > 0)
                    .ok_or(c"needs a positive size in \"max_size\"")?;
            } else {
                return Err(c"takes only the parameters \"max_operations\" and \"max_size\"");
            }
        }
        Ok(parsed)
    }
}

/// A decimal number.
pub(super) fn number(text: &[u8]) -> Option<usize> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    str::from_utf8(text).ok().filter(|_| digits)?.parse().ok()
}

/// Where sharing is on in the configuration that was read last, for a log line.
struct Places(RefCell<(Vec<String>, usize)>);

// SAFETY: nginx reads its configuration in one thread.
unsafe impl Sync for Places {}

static PLACES: Places = Places(RefCell::new((Vec::new(), 0)));

/// Forgets the places of a configuration.
pub fn forget() {
    PLACES.0.take();
}

/// The places: `2 in /etc/nginx/nginx.conf:12, 4 in …`; empty if there are none.
pub fn places() -> String {
    let Ok(places) = PLACES.0.try_borrow() else {
        return String::new();
    };
    let (named, others) = &*places;
    let mut text = named.join(", ");
    if *others > 0 {
        text.push_str(&format!(" and in {others} more places"));
    }
    text
}

/// Notes where sharing is on.
pub fn note_place(cf: Conf, connections: usize) {
    /// How many are named.
    const NAMED: usize = 4;
    let Ok(mut places) = PLACES.0.try_borrow_mut() else {
        return;
    };
    let (named, others) = &mut *places;
    if named.len() == NAMED {
        *others += 1;
        return;
    }
    named.push(format!("{connections} in {}", cf.place()));
}
