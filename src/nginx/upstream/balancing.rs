//! Which load balancing method a block has. nginx tells nobody; but a method is known by the
//! function that it has nginx call for each request. That of a method is learnt by having nginx's
//! own directive set up a block that nobody will use.

use std::ffi::CStr;
use std::iter::successors;
use std::ptr;

use nginx_sys::{
    NGX_OK, ngx_addr_t, ngx_array_t, ngx_http_max_module, ngx_http_upstream_init_peer_pt,
    ngx_http_upstream_init_round_robin_peer, ngx_http_upstream_rr_peers_t,
    ngx_http_upstream_server_t, ngx_http_upstream_srv_conf_t, ngx_int_t, ngx_module_t, ngx_pcalloc,
    ngx_pool_large_t, ngx_pool_t, ngx_str_t, sockaddr_in, socklen_t,
};

use super::{Peers, Upstream, live};
use crate::nginx::conf::Conf;
use crate::nginx::live::{Live, Zeroed};
use crate::nginx::module::{Module, ngx_http_upstream_module};

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
    /// Its servers, if they are kept as nginx's own methods keep them.
    pub peers: Option<Peers>,
}

/// What the methods are known by: addresses of functions.
pub struct Methods {
    hash: Option<usize>,
    consistent: Option<usize>,
    /// The module that puts itself before a method.
    keepalive: Option<&'static Module<KeepaliveConf>>,
}

/// Words of the keepalive module's configuration of a block, in all versions from 1.22 to 1.31. The
/// function that it has replaced is among them.
type KeepaliveConf = [usize; 10];

impl Methods {
    /// Learns the methods of this nginx. For `postconfiguration`.
    pub fn learn(cf: Conf) -> Methods {
        let named = |name: &CStr| cf.cycle()?.module(name);
        let hash = named(c"ngx_http_upstream_hash_module");
        let learn = |words: usize| set_up(cf, hash?, words);
        // SAFETY: in all versions it has so many words, all zero at first.
        let keepalive = |module| unsafe { Module::<KeepaliveConf>::from_raw(module) };
        Methods {
            hash: learn(2),
            consistent: learn(3),
            keepalive: named(c"ngx_http_upstream_keepalive_module").map(keepalive),
        }
    }

