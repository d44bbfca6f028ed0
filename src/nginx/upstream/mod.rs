//! `upstream` blocks of nginx's configuration.
//!
//! | file | subject |
//! |---|---|
//! | `balancing` | which method a block has, and whether its servers can be read |
//! | `locked` | nginx's lists of a block's servers, locked |
//! | `peers` | the servers and what is counted for them, while nginx runs |

mod balancing;
mod locked;
mod peers;

use std::ffi::CStr;
use std::ptr::NonNull;

use nginx_sys::{ngx_http_upstream_main_conf_t, ngx_http_upstream_srv_conf_t};

use super::conf::{Array, Conf};
use super::http_block::HttpBlock;
use super::live::Live;
use super::module::{Confs, Module, ngx_http_upstream_module};
use super::request::Request;

pub use balancing::{Method as BalancingMethod, Methods};
pub use locked::Generation;
pub use peers::Peers;

/// An `upstream` block, or a server that a directive such as `proxy_pass` names. It is there as
/// long as its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream(Live<ngx_http_upstream_srv_conf_t>);

impl Upstream {
    /// All explicit blocks of the configuration that is being read.
    pub fn blocks(cf: Conf) -> impl Iterator<Item = Upstream> {
        Upstream::all(cf.mains())
    }

    /// The block of a request's configuration with this name. nginx does not tell upper case from
    /// lower case.
    pub fn named(request: Request, name: &[u8]) -> Option<Upstream> {
        Upstream::find(Some(request.mains()), name)
    }

    /// That of the current cycle's http block.
    pub fn of_cycle(name: &[u8]) -> Option<Upstream> {
        Upstream::find(HttpBlock::current().map(HttpBlock::mains), name)
    }

    fn find(mains: Option<Confs>, name: &[u8]) -> Option<Upstream> {
        Upstream::all(mains).find(|upstream| upstream.is_named(name))
    }

    /// All explicit blocks of the current configuration.
    pub fn current() -> impl Iterator<Item = Upstream> {
        Upstream::all(HttpBlock::current().map(HttpBlock::mains))
    }

    fn all(mains: Option<Confs>) -> impl Iterator<Item = Upstream> {
        let conf = mains.and_then(|mains| mains.get(&ngx_http_upstream_module));
        let all = conf.map_or(&[][..], |conf: Live<ngx_http_upstream_main_conf_t>| {
            let upstreams = (&raw const conf.upstreams).cast_mut();
            // SAFETY: nginx's module keeps an array of pointers to its upstreams.
            unsafe { Array::<Live<ngx_http_upstream_srv_conf_t>>::new(upstreams) }.as_slice()
        });
        let all = all.iter().copied().map(Upstream);
        // only a block has configurations of modules
        all.filter(|upstream| !upstream.0.srv_conf.is_null())
    }

    /// Whether it has this name.
    pub fn is_named(&self, name: &[u8]) -> bool {
        self.name().eq_ignore_ascii_case(name)
    }

    /// The block's name.
    pub fn name(&self) -> &[u8] {
        self.0.host.as_bytes()
    }

    /// The file and the line where the block begins.
    pub fn place(&self) -> String {
        let file = match self.0.file_name.is_null() {
            true => "?".into(),
            // SAFETY: file names of the configuration end with NUL.
            false => unsafe { CStr::from_ptr(self.0.file_name.cast()) }.to_string_lossy(),
        };
        format!("{file}:{}", self.0.line)
    }

    /// A module's configuration in the block.
    pub fn conf<C, X>(&self, module: &Module<C, X>) -> Option<Live<C>> {
        Confs::of_upstream(&self.0).get(module)
    }
}

/// What a field of nginx's refers to. Only for fields of the structs of this file's modules, which
/// refer to what is there as long as they are.
fn live<T>(field: *mut T) -> Option<Live<T>> {
    // SAFETY: see above.
    NonNull::new(field).map(|at| unsafe { Live::new(at) })
}
