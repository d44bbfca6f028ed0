//! The Lua module `resty.memcached.status`: what of this module is to be seen. The table of
//! `resty.memcached` has nothing that the pure-Lua library does not have.

use mlua::{Lua, Table};

use crate::version::{NGINX, VERSION};

/// `require "resty.memcached.status"`.
pub fn build(lua: &Lua) -> mlua::Result<Table> {
    let status = lua.create_table()?;
    status.set("version", VERSION)?;
    status.set("built_for_nginx", NGINX)?;
    Ok(status)
}
