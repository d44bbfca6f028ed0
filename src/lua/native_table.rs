//! Tables of native functions.

use mlua::ffi::lua_CFunction;
use mlua::{Lua, Table};

use crate::ngx_lua::{State, Table as NativeTable, Value};

/// A table of native functions, and of what `more` adds.
pub fn native_table(
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

/// Sets these functions in a table.
pub fn set_functions(
    table: NativeTable,
    functions: impl IntoIterator<Item = (&'static str, lua_CFunction)>,
) {
    for (name, function) in functions {
        let function = Value::Function(function, &[]);
        table.set(Value::Bytes(name.as_bytes()), function);
    }
}
