//! What Lua sees: the module `resty.memcached`.
//!
//! | file | subject |
//! |---|---|
//! | `glue/` | methods, in Lua: object fields, key transforms, open pipelines |
//! | `glue` | the chunks of Lua, loaded once in each VM |
//! | `functions`, `native_table` | the native functions that they call |
//! | `stack` | arguments and results on the Lua stack, raising errors |
//! | `fields` | the fields of a `sock` |
//! | `handle` | what Lua objects hold of ours: generational ids |
//! | `connection` | connecting, keepalive, timeouts, closing |
//! | `commands` | memcached commands |
//! | `meta` | meta commands and their options |
//! | `php`, `zlib` | the codec "php" |
//! | `pipeline` | open pipelines |
//! | `queue` | the Lua module `resty.memcached.queue` |
//! | `queue_group` | its writes to servers used as one |
//! | `group` | servers used as one |
//! | `group_connect` | connecting to them |
//! | `group_all` | commands for all of them |
//! | `group_many` | lists of keys that several of them have |
//! | `group_pipeline` | pipelines for several of them |
//! | `raw` | `sock:send` and `sock:receive` |
//! | `tls` | `sock:sslhandshake` |
//! | `suspend` | operations that may have to wait |
//! | `results` | outcomes to Lua values |
//! | `client` | the Lua module `resty.memcached.client` |
//! | `status` | the Lua module `resty.memcached.status` |
//! | `explain` | lines in error.log that explain what the caller did |
//!
//! A method that may wait consists of two C functions: `start` sends and yields, `finish` fetches
//! the result. The reason is that a resumed `start` returns what ngx_lua's semaphore returns. The
//! glue calls `finish(sock, id, start(id, …))`. If `start` has its results at once, it returns
//! them, and `finish` passes them on.

mod client;
mod commands;
mod connection;
mod explain;
mod fields;
mod functions;
mod glue;
mod group;
mod group_all;
mod group_connect;
mod group_many;
mod group_pipeline;
mod handle;
mod meta;
mod native_table;
mod php;
mod pipeline;
mod queue;
mod queue_group;
mod raw;
mod results;
mod stack;
mod status;
mod suspend;
#[cfg(ngx_feature = "http_ssl")]
mod tls;
#[cfg(not(ngx_feature = "http_ssl"))]
#[path = "tls_absent.rs"]
mod tls;
mod zlib;

use std::ffi::{CStr, c_int};

use mlua::ffi::{
    LUA_GLOBALSINDEX, lua_CFunction, lua_State, lua_call, lua_getfield_, lua_pushstring_,
};
use mlua::{Lua, Table};

/// The module's name for `require`.
const NAME: &CStr = c"resty.memcached";

/// What `require` calls: a function of Lua's that returns what `$build` makes.
macro_rules! open {
    ($build:path) => {{
        unsafe extern "C-unwind" fn open(state: *mut lua_State) -> c_int {
            // SAFETY: ngx_lua calls this with the state of the VM that requires it.
            unsafe { Lua::entrypoint1(state, $build) }
        }
        open
    }};
}

/// The names of the Lua modules, and what `require` calls for each.
pub const MODULES: [(&CStr, lua_CFunction); 4] = [
    (NAME, open!(build)),
    (c"resty.memcached.status", open!(status::build)),
    (c"resty.memcached.queue", open!(queue::build)),
    (c"resty.memcached.client", open!(build_client)),
];

/// `require` of an alias: it returns the same table, so a change to one shows in the other.
pub unsafe extern "C-unwind" fn open_alias(state: *mut lua_State) -> c_int {
    // SAFETY: as above; `require` is a global of every VM, and calling it needs two slots of the
    // stack.
    unsafe {
        lua_getfield_(state, LUA_GLOBALSINDEX, c"require".as_ptr());
        lua_pushstring_(state, NAME.as_ptr());
        lua_call(state, 1, 1);
    }
    1
}

/// `require "resty.memcached"`.
fn build(lua: &Lua) -> mlua::Result<Table> {
    glue::shared(lua)?.get("module")
}

/// `require "resty.memcached.client"`.
fn build_client(lua: &Lua) -> mlua::Result<Table> {
    glue::shared(lua)?.get("client")
}
