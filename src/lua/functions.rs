//! The native functions, by the names that the glue calls them.

use mlua::ffi::lua_CFunction;

use super::native_table::set_functions;
use super::results::{self, Returns};
use super::stack::native;
use super::{
    client, commands, connection, explain, group, group_all, group_many, group_pipeline, handle,
    meta, php, pipeline, raw, tls,
};
use crate::ngx_lua::{State, Table, Value};

/// Those that have upvalues, and those for servers used as one.
pub fn add_other_functions(state: State, native: Table) {
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

/// All others.
pub fn native_functions() -> impl IntoIterator<Item = (&'static str, lua_CFunction)> {
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
