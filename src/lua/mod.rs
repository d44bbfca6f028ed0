//! What Lua sees: the module `resty.memcached`.
//!
//! | file | subject |
//! |---|---|
//! | `glue/` | methods, in Lua: object fields, key transforms, open pipelines |
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
//! | `group_pipeline` | pipelines of them |
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
mod group;
mod group_all;
mod group_connect;
mod group_many;
mod group_pipeline;
mod handle;
mod meta;
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

use crate::conf::MAX_CONNECTIONS;
use crate::ngx_lua::{State, Table as NativeTable, Value};
use crate::protocol::MAX_GAT_KEYS;
use results::Returns;
use stack::native;

/// The version of lua-resty-memcached whose API this is.
const API_VERSION: &str = "0.17";

/// The module's name for `require`.
const NAME: &CStr = c"resty.memcached";

/// The methods: chunks that run one after the other. Each is called with the native functions and
/// with a table in which the chunks share functions.
const GLUE: &[&str] = &[
    include_str!("glue/sock.lua"),
    include_str!("glue/init.lua"),
    include_str!("glue/connection.lua"),
    include_str!("glue/keys.lua"),
    include_str!("glue/commands.lua"),
    include_str!("glue/pipeline.lua"),
    include_str!("glue/meta.lua"),
    include_str!("glue/group.lua"),
    include_str!("glue/group_keys.lua"),
    include_str!("glue/group_many.lua"),
    include_str!("glue/group_pipeline.lua"),
    include_str!("glue/group_all.lua"),
    include_str!("glue/codec.lua"),
    include_str!("glue/client_options.lua"),
    include_str!("glue/client.lua"),
];

/// The name of each chunk in error positions and tracebacks.
const CHUNK_NAME: &str = "=resty.memcached";

/// Where each VM keeps what the chunks share.
const GLUE_NAME: &str = "resty.memcached.glue";

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
    (c"resty.memcached.client", open!(client::build)),
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
    shared(lua)?.get("module")
}

/// What the Lua modules share, made once in each VM.
fn shared(lua: &Lua) -> mlua::Result<Table> {
    if let Ok(glue) = lua.named_registry_value(GLUE_NAME) {
        return Ok(glue);
    }
    let glue = make_glue(lua)?;
    lua.set_named_registry_value(GLUE_NAME, &glue)?;
    Ok(glue)
}

fn make_glue(lua: &Lua) -> mlua::Result<Table> {
    let native = native_table(lua, native_functions(), add_other_functions)?;
    native.set("version", API_VERSION)?;
    native.set("same_session", tls::SAME_SESSION)?;
    native.set("max_connections", MAX_CONNECTIONS)?;
    native.set("max_gat_keys", MAX_GAT_KEYS)?;
    native.set("again", results::AGAIN)?;
    native.set("to_group", results::Elsewhere::GROUP)?;
    native.set("leave_group", results::Elsewhere::LEAVE)?;
    let verbs = commands::VERBS.iter().enumerate();
    let verbs = verbs.map(|(number, (name, _))| (*name, number));
    native.set("verbs", lua.create_table_from(verbs)?)?;

    let glue = lua.create_table()?;
    for chunk in GLUE {
        let chunk = lua.load(fields::with_indices(chunk)).set_name(CHUNK_NAME);
        chunk.call::<()>((&native, &glue))?;
    }
    Ok(glue)
}

