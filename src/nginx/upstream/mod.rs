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

use std::ffi::{CStr, c_void};
use std::ptr::NonNull;

use nginx_sys::{
    ngx_http_upstream_main_conf_t, ngx_http_upstream_module, ngx_http_upstream_srv_conf_t,
};

pub use balancing::{Balancing, Method as BalancingMethod, Methods};
pub use locked::Generation;
pub use peers::{Peers, Stale};

/// An `upstream` block, or a server that a directive such as `proxy_pass`
/// names. It is there as long as its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Upstream(NonNull<ngx_http_upstream_srv_conf_t>);

impl Upstream {
    /// All explicit blocks of a configuration.
    ///
    /// # Safety
    ///
    /// `main_conf` is the array of a configuration's http block, with all
    /// modules' configurations. What is returned must not outlive it.
    pub unsafe fn blocks(main_conf: *mut *mut c_void) -> impl Iterator<Item = Upstream> {
        // SAFETY: nginx's module keeps an array of pointers to its upstreams.
        let all = unsafe {
            let conf = *main_conf.add(ngx_http_upstream_module.ctx_index);
            match conf.cast::<ngx_http_upstream_main_conf_t>().as_ref() {
                Some(conf) if conf.upstreams.nelts > 0 => std::slice::from_raw_parts(
                    conf.upstreams
                        .elts
                        .cast::<*mut ngx_http_upstream_srv_conf_t>(),
                    conf.upstreams.nelts,
                ),
                _ => &[],
            }
        };
        all.iter()
            .filter_map(|conf| NonNull::new(*conf).map(Upstream))
            // SAFETY: as above. Only a block has configurations of modules.
            .filter(|upstream| unsafe { !upstream.0.as_ref().srv_conf.is_null() })
    }

    /// The block with this name. nginx does not tell upper case from lower
    /// case.
    ///
    /// # Safety
    ///
    /// As for [`Self::blocks`].
    pub unsafe fn named(main_conf: *mut *mut c_void, name: &[u8]) -> Option<Upstream> {
        // SAFETY: by this function's contract.
        let mut blocks = unsafe { Upstream::blocks(main_conf) };
        blocks.find(|upstream| upstream.name().eq_ignore_ascii_case(name))
    }

    /// The block's name.
    pub fn name(&self) -> &[u8] {
        // SAFETY: the configuration is there, as whoever made this promised.
        unsafe { self.0.as_ref().host.as_bytes() }
    }

    /// The file and the line where the block begins.
    pub fn place(&self) -> (String, usize) {
        // SAFETY: as above; file names of the configuration end with NUL.
        unsafe {
            let conf = self.0.as_ref();
            let file = match conf.file_name.is_null() {
                true => String::new(),
                false => CStr::from_ptr(conf.file_name.cast())
                    .to_string_lossy()
                    .into_owned(),
            };
            (file, conf.line)
        }
    }

    /// A module's configuration in the block.
    pub fn module_conf(&self, ctx_index: usize) -> *mut c_void {
        // SAFETY: as above; a block has one for each module.
        unsafe { *self.0.as_ref().srv_conf.add(ctx_index) }
    }

    /// The block's servers.
    ///
    /// # Safety
    ///
    /// [`Balancing::has_nginxs_peers`] is true for it.
    pub unsafe fn peers(&self) -> Peers {
        // SAFETY: by this function's contract.
        unsafe { Peers::of(self.0) }
    }
}