    /// How a block of the configuration that is being read chooses its servers.
    pub fn balancing(&self, cf: Conf, upstream: Upstream) -> Balancing {
        let method = self
            .method_of(address(upstream.0.peer.init))
            .or_else(|| self.behind_keepalive(upstream))
            .unwrap_or(Method::Other);
        Balancing {
            method,
            peers: has_nginxs_peers(cf, &upstream.0).then(|| Peers::of(upstream)),
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

    fn behind_keepalive(&self, upstream: Upstream) -> Option<Method> {
        let words = upstream.conf(self.keepalive?)?;
        words.iter().find_map(|word| self.method_of(Some(*word)))
    }
}

/// The address of a function, `None` if it is null.
fn address(function: ngx_http_upstream_init_peer_pt) -> Option<usize> {
    function.map(|function| function as *const () as usize)
}

// SAFETY: integers, flags, and pointers that may be null.
unsafe impl Zeroed for ngx_http_upstream_srv_conf_t {}
// SAFETY: as above.
unsafe impl Zeroed for ngx_http_upstream_server_t {}
// SAFETY: as above.
unsafe impl Zeroed for sockaddr_in {}
// SAFETY: as above.
unsafe impl Zeroed for ngx_addr_t {}

/// Has the directive of nginx's module set up a block with one server, and returns the function
/// that nginx would call for each request: that of `hash x`, or with three words of `hash x
/// consistent`.
fn set_up(cf: Conf, module: *const ngx_module_t, words: usize) -> Option<usize> {
    let arguments = [
        string(cf, *b"hash\0")?,
        string(cf, *b"x\0")?,
        string(cf, *b"consistent\0")?,
    ];
    let mut arguments = array(cf, arguments)?;
    arguments.nelts = words;
    let arguments = cf.keep(arguments)?;
    let servers = cf.keep(array(cf, [server(cf)?])?)?;
    let upstream = cf.keep(ngx_http_upstream_srv_conf_t {
        servers: servers.as_ptr(),
        ..Zeroed::ZEROED
    })?;
    let upstream = upstream.as_ptr();
    let mut context = *cf.context()?;
    // SAFETY: everything is made as nginx makes it for a block, in the configuration's memory, and
    // the module's functions are called in nginx's order. They see a copy of `cf`.
    unsafe {
        let module = Module::<()>::from_raw(module);
        let mut scratch = *cf.as_ptr();
        let confs = size_of::<*mut ()>().checked_mul(ngx_http_max_module)?;
        context.srv_conf = ngx_pcalloc(scratch.pool, confs).cast();
        if context.srv_conf.is_null() {
            return None;
        }
        (*upstream).srv_conf = context.srv_conf;
        scratch.ctx = (&raw mut context).cast();
        scratch.args = arguments.as_ptr();
        let conf = (*module.hooks()).create_srv_conf?(&raw mut scratch);
        if conf.is_null() {
            return None;
        }
        *context.srv_conf.add(ngx_http_upstream_module.http_index()) = upstream.cast();
        *context.srv_conf.add(module.http_index()) = conf;
        let mut command = module.commands().cast_mut();
        while (*command).name.as_bytes() != b"hash" {
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

/// 127.0.0.1:1
fn server(cf: Conf) -> Option<ngx_http_upstream_server_t> {
    let name = string(cf, *b"127.0.0.1:1\0")?;
    let socket = cf.keep(sockaddr_in {
        sin_family: libc::AF_INET as _,
        ..Zeroed::ZEROED
    })?;
    let addr = cf.keep(ngx_addr_t {
        name,
        sockaddr: socket.as_ptr().cast(),
        socklen: size_of::<sockaddr_in>() as socklen_t,
    })?;
    Some(ngx_http_upstream_server_t {
        name,
        addrs: addr.as_ptr(),
        naddrs: 1,
        weight: 1,
        ..Zeroed::ZEROED
    })
}

/// A text that ends with NUL, in memory that nginx may write to.
fn string<const N: usize>(cf: Conf, text: [u8; N]) -> Option<ngx_str_t> {
    let text = cf.keep(text)?;
    Some(ngx_str_t {
        len: N - 1,
        data: text.as_ptr().cast(),
    })
}

fn array<T, const N: usize>(cf: Conf, elements: [T; N]) -> Option<ngx_array_t> {
    Some(ngx_array_t {
        elts: cf.keep(elements)?.as_ptr().cast(),
        nelts: N,
        size: size_of::<T>(),
        nalloc: N,
        pool: cf.pool(),
    })
}

/// Whether a block's servers are where nginx's own methods keep them. Another module may keep
/// anything there. nginx's say whose they are, and lie in the configuration's memory, so that
/// nothing else is read to find out.
fn has_nginxs_peers(cf: Conf, conf: &ngx_http_upstream_srv_conf_t) -> bool {
    let data = conf.peer.data.cast::<ngx_http_upstream_rr_peers_t>();
    let list = live(data).filter(|_| is_in_pool(cf.pool(), data));
    list.is_some_and(|list| ptr::eq(list.name, &raw const conf.host))
}

/// Whether there is room for a `T` in what a pool has given away.
fn is_in_pool<T>(pool: *mut ngx_pool_t, data: *const T) -> bool {
    data.is_aligned() && (is_in_block(pool, data) || is_allocation(pool, data))
}

/// Whether there is room for a `T` in a pool's small pieces.
fn is_in_block<T>(pool: *mut ngx_pool_t, data: *const T) -> bool {
    let from = data.addr();
    let Some(to) = from.checked_add(size_of::<T>()) else {
        return false;
    };
    let mut blocks = successors(live(pool), |block: &Live<ngx_pool_t>| live(block.d.next));
    blocks.any(|block| block.as_ptr().addr() <= from && to <= block.d.last.addr())
}

/// Whether a pool has allocated this by itself, as an nginx built to find faults in its memory
/// (`NGX_DEBUG_PALLOC`) does with small pieces as well, and there is room for a `T`.
fn is_allocation<T>(pool: *mut ngx_pool_t, data: *const T) -> bool {
    let first = live(pool).and_then(|pool| live(pool.large));
    let mut larges = successors(first, |large: &Live<ngx_pool_large_t>| live(large.next));
    larges.any(|large| {
        ptr::eq(large.alloc.cast(), data)
            // SAFETY: a pool's allocations are those of malloc.
            && unsafe { libc::malloc_usable_size(large.alloc) } >= size_of::<T>()
    })
}