/// A table of native functions, and of what `more` adds.
fn native_table(
    lua: &Lua,
    functions: impl IntoIterator<Item = (&'static str, lua_CFunction)>,
    more: impl FnOnce(State, NativeTable),
) -> mlua::Result<Table> {
    let push = |state: State| {
        let table = state.push_table(0, 64);
        set_functions(table, functions);
        more(state, table);
    };
    // SAFETY: mlua passes the state of a C function that runs, and takes what was pushed.
    unsafe { lua.exec_raw((), |state| push(State::new(state))) }
}

fn set_functions(
    table: NativeTable,
    functions: impl IntoIterator<Item = (&'static str, lua_CFunction)>,
) {
    for (name, function) in functions {
        let function = Value::Function(function, &[]);
        table.set(Value::Bytes(name.as_bytes()), function);
    }
}

fn add_other_functions(state: State, native: NativeTable) {
    set_functions(native, group_functions());
    native.set(Value::Bytes(b"finish_get"), results::finish_get());
    handle::set_with_spares(
        state,
        native,
        &[
            ("connect", native!(connection::connect::<false>)),
            ("begin_connect", native!(connection::connect::<true>)),
            ("setkeepalive", native!(connection::setkeepalive::<false>)),
            ("set_keepalive", native!(connection::setkeepalive::<true>)),
            ("close", native!(connection::close)),
        ],
    );
}

fn group_functions() -> impl IntoIterator<Item = (&'static str, lua_CFunction)> {
    [
        ("group_name", native!(group::name)),
        ("group_endpoint", native!(group::endpoint)),
        ("group_pick", native!(group::pick)),
        ("check_keepalive", native!(connection::check_keepalive)),
        ("group_choose", native!(group::choose)),
        ("group_split", native!(group_many::split::<false>)),
        ("group_split_sent", native!(group_many::split::<true>)),
        ("attach_server", native!(client::attach::<false>)),
        ("begin_many", native!(group_many::begin_many)),
        ("wait_many", native!(group_many::wait_many)),
        ("gather_many", native!(group_many::gather_many)),
        ("new_results", native!(group_many::new_results)),
        ("group_server_of", native!(group::server_of)),
        ("group_failed", native!(group::failed)),
        ("group_trial", native!(group::trial)),
        ("group_untried", native!(group::untried)),
        ("group_succeeded", native!(group::succeeded)),
        ("group_exptime", native!(group::exptime)),
        ("drop_session", native!(group::drop_session)),
        ("is_lost", native!(group::is_lost)),
        ("wait_connect", native!(group::wait_connect)),
        ("begin_handshake", native!(tls::sslhandshake::<true>)),
        ("wait_handshake", native!(tls::wait_handshake)),
        ("group_servers", native!(group_all::servers)),
        ("begin_command", native!(group_all::begin)),
        ("wait_command", native!(group_all::wait)),
        ("group_results", native!(group_pipeline::results)),
        ("group_split_pipeline", native!(group_pipeline::split)),
        ("group_fail_part", native!(group_pipeline::fail)),
        ("end_pipeline", native!(group_pipeline::end)),
        ("begin_part", native!(group_pipeline::begin)),
        ("wait_part", native!(group_pipeline::wait)),
        ("finish_part", native!(group_pipeline::finish)),
    ]
}

fn native_functions() -> impl IntoIterator<Item = (&'static str, lua_CFunction)> {
    [
        ("check_phase", native!(connection::check_phase)),
        ("check_options", native!(explain::check_options)),
        ("not_initialized", native!(explain::not_initialized)),
        ("bad_timeout", native!(explain::bad_timeout)),
        (
            "finish_connect",
            native!(results::finish::<{ Returns::CONNECT }>),
        ),
        ("attach", native!(client::attach::<true>)),
        ("release", native!(client::release)),
        ("settimeout", native!(connection::settimeout)),
        ("settimeouts", native!(connection::settimeouts)),
        ("getreusedtimes", native!(connection::getreusedtimes)),
        ("sslhandshake", native!(tls::sslhandshake::<false>)),
        ("finish_handshake", native!(tls::finish_handshake)),
        ("free_session", native!(tls::free_session)),
        ("send", native!(raw::send)),
        ("finish_send", native!(results::finish::<{ Returns::SEND }>)),
        ("receive", native!(raw::receive)),
        (
            "finish_receive",
            native!(results::finish::<{ Returns::RECEIVE }>),
        ),
        ("get", native!(commands::get::<false>)),
        ("gets", native!(commands::get::<true>)),
        ("finish_gets", native!(results::finish::<{ Returns::GETS }>)),
        ("get_many", native!(commands::get_many)),
        ("finish_many", native!(results::finish::<{ Returns::MANY }>)),
        (
            "finish_many_raw",
            native!(results::finish::<{ Returns::MANY_RAW }>),
        ),
        ("gat", native!(commands::gat::<false>)),
        ("gats", native!(commands::gat::<true>)),
        ("gat_many", native!(commands::gat_many)),
        ("php_decode", native!(php::decode)),
        ("php_encode", native!(php::encode)),
        ("meta_get", native!(meta::get)),
        (
            "finish_meta_get",
            native!(results::finish::<{ Returns::META_GET }>),
        ),
        ("meta_set", native!(meta::set)),
        (
            "finish_meta_set",
            native!(results::finish::<{ Returns::META_SET }>),
        ),
        ("meta_delete", native!(meta::delete)),
        (
            "finish_meta_delete",
            native!(results::finish::<{ Returns::META_DELETE }>),
        ),
        ("meta_arith", native!(meta::arith)),
        (
            "finish_meta_arith",
            native!(results::finish::<{ Returns::META_ARITH }>),
        ),
        ("store", native!(commands::store)),
        ("delete", native!(commands::delete)),
        ("incr", native!(commands::arith::<true>)),
        ("decr", native!(commands::arith::<false>)),
        ("touch", native!(commands::touch)),
        ("flush_all", native!(commands::flush_all)),
        ("stats", native!(commands::stats)),
        ("server_version", native!(commands::version)),
        ("verbosity", native!(commands::verbosity)),
        ("finish_line", native!(results::finish::<{ Returns::LINE }>)),
        ("quit", native!(commands::quit)),
        ("finish_quit", native!(results::finish::<{ Returns::QUIT }>)),
        ("new_pipeline", native!(pipeline::new)),
        ("pipeline_length", native!(pipeline::length)),
        ("commit", native!(pipeline::commit)),
        ("finish_commit", native!(pipeline::finish_commit)),
    ]
}
