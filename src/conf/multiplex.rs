//! `lua_memcached_multiplex off | <connections> [max_operations=N] [max_size=SIZE];`

use std::ffi::{c_char, c_void};
use std::ptr;

use nginx_sys::{ngx_command_t, ngx_conf_t, ngx_str_t};

use super::words::{number, size};
use super::{ERROR, LocConf};
use crate::contain::contain;
use crate::upstream::Bounds;

/// Maximum number of shared connections from a worker to a server.
pub const MAX_CONNECTIONS: usize = 64;

/// Operations that may wait for one server in one worker.
const DEFAULT_MAX_OPERATIONS: usize = 16384;

/// Bytes of commands that may wait to be sent to one server in one worker,
/// wherever they wait.
const DEFAULT_MAX_SIZE: usize = 64 * 1024 * 1024;

/// How connections are shared in a location.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Multiplex {
    /// Number of shared connections from a worker to each server; 0: none.
    pub connections: usize,
    /// How much may wait for one server, in each worker: operations that
    /// coroutines wait for, and bytes to be sent. One command may always wait,
    /// whatever its size.
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
    fn parse(args: &[ngx_str_t]) -> Result<Multiplex, &'static std::ffi::CStr> {
        let mut parsed = Multiplex::OFF;
        for (at, arg) in args.iter().enumerate() {
            let text = arg.as_bytes();
            if at == 0 {
                if text != b"off" {
                    parsed.connections = number(text)
                        .filter(|n| (1..=MAX_CONNECTIONS).contains(n))
                        .ok_or(c"needs \"off\" or a number of connections from 1 to 64")?;
                }
            } else if parsed.connections == 0 {
                return Err(c"\"off\" takes no parameters");
            } else if let Some(text) = text.strip_prefix(b"max_operations=") {
                parsed.bounds.operations = number(text)
                    .filter(|n| *n > 0)
                    .ok_or(c"needs a positive number of operations in \"max_operations\"")?;
            } else if let Some(text) = text.strip_prefix(b"max_size=") {
                parsed.bounds.size = size(text).ok_or(c"needs a positive size in \"max_size\"")?;
            } else {
                return Err(c"takes only the parameters \"max_operations\" and \"max_size\"");
            }
        }
        Ok(parsed)
    }
}

/// The directive's handler.
pub unsafe extern "C" fn set(
    cf: *mut ngx_conf_t,
    _: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the configuration being read, with the directive
    // and its arguments, and what `create_loc_conf` made.
    unsafe {
        let conf = &mut *conf.cast::<LocConf>();
        if conf.multiplex.is_some() {
            return c"is duplicate".as_ptr().cast_mut();
        }
        let args = (*cf).args;
        let args = std::slice::from_raw_parts((*args).elts.cast::<ngx_str_t>(), (*args).nelts);
        match contain(|| Multiplex::parse(args.get(1..).unwrap_or_default())) {
            Some(Ok(parsed)) => conf.multiplex = Some(parsed),
            Some(Err(text)) => return text.as_ptr().cast_mut(),
            None => return ERROR,
        }
    }
    ptr::null_mut() // NGX_CONF_OK
}
