//! The configuration of locations: made, merged, completed and read.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::ptr::{self, NonNull};
use std::sync::OnceLock;

use nginx_sys::ngx_conf_t;

use super::directive::ERROR;
use super::mapping::{self, Mappings};
use super::multiplex::{self, Multiplex};
use super::queue::Queueing;
#[cfg(ngx_feature = "http_ssl")]
use super::tls::{self, Context};
use super::upstream::Servers;
#[cfg(ngx_feature = "http_ssl")]
use crate::contain::contain;
use crate::nginx::{Conf, HttpBlock, Live, Module, Request};

/// This module.
static MODULE: OnceLock<&Module<Cell<LocConf>>> = OnceLock::new();

/// Bytes; well above memcached's default item size of 1 MiB.
const DEFAULT_MAX_VALUE_SIZE: usize = 128 * 1024 * 1024;

/// Not set here.
pub(super) const UNSET: usize = usize::MAX;

/// The directives of a location.
#[derive(Clone, Copy, Debug)]
pub struct LocConf {
    /// 0: no limit.
    pub(super) max_value_size: usize,
    /// `None`: not set here.
    pub(super) multiplex: Option<Multiplex>,
    /// `None`: not set here.
    pub(super) queue: Option<Queueing>,
    pub(super) mappings: Mappings,
    #[cfg(ngx_feature = "http_ssl")]
    ssl: Context,
}

impl Default for LocConf {
    fn default() -> LocConf {
        LocConf::UNSET
    }
}

impl LocConf {
    /// Nothing is set.
    const UNSET: LocConf = LocConf {
        max_value_size: UNSET,
        multiplex: None,
        queue: None,
        mappings: Mappings::NONE,
        #[cfg(ngx_feature = "http_ssl")]
        ssl: Context::None,
    };

    /// The configuration of `request`'s location.
    #[inline(always)]
    pub fn of(request: Request) -> LocConf {
        let conf = MODULE.get().and_then(|module| request.conf(module));
        conf.map_or(LocConf::UNSET, |conf| conf.get())
    }

    /// The configuration of the current cycle's http block.
    pub fn of_http() -> LocConf {
        let http = HttpBlock::current();
        let conf = MODULE
            .get()
            .zip(http)
            .and_then(|(module, http)| http.conf(module));
        conf.map_or(LocConf::UNSET, |conf| conf.get())
    }

    /// `lua_memcached_max_value_size`: the longest value accepted from a server, in bytes.
    pub fn max_value_size(self) -> usize {
        match self.max_value_size {
            0 => usize::MAX,
            size => size,
        }
    }

    /// `lua_memcached_multiplex`
    pub fn multiplex(self) -> Multiplex {
        self.multiplex.unwrap_or(Multiplex::OFF)
    }

    /// `lua_memcached_queue`
    pub fn queue(self) -> Queueing {
        self.queue.unwrap_or(Queueing::DEFAULT)
    }

    /// Whether there is a `lua_memcached_upstream`.
    pub fn has_mappings(self) -> bool {
        self.mappings.any()
    }

    /// `lua_memcached_upstream`: the servers that `connect(host, port)` means.
    pub fn upstream_for(self, host: &[u8], port: u16) -> Option<Servers> {
        self.mappings.find(host, port)
    }

    /// The SSL context of ngx_lua's `lua_ssl_*` directives.
    #[cfg(ngx_feature = "http_ssl")]
    pub fn ssl(self) -> Context {
        self.ssl
    }

    /// Inherits from `parent` what is not set here.
    fn inherit(&mut self, parent: &LocConf) {
        if self.max_value_size == UNSET {
            self.max_value_size = match parent.max_value_size {
                UNSET => DEFAULT_MAX_VALUE_SIZE,
                size => size,
            };
        }
        self.multiplex = self.multiplex.or(parent.multiplex);
        self.queue = self.queue.or(parent.queue);
        self.mappings = self.mappings.or(parent.mappings);
    }
}

/// Sets the module that makes a [`LocConf`] for each location. To be called before anything else.
pub fn set_module(module: &'static Module<Cell<LocConf>>) {
    // a second configuration has the same one
    let _ = MODULE.set(module);
}

/// Drops what was recorded while a configuration was read. To be called before a configuration is
/// read, because reading the last one may have failed.
pub fn forget() {
    multiplex::forget();
    mapping::forget();
    #[cfg(ngx_feature = "http_ssl")]
    tls::forget();
}

/// Completes the configuration of the http block after all locations were merged. It applies to
/// timers of `init_worker_by_lua*`. To be called from `postconfiguration`.
pub fn complete(cf: Conf) {
    let Some(http) = MODULE.get().and_then(|module| cf.of_block(module)) else {
        return;
    };
    let mut conf = http.get();
    if conf.max_value_size == UNSET {
        conf.max_value_size = DEFAULT_MAX_VALUE_SIZE;
    }
    #[cfg(ngx_feature = "http_ssl")]
    {
        conf.ssl = tls::http_context(cf);
    }
    http.set(conf);
    #[cfg(ngx_feature = "http_ssl")]
    tls::forget();
}

/// `merge_loc_conf`
pub unsafe extern "C" fn merge_loc_conf(
    cf: *mut ngx_conf_t,
    parent: *mut c_void,
    child: *mut c_void,
) -> *mut c_char {
    let (Some(parent), Some(child)) = (NonNull::new(parent), NonNull::new(child)) else {
        return ERROR;
    };
    // SAFETY: this is a hook; both came from `create`.
    let (cf, parent, child) = unsafe {
        let of = |conf: NonNull<c_void>| Live::<Cell<LocConf>>::new(conf.cast());
        (Conf::from_raw(cf), of(parent), of(child))
    };
    match merged(cf, child.get(), parent.get()) {
        Some(conf) => child.set(conf),
        None => return ERROR,
    }
    ptr::null_mut() // NGX_CONF_OK
}

/// `None`: the reason was logged.
fn merged(cf: Conf, mut conf: LocConf, parent: LocConf) -> Option<LocConf> {
    let http = MODULE.get().and_then(|module| cf.of_finished_http(module));
    if let Some(http) = http {
        // a worker may not be able to read what the master could
        conf.inherit(&http.get());
        #[cfg(ngx_feature = "http_ssl")]
        {
            conf.ssl = http.get().ssl;
        }
        return Some(conf);
    }
    conf.inherit(&parent);
    #[cfg(ngx_feature = "http_ssl")]
    {
        conf.ssl = contain(|| tls::context(cf)).flatten()?;
    }
    Some(conf)
}
