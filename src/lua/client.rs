//! The Lua module `resty.memcached.client`: clients for module-level variables. They are written in
//! Lua, see `glue/client.lua`.

use std::ffi::c_int;

use super::connection::multiplex;
use super::handle;
use super::stack::Stack;
use crate::conf::LocConf;
use crate::transport::{self, Peer, PoolName};

/// `attach(id, multiplex, host, port)`: whether the session, which has nothing, is attached to
/// shared connections now. If not, `connect` has to be called. `MAPPED`: host and port may mean a
/// group of servers, to which no session is attached.
pub fn attach<const MAPPED: bool>(stack: Stack) -> c_int {
    let (Some(key), Some(request)) = (handle::id_argument(stack, 1), stack.running_request())
    else {
        return answer(stack, false);
    };
    let Some(host) = stack.text(3) else {
        return answer(stack, false);
    };
    let port = stack.number(4) as u16;
    let conf = LocConf::of(request);
    if MAPPED && conf.has_mappings() && conf.upstream_for(host, port).is_some() {
        return answer(stack, false);
    }
    let peer = Peer {
        host,
        port,
        pool: PoolName::Default {
            with_port: port != 0,
        },
        pool_size: None,
        backlog: None,
        multiplex: multiplex(stack, conf.multiplex(), 2),
    };
    // in other coroutines `connect` is called, and says what is wrong
    let attached = stack.is_thread(request) && transport::attach_again(key, request, &peer);
    answer(stack, attached)
}

/// `release(id, idle?)`: detaches the session. True: it is kept for the next `attach`. False: it
/// stays as it was.
pub fn release(stack: Stack) -> c_int {
    let (Some(key), Some(request)) = (handle::id_argument(stack, 1), stack.running_request())
    else {
        return answer(stack, false);
    };
    let idle = (!stack.is_none_or_nil(2)).then(|| stack.number(2) as usize);
    answer(stack, transport::give_back(key, request, idle))
}

fn answer(stack: Stack, value: bool) -> c_int {
    stack.push_boolean(value);
    1
}
