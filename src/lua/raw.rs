//! `sock:send` and `sock:receive`, for users who speak the protocol themselves. Arguments, results
//! and errors are those of cosockets.

use std::ffi::c_int;

use mlua::ffi::{LUA_TBOOLEAN, LUA_TNIL, LUA_TNUMBER, LUA_TSTRING, LUA_TTABLE};

use super::handle;
use super::results::Returns;
use super::stack::Stack;
use super::suspend::{caller, give_up, go_on};
use crate::ngx_lua::Table;
use crate::protocol::RawRead;
use crate::transport::{self, CallError, Error, not_connected};

/// How deeply tables may be nested in what is sent.
const MAX_DEPTH: usize = 100;

/// `sock:send(data)`
pub fn send(stack: Stack) -> c_int {
    if stack.top() != 2 {
        stack.raise(format_args!(
            "expecting 2 arguments (including the object), but got {}",
            stack.top()
        ));
    }
    let request = stack.request();
    let Some(key) = handle::session(stack, 1) else {
        return stack.failure(1, not_connected(request, "send", Error::Closed));
    };
    let mut buffer = Vec::new();
    let data: &[u8] = match stack.kind(2) {
        LUA_TSTRING | LUA_TNUMBER => stack.text(2).unwrap_or_default(),
        LUA_TNIL => b"nil",
        LUA_TBOOLEAN if stack.boolean(2) => b"true",
        LUA_TBOOLEAN => b"false",
        LUA_TTABLE => {
            flatten(stack, stack.check_table(2), &mut buffer, 0);
            &buffer
        }
        _ => stack.raise(format_args!(
            "bad argument #1 to 'send' (string, number, boolean, nil, or array table expected, got {})",
            stack.type_name(2)
        )),
    };
    match caller(stack, request) {
        Ok(caller) => go_on(stack, Returns::SEND, transport::send(key, caller, data)),
        Err(why) => stack.cannot_wait(Returns::nils(Returns::SEND), why),
    }
}

/// Appends the strings and numbers of an array, nested ones included.
fn flatten(stack: Stack, table: Table, out: &mut Vec<u8>, depth: usize) {
    if depth > MAX_DEPTH || !stack.has_room(4) {
        stack.raise(format_args!(
            "bad argument #1 to 'send' (table nested too deeply)"
        ));
    }
    let mut max = 0;
    table.for_each_key(|kind, number| {
        if kind != LUA_TNUMBER || number < 1.0 || number.fract() != 0.0 {
            stack.raise(format_args!(
                "bad argument #1 to 'send' (non-array table found)"
            ));
        }
        max = max.max(number as c_int);
    });
    for n in 1..=max {
        stack.scope(|| flatten_element(stack, table.push_element(n), out, depth));
    }
}

fn flatten_element(stack: Stack, at: c_int, out: &mut Vec<u8>, depth: usize) {
    match stack.kind(at) {
        LUA_TSTRING | LUA_TNUMBER => {
            let text = stack.text(at).unwrap_or_default();
            stack.reserve(out, text.len());
            out.extend_from_slice(text);
        }
        LUA_TTABLE => flatten(stack, stack.check_table(at), out, depth + 1),
        _ => stack.raise(format_args!(
            "bad argument #1 to 'send' (bad data type {} found)",
            stack.type_name(at)
        )),
    }
}

/// `sock:receive(pattern?)`
pub fn receive(stack: Stack) -> c_int {
    let top = stack.top();
    if top != 1 && top != 2 {
        stack.raise(format_args!(
            "expecting 1 or 2 arguments (including the object), but got {top}"
        ));
    }
    let request = stack.request();
    let Some(key) = handle::session(stack, 1) else {
        return stack.failure(1, not_connected(request, "receive", Error::Closed));
    };
    let want = if top == 2 {
        pattern(stack)
    } else {
        RawRead::Line
    };
    if want == RawRead::Exact(0) {
        if let Err(error) = transport::check_ready(key, request) {
            return give_up(stack, Returns::RECEIVE, CallError::Failed(error));
        }
        stack.push_bytes(b"");
        return 1;
    }
    match caller(stack, request) {
        Ok(caller) => go_on(
            stack,
            Returns::RECEIVE,
            transport::receive(key, caller, want),
        ),
        Err(why) => stack.cannot_wait(Returns::nils(Returns::RECEIVE), why),
    }
}

/// What the second argument of `receive` asks for.
fn pattern(stack: Stack) -> RawRead {
    let bad = |text: std::fmt::Arguments<'_>| -> ! {
        stack.raise(format_args!("bad argument #1 to 'receive' ({text})"))
    };
    if stack.is_number(2) {
        let bytes = stack.integer(2);
        return match usize::try_from(bytes) {
            Ok(bytes) => RawRead::Exact(bytes),
            Err(_) => bad(format_args!("bad pattern argument")),
        };
    }
    if stack.kind(2) != LUA_TSTRING {
        bad(format_args!("bad pattern argument"));
    }
    match stack.text(2) {
        Some(b"*l") => RawRead::Line,
        Some(b"*a") => RawRead::All,
        Some(text) => bad(format_args!(
            "bad pattern argument: {}",
            String::from_utf8_lossy(text)
        )),
        None => bad(format_args!("bad pattern argument")),
    }
}
