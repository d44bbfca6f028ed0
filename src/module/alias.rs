//! `lua_memcached_alias name;`: the Lua module under a further name, e.g. `nginx.memcached`, the
//! one that Debian's package of the library has.

use std::cell::{Cell, RefCell};
use std::ffi::c_char;
use std::ptr;

use crate::conf::{Directive, ERROR, LocConf};
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

/// `lua_memcached_alias`. It is handled before ngx_lua's postconfiguration makes its VM, so
/// `init_by_lua*` sees the alias as well.
pub enum Alias {}

impl Directive for Alias {
    /// The http block's; nothing is set in it.
    type Of = LocConf;

    fn set(cf: Conf, _: &Cell<LocConf>) -> *mut c_char {
        contain(|| add(cf)).unwrap_or(ERROR)
    }
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
    match ngx_lua::preload(cf, text, lua::open_alias) {
        true => ptr::null_mut(), // NGX_CONF_OK
        false => ERROR,
    }
}
