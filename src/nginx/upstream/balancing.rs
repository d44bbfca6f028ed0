//! Which load balancing method a block has. nginx tells nobody; but a method is
//! known by the function that it has nginx call for each request. That of a
//! method is learnt by having nginx's own directive set up a block that nobody
//! will use.

use std::ffi::CStr;
use std::ptr;

use nginx_sys::{
    NGX_OK, ngx_addr_t, ngx_array_create, ngx_array_push, ngx_array_t, ngx_conf_t,
    ngx_http_conf_ctx_t, ngx_http_max_module, ngx_http_module_t, ngx_http_upstream_init_peer_pt,
    ngx_http_upstream_init_round_robin_peer, ngx_http_upstream_module,
    ngx_http_upstream_rr_peers_t, ngx_http_upstream_server_t, ngx_http_upstream_srv_conf_t,
    ngx_int_t, ngx_module_t, ngx_pcalloc, ngx_pool_t, ngx_str_t, sockaddr, sockaddr_in, socklen_t,
};

use super::Upstream;

/// The load balancing method of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// None is said.
    RoundRobin,
    /// `hash`
    Hash,
    /// `hash … consistent`
    Consistent,
    /// Another one, of nginx or of another module.
    Other,
}

/// How a block chooses its servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Balancing {
    /// The method.
    pub method: Method,
    /// Whether its servers are kept as nginx's own methods keep them.
    pub has_nginxs_peers: bool,
}

/// What the methods are known by: addresses of functions.
#[derive(Debug)]
pub struct Methods {
    hash: Option<usize>,
    consistent: Option<usize>,
    /// The `ctx_index` of the module that puts itself before a method.
    keepalive: Option<usize>,
}

/// Words of the keepalive module's configuration of a block, in all versions
/// from 1.22 to 1.31. The function that it has replaced is among them.
const KEEPALIVE_WORDS: usize = 10;

impl Methods {
    /// Learns the methods of this nginx.
    ///
    /// # Safety
    ///
    /// To be called from `postconfiguration`, with its `cf`.
    pub unsafe fn learn(cf: *mut ngx_conf_t) -> Methods {
        // SAFETY: by this function's contract.
        unsafe {
            let hash = module(cf, c"ngx_http_upstream_hash_module");
            let learn = |arguments: &[&CStr]| set_up(cf, hash?, arguments);
            Methods {
                hash: learn(&[c"hash", c"x"]),
                consistent: learn(&[c"hash", c"x", c"consistent"]),
                keepalive: module(cf, c"ngx_http_upstream_keepalive_module")
                    .map(|module| (*module).ctx_index),
            }
        }
    }

    /// How a block chooses its servers.
    ///
    /// # Safety
    ///
    /// As for [`Self::learn`]; the block is of that configuration.
    pub unsafe fn balancing(&self, cf: *mut ngx_conf_t, upstream: Upstream) -> Balancing {
        // SAFETY: by this function's contract.
        unsafe {
            let conf = upstream.0.as_ref();
            let method = self
                .method_of(address(conf.peer.init))
                .or_else(|| self.behind_keepalive(upstream))
                .unwrap_or(Method::Other);
            Balancing {
                method,
                has_nginxs_peers: has_nginxs_peers((*cf).pool, conf),
            }
        }
    }

    fn method_of(&self, init: Option<usize>) -> Option<Method> {
        let init = init?;
        if Some(init) == self.hash {
            Some(Method::Hash)
        } else if Some(init) == self.consistent {
            Some(Method::Consistent)
        } else if init == ngx_http_upstream_init_round_robin_peer as *const () as usize {
            Some(Method::RoundRobin)
        } else {
            None
        }
    }

    /// # Safety
    ///
    /// As for [`Self::balancing`].
    unsafe fn behind_keepalive(&self, upstream: Upstream) -> Option<Method> {
        let conf = upstream.module_conf(self.keepalive?).cast::<usize>();
        if conf.is_null() {
            return None;
        }
        // SAFETY: so many words are there, all zero at first.
        let words = unsafe { std::slice::from_raw_parts(conf, KEEPALIVE_WORDS) };
        words.iter().find_map(|word| self.method_of(Some(*word)))
    }
}

/// The address of a function, `None` if it is null.
fn address(function: ngx_http_upstream_init_peer_pt) -> Option<usize> {
    function.map(|function| function as *const () as usize)
}

/// A module by its name.
///
/// # Safety
///
/// `cf` belongs to reading a configuration.
unsafe fn module(cf: *mut ngx_conf_t, name: &CStr) -> Option<*mut ngx_module_t> {
    // SAFETY: the cycle has an array of all modules, which ends with null.
    unsafe {
        let mut at = (*(*cf).cycle).modules;
        while !(*at).is_null() {
            let module = *at;
            if !(*module).name.is_null() && CStr::from_ptr((*module).name) == name {
                return Some(module);
            }
            at = at.add(1);
        }
    }
    None
}

