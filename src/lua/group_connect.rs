//! Connecting to servers used as one.

use std::ffi::c_int;

use super::results::Elsewhere;
use super::stack::Stack;
use crate::conf::{Servers, UpstreamError, known_number, number_of};
use crate::nginx::Request;
use crate::ngx_lua::Value;

/// The group that the arguments of `connect` mean.
pub enum Meant {
    /// What the worker knows it by.
    Number(u32),
    /// Its configuration is not the worker's any more.
    Old(Servers),
}

impl Meant {
    /// The block with this name.
    ///
    /// # Errors
    ///
    /// If it cannot be used by key.
    pub fn named(request: Request, name: &[u8]) -> Result<Option<Meant>, UpstreamError> {
        if let Some(number) = known_number(request, name) {
            return Ok(Some(Meant::Number(number)));
        }
        let servers = Servers::named(request, name)?;
        servers
            .map(|servers| Meant::of(request, servers))
            .transpose()
    }

    /// The block that a directive names.
    ///
    /// # Errors
    ///
    /// As for [`Meant::named`].
    pub fn of(request: Request, servers: Servers) -> Result<Meant, UpstreamError> {
        let number = number_of(request, servers)?;
        Ok(number.map_or(Meant::Old(servers), Meant::Number))
    }
}

/// Ends a `connect` whose arguments mean a group: see [`Elsewhere`]. The last of them is at `index`,
/// and the user's argument `number`. `pool`: its options name a pool.
pub fn to_group(
    stack: Stack,
    found: Result<Option<Meant>, UpstreamError>,
    pool: bool,
    index: c_int,
    number: c_int,
) -> c_int {
    if let Err(error) = found {
        return stack.failure(1, error);
    }
    if pool {
        // one pool for many servers would mix them
        stack.raise(format_args!(
            "bad argument #{number} to 'connect' (\"pool\" is not for upstreams)"
        ));
    }
    stack.push_integer(Elsewhere::GROUP);
    match found {
        Ok(Some(Meant::Number(number))) => stack.push_integer(number.into()),
        Ok(Some(Meant::Old(servers))) => stack.push_bytes(servers.name()),
        _ => stack.push_nil(),
    }
    match stack.table(index) {
        Some(_) => {
            stack.push(Value::At(index));
            3
        }
        None => 2,
    }
}
