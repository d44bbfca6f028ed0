//! Who calls, and where `connect` is to connect to.

use crate::nginx::Request;
use crate::ngx_lua::Waiter;
use std::borrow::Cow;

use crate::conf::Multiplex;
use crate::protocol::Digits;

/// Where to connect to.
#[derive(Clone, Copy, Debug)]
pub struct Peer<'a> {
    /// An IP address or `unix:/path`.
    pub host: &'a [u8],
    /// The TCP port; 0 with a unix socket.
    pub port: u16,
    /// The pool's name.
    pub pool: PoolName<'a>,
    /// With a size the pool is created now, if there is none of this name.
    pub pool_size: Option<usize>,
    /// With a backlog, the pool size limits the open connections, and so many connect operations
    /// may wait for one.
    pub backlog: Option<usize>,
    /// Whether and how to share connections.
    pub multiplex: Multiplex,
}

/// The name of a pool, as `connect` is told it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolName<'a> {
    /// By the option `pool`.
    Given(&'a [u8]),
    /// Without that option: the name is the host or, with a port, `host:port`. It is not made into
    /// a text, because that is rarely needed.
    Default {
        /// There is a port.
        with_port: bool,
    },
}

impl<'a> Peer<'a> {
    /// The name of the pool as text.
    pub fn pool_name(&self) -> Cow<'a, [u8]> {
        match self.pool {
            PoolName::Given(name) => name.into(),
            PoolName::Default { with_port: false } => self.host.into(),
            PoolName::Default { with_port: true } => {
                let port = Digits::from(u64::from(self.port));
                [self.host, b":", port.as_bytes()].concat().into()
            }
        }
    }
}

/// Whether there is memory for the copies of names of so many bytes in total.
pub fn has_room_for_names(bytes: usize) -> bool {
    /// Names of up to so many bytes are not checked.
    const SMALL: usize = 4 * 1024;
    /// The pool's name, the host, the name in messages and while it is looked up, and as much
    /// again.
    const COPIES: usize = 8;
    bytes <= SMALL
        || Vec::<u8>::new()
            .try_reserve_exact(bytes.saturating_mul(COPIES))
            .is_ok()
}

/// Who calls: the request whose Lua code runs, and the coroutine that would wait for the result.
pub struct Caller {
    pub request: Request,
    /// `None`: it cannot wait.
    pub waiter: Option<Waiter>,
}
