//! Lines in error.log that explain what the caller did, where Lua is told no more than the pure-Lua
//! library would tell: mostly at level `warn`, and not again and again.

use std::ffi::{CStr, c_char, c_int};
use std::fmt;

use mlua::ffi::{LUA_TSTRING, LUA_TTABLE, lua_Debug, lua_getinfo, lua_getstack};
use nginx_sys::{NGX_LOG_NOTICE, NGX_LOG_WARN};

use super::stack::{Stack, type_name};
use crate::nginx::{self, Log, Request};
use crate::protocol::{Malformed, Refused};
use crate::transport::Error;
use crate::upstream::LineKind;

/// Options of `new`.
const NEW_OPTIONS: &[&str] = &["key_transform", "multiplex", "codec"];

/// Options of `connect`.
const CONNECT_OPTIONS: &[&str] = &["pool", "pool_size", "backlog"];

/// Name of the chunks of the glue, as Lua shows it.
const GLUE: &[u8] = b"resty.memcached";

/// How far the user's code is looked for on Lua's stack.
const MAX_LEVEL: c_int = 12;

/// Maximum number of bytes of a user's text that are shown.
const SHOWN: usize = 64;

/// Logs which command was not sent, and why.
pub fn refused(stack: Stack, refused: &Refused) {
    // the command and the argument
    let mut words = refused.why.splitn(3, ' ');
    let (command, argument) = (words.next(), words.next());
    let words = format!(
        "lua memcached command refused: {} {}",
        command.unwrap_or_default(),
        argument.unwrap_or_default()
    );
    let why = &refused.why;
    counted(
        stack,
        NGX_LOG_WARN,
        &words,
        format_args!("lua memcached command refused: {why}"),
    );
}

/// Logs a reply that is none of memcached's protocol, or too large.
#[cold]
pub fn malformed(stack: Stack, malformed: &Malformed) {
    let directive = match malformed {
        Malformed::ValueTooLarge { .. } | Malformed::StatsTooLong => {
            ": see lua_memcached_max_value_size"
        }
        _ => "",
    };
    counted(
        stack,
        NGX_LOG_NOTICE,
        "lua memcached: bad reply",
        format_args!("lua memcached: {malformed}{directive}"),
    );
}

/// Logs that too much waits.
#[cold]
pub fn overload(stack: Stack, error: &Error) {
    let (words, limits) = match error {
        Error::TooManyWaiting => (
            "lua memcached: too many waiting connect operations",
            "the pool and its backlog are full, see the options pool_size and backlog of connect",
        ),
        Error::TooManyOperations => (
            "lua memcached: too many waiting operations",
            "see max_operations and max_size of lua_memcached_multiplex",
        ),
        _ => return,
    };
    counted(
        stack,
        NGX_LOG_WARN,
        words,
        format_args!("{words}: {limits}"),
    );
}

/// Explains the error `bad request`.
#[cold]
pub fn bad_request(stack: Stack) {
    let call = Call::running(stack);
    once(
        stack,
        format!("bad request {}", call.place),
        format_args!(
            "lua memcached: \"bad request\": {} was called on an object that was connected in \
             another request, which is still active: connect an object in the request that uses \
             it, and keep it neither in a module nor in an upvalue, at {}",
            call.method, call.place
        ),
    );
}

/// `not_initialized(self, is_module)`: explains the error of that name, and returns it.
pub fn not_initialized(stack: Stack) -> c_int {
    let call = Call::running(stack);
    let method = &call.method;
    let what = match stack.kind(1) {
        LUA_TTABLE if stack.boolean(2) => format!(
            "{method} was called on the module itself: make an object first, with \
             local memc = memcached:new()"
        ),
        LUA_TTABLE => format!(
            "{method} was called on a table that new() did not make, or that has lost its field \
             \"sock\""
        ),
        _ => format!(
            "{method} was called with a {} as its object: call methods with a colon, as in \
             memc:get(key)",
            stack.type_name(1)
        ),
    };
    let text = "not initialized";
    once(
        stack,
        format!("{text} {}", call.place),
        format_args!("lua memcached: \"{text}\": {what}, at {}", call.place),
    );
    stack.push_bytes(text.as_bytes());
    1
}

/// `check_options(options)`: those of `new`.
pub fn check_options(stack: Stack) -> c_int {
    match stack.kind(1) {
        LUA_TTABLE => options(stack, 1, "new", NEW_OPTIONS),
        LUA_TSTRING => ignored(stack, "new", format_args!("its argument, a string,")),
        // the value may have fields as a table has; if not, new() raises an error
        _ => {}
    }
    0
}

/// Looks for options that `connect` does not know in the table at `index`.
pub fn connect_options(stack: Stack, index: c_int) {
    options(stack, index, "connect", CONNECT_OPTIONS);
}

