//! `lua_memcached_alias name;`: the Lua module under a further name, e.g.
//! `nginx.memcached`, the one that Debian's package of the library has.

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use nginx_sys::{ngx_command_t, ngx_conf_t, ngx_str_t};

use crate::conf::ERROR;
use crate::contain::contain;
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
    // SAFETY: this is `set`.
    contain(|| unsafe { add(cf) }).unwrap_or(ERROR)
}

/// # Safety
///
/// As for [`set`].
unsafe fn add(cf: *mut ngx_conf_t) -> *mut c_char {
    // SAFETY: nginx passes the configuration being read, with the directive
    // and its one argument; arguments end with NUL and live as long as the
    // configuration.
    unsafe {
        let name: ngx_str_t = *(*(*cf).args).elts.cast::<ngx_str_t>().add(1);
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
        let own = [lua::NAME, lua::status::NAME, lua::client::NAME];
        if own.iter().any(|name| text == name.to_bytes()) {
            return c"is duplicate: this name is there without an alias"
                .as_ptr()
                .cast_mut();
        }
        if aliases.iter().any(|alias| alias == text) {
            return c"is duplicate".as_ptr().cast_mut();
        }
        aliases.push(text.to_vec());
        let name = CStr::from_ptr(name.data.cast());
        if !ngx_lua::preload(cf, name, lua::open_alias) {
            return ERROR;
        }
    }
    ptr::null_mut() // NGX_CONF_OK
}