/// Has a directive set up a block with one server, and returns the function that
/// nginx would call for each request.
///
/// # Safety
///
/// As for [`Methods::learn`].
unsafe fn set_up(
    cf: *mut ngx_conf_t,
    module: *mut ngx_module_t,
    arguments: &[&CStr],
) -> Option<usize> {
    // SAFETY: everything is made as nginx makes it for a block, of the
    // configuration's pool, and the module's functions are called in nginx's
    // order. They see a copy of `cf`.
    unsafe {
        let pool = (*cf).pool;
        let index = (*module).ctx_index;
        let hooks = (*module).ctx.cast::<ngx_http_module_t>();
        let upstream = zeroed::<ngx_http_upstream_srv_conf_t>(pool, 1)?;
        let mut context = *(*cf).ctx.cast::<ngx_http_conf_ctx_t>();
        context.srv_conf = zeroed(pool, ngx_http_max_module)?;
        (*upstream).srv_conf = context.srv_conf;
        (*upstream).servers = servers(pool)?;
        let mut scratch = *cf;
        scratch.ctx = (&raw mut context).cast();
        scratch.args = strings(pool, arguments)?;
        let conf = (*hooks).create_srv_conf?(&raw mut scratch);
        if conf.is_null() {
            return None;
        }
        *context.srv_conf.add(ngx_http_upstream_module.ctx_index) = upstream.cast();
        *context.srv_conf.add(index) = conf;
        let mut command = (*module).commands;
        while (*command).name.as_bytes() != arguments.first()?.to_bytes() {
            if (*command).name.len == 0 {
                return None;
            }
            command = command.add(1);
        }
        if !(*command).set?(&raw mut scratch, command, conf).is_null() {
            return None;
        }
        let init = (*upstream).peer.init_upstream?;
        if init(&raw mut scratch, upstream) != NGX_OK as ngx_int_t {
            return None;
        }
        address((*upstream).peer.init)
    }
}

/// One server, 127.0.0.1:1.
///
/// # Safety
///
/// `pool` is that of a configuration.
unsafe fn servers(pool: *mut ngx_pool_t) -> Option<*mut ngx_array_t> {
    // SAFETY: by this function's contract; C structs, for which all zeros is
    // the initial state.
    unsafe {
        let name = ngx_str_t {
            len: c"127.0.0.1:1".count_bytes(),
            data: c"127.0.0.1:1".as_ptr().cast_mut().cast(),
        };
        let socket = zeroed::<sockaddr_in>(pool, 1)?;
        (*socket).sin_family = libc::AF_INET as _;
        let addr = zeroed::<ngx_addr_t>(pool, 1)?;
        (*addr).name = name;
        (*addr).sockaddr = socket.cast::<sockaddr>();
        (*addr).socklen = size_of::<sockaddr_in>() as socklen_t;
        let array = ngx_array_create(pool, 1, size_of::<ngx_http_upstream_server_t>());
        if array.is_null() {
            return None;
        }
        let server = ngx_array_push(array).cast::<ngx_http_upstream_server_t>();
        if server.is_null() {
            return None;
        }
        ptr::write_bytes(server, 0, 1);
        (*server).name = name;
        (*server).addrs = addr;
        (*server).naddrs = 1;
        (*server).weight = 1;
        Some(array)
    }
}

/// # Safety
///
/// As for [`servers`].
unsafe fn strings(pool: *mut ngx_pool_t, texts: &[&CStr]) -> Option<*mut ngx_array_t> {
    // SAFETY: by this function's contract.
    unsafe {
        let array = ngx_array_create(pool, texts.len(), size_of::<ngx_str_t>());
        if array.is_null() {
            return None;
        }
        for text in texts {
            let string = ngx_array_push(array).cast::<ngx_str_t>();
            if string.is_null() {
                return None;
            }
            // nginx may write where the text ends
            let copy = zeroed::<u8>(pool, text.count_bytes() + 1)?;
            ptr::copy_nonoverlapping(text.as_ptr().cast(), copy, text.count_bytes());
            string.write(ngx_str_t {
                len: text.count_bytes(),
                data: copy,
            });
        }
        Some(array)
    }
}

/// # Safety
///
/// As for [`servers`]; all zeros is a `T`.
unsafe fn zeroed<T>(pool: *mut ngx_pool_t, count: usize) -> Option<*mut T> {
    // SAFETY: by this function's contract.
    let memory = unsafe { ngx_pcalloc(pool, count.checked_mul(size_of::<T>())?) };
    (!memory.is_null()).then_some(memory.cast())
}

/// Whether a block's servers are where nginx's own methods keep them. Another
/// module may keep anything there. nginx's say whose they are, and lie in the
/// configuration's memory, so that nothing else is read to find out.
///
/// # Safety
///
/// As for [`Methods::balancing`].
unsafe fn has_nginxs_peers(pool: *mut ngx_pool_t, conf: &ngx_http_upstream_srv_conf_t) -> bool {
    let data = conf.peer.data.cast::<ngx_http_upstream_rr_peers_t>();
    // SAFETY: what is read lies in the pool.
    unsafe { is_in_pool(pool, data) && ptr::eq((*data).name, &raw const conf.host) }
}

/// Whether there is room for a `T` in what a pool has given away in small
/// pieces.
///
/// # Safety
///
/// `pool` is a pool.
unsafe fn is_in_pool<T>(pool: *mut ngx_pool_t, data: *const T) -> bool {
    let from = data as usize;
    let Some(to) = from.checked_add(size_of::<T>()) else {
        return false;
    };
    if !data.is_aligned() {
        return false;
    }
    let mut block = pool;
    while !block.is_null() {
        // SAFETY: the pool's blocks are a list.
        let (start, last, next) =
            unsafe { (block as usize, (*block).d.last as usize, (*block).d.next) };
        if start <= from && to <= last {
            return true;
        }
        block = next;
    }
    false
}
