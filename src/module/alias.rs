//! `lua_memcached_alias name;`: the Lua module under a further name, e.g.
//! `nginx.memcached`, the one that Debian's package of the library has.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use nginx_sys::{ngx_command_t, ngx_conf_t};

use crate::conf::ERROR;
use crate::contain::contain;
use crate::nginx::Conf;
use crate::{lua, ngx_lua};

/// The aliases of the configuration that is being read.
struct Aliases(RefCell<Vec<Vec<u8>>>);

// SAFETY: nginx reads its configuration in one thread.
unsafe impl Sync for Aliases {}

static ALIASES: Aliases = Aliases(RefCell::new(Vec::new()));

/// Forgets the aliases of a configuration.
pub fn forget() {
    ALIASES.0.take();
}

/// The directive's handler. It runs before ngx_lua's postconfiguration makes
/// its VM, so `init_by_lua*` sees the alias as well.
pub unsafe extern "C" fn set(
    cf: *mut ngx_conf_t,
    _: *mut ngx_command_t,
    _: *mut c_void,
) -> *mut c_char {
    // SAFETY: this is a handler.
    let cf = unsafe { Conf::from_raw(cf) };
    contain(|| add(cf)).unwrap_or(ERROR)
}

fn add(cf: Conf) -> *mut c_char {
    let Some(name) = cf.arguments().get(1) else {
        return ERROR;
    };
    let text = name.as_bytes();
    let mut aliases = ALIASES.0.borrow_mut();
    if text.is_empty() {
        return c"needs the name of a Lua module".as_ptr().cast_mut();
    }
    if text
        .iter()
        .any(|byte| byte.is_ascii_control() || *byte == b' ')
    {
        return c"needs the name of a Lua module, without spaces and control characters"
            .as_ptr()
            .cast_mut();
    }
    if lua::MODULES.iter().any(|(name, _)| name.to_bytes() == text) {
        return c"is duplicate: this name is there without an alias"
            .as_ptr()
            .cast_mut();
    }
    if aliases.iter().any(|alias| alias == text) {
        return c"is duplicate".as_ptr().cast_mut();
    }
    aliases.push(text.to_vec());
    // SAFETY: arguments end with NUL and live as long as the configuration.
    let done = unsafe { ngx_lua::preload(cf, CStr::from_ptr(name.data.cast()), lua::open_alias) };
    match done {
        true => ptr::null_mut(), // NGX_CONF_OK
        false => ERROR,
    }
}
