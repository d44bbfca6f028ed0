//! The codec "php": values of Lua to text and flags as PHP has them, and back. JSON is left to the
//! glue.

use std::borrow::Cow;
use std::ffi::c_int;

use mlua::ffi::{LUA_TBOOLEAN, LUA_TNUMBER, LUA_TSTRING};

use super::stack::Stack;
use super::zlib::inflate;
use crate::codec::php::{Value, decode as read, encode as write, exact};
use crate::conf::LocConf;

/// `php_decode(text, flags)`: the value and the user's flags, or nil and an error; for JSON its
/// text, the user's flags, and true.
pub fn decode(stack: Stack) -> c_int {
    let text = stack.required_text(1, "value");
    let flags = stack.required_text(2, "flags");
    let limit = LocConf::of(stack.request()).max_value_size();
    let (value, user) = match read(text, flags, limit, inflate) {
        Ok(read) => read,
        Err(error) => return stack.failure(1, error),
    };
    let is_json = matches!(value, Value::Json(_));
    match value {
        Value::Text(bytes) | Value::Json(bytes) => stack.push_bytes(&bytes),
        Value::Double(number) => stack.push_number(number),
        Value::Boolean(value) => stack.push_boolean(value),
        Value::Integer(integer) => match exact(integer) {
            Some(number) => stack.push_number(number),
            // a text, as for all integers that Lua's numbers cannot hold
            None => stack.push_bytes(integer.to_string().as_bytes()),
        },
    }
    stack.push_bytes(user.to_string().as_bytes());
    stack.push_boolean(is_json);
    3
}

/// `php_encode(value, flags?, is_json)`: text and flags, or nil and an error.
pub fn encode(stack: Stack) -> c_int {
    let value = match stack.kind(1) {
        LUA_TBOOLEAN => Value::Boolean(stack.boolean(1)),
        LUA_TNUMBER => Value::Double(stack.number(1)),
        LUA_TSTRING => {
            let text = Cow::Borrowed(stack.text(1).unwrap_or_default());
            match stack.boolean(3) {
                true => Value::Json(text),
                false => Value::Text(text),
            }
        }
        _ => {
            let why = format!("a {} cannot be a PHP value", stack.type_name(1));
            return stack.failure(1, why);
        }
    };
    // what is no number of 16 bits is refused
    let user = match stack.is_none_or_nil(2) {
        true => 0.0,
        false if stack.is_number(2) => stack.number(2),
        false => f64::NAN,
    };
    let user = if user.fract() == 0.0 && user >= 0.0 {
        user as u32
    } else {
        u32::MAX
    };
    match write(value, user) {
        Ok((text, flags)) => {
            stack.push_bytes(&text);
            stack.push_bytes(flags.to_string().as_bytes());
            2
        }
        Err(error) => stack.failure(1, error),
    }
}
