//! The methods, in Lua: the chunks of `glue/`, loaded once in each VM.

use mlua::{Lua, Table};

use super::functions::{add_other_functions, native_functions};
use super::native_table::native_table;
use super::{commands, fields, results, tls};
use crate::conf::MAX_CONNECTIONS;
use crate::protocol::MAX_GAT_KEYS;

/// The version of lua-resty-memcached whose API this is.
const API_VERSION: &str = "0.17";

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

/// What the Lua modules share, made once in each VM.
pub fn shared(lua: &Lua) -> mlua::Result<Table> {
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
