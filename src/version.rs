//! Which version of the module this is, and for which nginx.

/// The module's version.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// The version of nginx that it was built for.
pub const NGINX: &str = env!("BUILT_FOR_NGINX");

/// Between NULs, so that `strings` shows it as a line of its own.
const TAG: &[u8] = concat!(
    "\0ngx_http_lua_memcached_module ",
    env!("CARGO_PKG_VERSION"),
    " for nginx ",
    env!("BUILT_FOR_NGINX"),
    "\0"
)
.as_bytes();

/// For `strings`, and for `scripts/install`, which looks before it installs the file.
#[unsafe(no_mangle)]
#[used]
pub static ngx_http_lua_memcached_module_version: [u8; TAG.len()] = {
    let mut tag = [0; TAG.len()];
    tag.copy_from_slice(TAG);
    tag
};