/// `bad_timeout(value)`: it counts as 0.
pub fn bad_timeout(stack: Stack) -> c_int {
    timeout(stack, 1);
    0
}

/// Says that the timeout at `index` counts as 0 because it is not a number.
#[cold]
pub fn timeout(stack: Stack, index: c_int) {
    match stack.text(index) {
        Some(text) => ignored(stack, "set_timeouts", format_args!("{},", Shown(text))),
        None => ignored(
            stack,
            "set_timeouts",
            format_args!("a {},", stack.type_name(index)),
        ),
    }
}

fn options(stack: Stack, index: c_int, method: &str, known: &[&str]) {
    let Some(table) = stack.table(index) else {
        return;
    };
    table.for_each_name(|name| match name {
        Ok(name) if known.iter().any(|known| known.as_bytes() == name) => {}
        Ok(name) => unknown(stack, method, known, format_args!("{}", Shown(name))),
        Err(kind) => {
            let kind = type_name(kind);
            unknown(stack, method, known, format_args!("whose name is a {kind}"));
        }
    });
}

#[cold]
fn unknown(stack: Stack, method: &str, known: &[&str], name: fmt::Arguments<'_>) {
    once(
        stack,
        format!("option {method} {name}"),
        format_args!(
            "lua memcached: unknown option {name} of {method} is ignored: it takes {}, at {}",
            known.join(", "),
            Call::running(stack).place
        ),
    );
}

#[cold]
fn ignored(stack: Stack, method: &str, what: fmt::Arguments<'_>) {
    let expected = match method {
        "new" => "a table was expected",
        _ => "a number of milliseconds was expected, and 0 is taken",
    };
    let place = Call::running(stack).place;
    once(
        stack,
        format!("ignored {method} {place}"),
        format_args!("lua memcached: {method} ignores {what} at {place}: {expected}"),
    );
}

/// Logs `line` unless there were many of its kind, which are counted.
pub fn counted(stack: Stack, level: u32, words: &str, line: fmt::Arguments<'_>) {
    let kind = LineKind {
        words,
        about: "",
        level,
    };
    if nginx::admit(kind) {
        log(stack, level, line);
    }
}

/// Logs `line` unless `text` was given before.
fn once(stack: Stack, text: String, line: fmt::Arguments<'_>) {
    if nginx::first(text.as_bytes()) {
        log(stack, NGX_LOG_WARN, line);
    }
}

fn log(stack: Stack, level: u32, line: fmt::Arguments<'_>) {
    // there may be no request yet
    let log = stack
        .running_request()
        .map_or_else(Log::of_cycle, Request::log);
    log.write(level, 0, line);
}

/// The call of a method by the user's code.
struct Call {
    /// Its name as it was called, or `a method`.
    method: String,
    /// File and line of the caller.
    place: String,
}

impl Call {
    /// The one that runs.
    fn running(stack: Stack) -> Call {
        let mut call = Call {
            method: "a method".into(),
            place: "?".into(),
        };
        let state = stack.as_ptr();
        // SAFETY: a C struct for which all zeros is a valid value.
        let mut debug: lua_Debug = unsafe { std::mem::zeroed() };
        for level in 0..MAX_LEVEL {
            // SAFETY: the state of a running C function; a level that is there fills the struct,
            // whose texts end with NUL and live while the level is there.
            let (source, name, line) = unsafe {
                if lua_getstack(state, level, &mut debug) == 0
                    || lua_getinfo(state, c"Sln".as_ptr(), &mut debug) == 0
                {
                    break;
                }
                (
                    CStr::from_ptr(debug.short_src.as_ptr()),
                    text_of(debug.name),
                    debug.currentline,
                )
            };
            let glue = source.to_bytes() == GLUE;
            if glue || level == 0 {
                call.method = name.unwrap_or_else(|| "a method".into());
            } else if source != c"[C]" {
                call.place = format!("{}:{line}", source.to_string_lossy());
                break;
            }
        }
        call
    }
}

/// # Safety
///
/// `text` is null, or ends with NUL and lives as long as this runs.
unsafe fn text_of(text: *const c_char) -> Option<String> {
    if text.is_null() {
        return None;
    }
    // SAFETY: by this function's contract.
    let text = unsafe { CStr::from_ptr(text) }.to_bytes();
    let text = text.get(..SHOWN).unwrap_or(text);
    Some(String::from_utf8_lossy(text).into_owned())
}

/// A user's text, shortened and with everything escaped but printable ASCII.
pub struct Shown<'a>(pub &'a [u8]);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.0.get(..SHOWN).unwrap_or(self.0);
        let more = if shown.len() < self.0.len() {
            "..."
        } else {
            ""
        };
        write!(f, "\"{}\"{more}", shown.escape_ascii())
    }
}
