//! Meta commands: `meta_get`, `meta_set`, `meta_delete`, `meta_arith`. Their options are a table.

use std::ffi::c_int;
use std::sync::atomic::{AtomicU32, Ordering};

use mlua::ffi::{LUA_TBOOLEAN, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE};

use super::commands::{key, run};
use super::results::Returns;
use super::stack::Stack;
use crate::protocol::{
    BadOption, Command, Meta, MetaArith, MetaDelete, MetaGet, MetaOp, MetaSet, OptionValue,
};

/// What the next meta command has its reply repeat.
static OPAQUE: AtomicU32 = AtomicU32::new(0);

/// `meta_get(target, key, escape, options, time)`
pub fn get(stack: Stack) -> c_int {
    let op = MetaOp::Get(MetaGet::default());
    command(stack, Returns::META_GET, op, 4)
}

/// `meta_set(target, key, escape, value, options, time)`
pub fn set(stack: Stack) -> c_int {
    let op = MetaOp::Set(MetaSet {
        value: stack.required_text(4, "value"),
        ..MetaSet::default()
    });
    command(stack, Returns::META_SET, op, 5)
}

/// `meta_delete(target, key, escape, options, time)`
pub fn delete(stack: Stack) -> c_int {
    let op = MetaOp::Delete(MetaDelete::default());
    command(stack, Returns::META_DELETE, op, 4)
}

/// `meta_arith(target, key, escape, options, time)`
pub fn arith(stack: Stack) -> c_int {
    let op = MetaOp::Arith(MetaArith::default());
    command(stack, Returns::META_ARITH, op, 4)
}

/// Sends a meta command with the options at `index`, or adds it to a pipeline.
fn command(stack: Stack, returns: u8, op: MetaOp<'_>, index: c_int) -> c_int {
    let mut meta = Meta {
        key: key(stack, 2),
        opaque: OPAQUE.fetch_add(1, Ordering::Relaxed),
        op,
        bad: None,
    };
    read_options(stack, index, &mut meta);
    run(stack, returns, &Command::Meta(&meta))
}

fn read_options(stack: Stack, index: c_int, meta: &mut Meta<'_>) {
    if stack.is_none_or_nil(index) {
        return;
    }
    if stack.kind(index) != LUA_TTABLE {
        meta.bad = Some(BadOption::no_table(option(stack, index)));
        return;
    }
    let now = stack.integer(index + 1);
    let Some(table) = stack.table(index) else {
        return;
    };
    table.for_each_pair(|name, value| {
        let value = option(stack, value);
        match option(stack, name) {
            OptionValue::Text(name) => meta.set_option(name, value, now),
            other => {
                meta.bad.get_or_insert_with(|| BadOption::unknown(other));
            }
        }
    });
}

/// The value at `index`, which stays there.
fn option<'a>(stack: Stack, index: c_int) -> OptionValue<'a> {
    match stack.kind(index) {
        LUA_TBOOLEAN => OptionValue::Boolean(stack.boolean(index)),
        LUA_TNUMBER => OptionValue::Number(stack.number(index)),
        LUA_TSTRING => OptionValue::Text(stack.text(index).unwrap_or_default()),
        _ => OptionValue::Other(stack.type_name(index)),
    }
}
