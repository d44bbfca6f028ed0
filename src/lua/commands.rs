//! memcached commands. The first argument of each is where the command goes: a `sock`, the id of
//! its session, or an open pipeline.
//!
//! Keys come as `key, escape`: with `escape` the default transform is applied while the command is
//! encoded.

use std::ffi::c_int;

use mlua::ffi::{LUA_TNIL, LUA_TNUMBER};

use super::explain;
use super::handle;
use super::pipeline;
use super::results::Returns;
use super::stack::{Stack, type_name};
use super::suspend::{ask, cannot_wait, go_on, question};
use crate::protocol::{Arith, Command, Key, Verb};
use crate::transport::{self, CallError, Caller, Commands, Error, Rejected, not_connected};

/// Storage commands by the names that the glue knows. The glue gets their indices in this list as
/// `native.verbs`.
pub const VERBS: [(&str, Verb); 6] = [
    ("SET", Verb::Set),
    ("ADD", Verb::Add),
    ("REPLACE", Verb::Replace),
    ("APPEND", Verb::Append),
    ("PREPEND", Verb::Prepend),
    ("CAS", Verb::Cas),
];

/// Sends a command or adds it to an open pipeline.
pub fn run(stack: Stack, returns: u8, command: &Command<'_>) -> c_int {
    let session = match handle::id_argument(stack, 1) {
        None => match pipeline::id_at(stack, 1) {
            Some(id) => return pipeline::queue(stack, id, returns, command),
            None => handle::session_argument(stack, 1),
        },
        found => found,
    };
    let request = stack.request();
    let Some(key) = session else {
        if let Some(why) = handle::failure_argument(stack, 1) {
            return stack.failure(Returns::nils(returns), String::from_utf8_lossy(why));
        }
        return stack.failure(
            Returns::nils(returns),
            not_connected(request, "send", Error::Closed),
        );
    };
    let caller = match stack.waiter(request) {
        Ok(waiter) => Caller {
            request,
            waiter: Some(waiter),
        },
        Err(why) => return cannot_wait(stack, returns, key, request, why),
    };
    let next = transport::submit(key, Returns::slot(returns), caller, Commands::One(command));
    if let Err(CallError::Failed(Rejected::Refused(refused))) = &next {
        if let Some(question) = question(refused) {
            return ask(stack, returns, key, &question);
        }
        explain::refused(stack, refused);
        // nothing was sent
        transport::give_trial_back(key);
    }
    go_on(stack, returns, next)
}

/// The key at `index`; whether to escape it is at the next index. Raises an error if a transform
/// returned neither a string nor a number.
#[inline(always)]
pub fn key<'a>(stack: Stack, index: c_int) -> Key<'a> {
    Key {
        bytes: stack.required_text(index, "key"),
        escape: flag(stack, index + 1),
    }
}

fn flag(stack: Stack, index: c_int) -> bool {
    stack.boolean(index)
}

/// `get(target, key, escape)`
pub fn get<const CAS: bool>(stack: Stack) -> c_int {
    let returns = if CAS { Returns::GETS } else { Returns::GET };
    run(
        stack,
        returns,
        &Command::Get {
            key: key(stack, 2),
            cas: CAS,
        },
    )
}

/// `get_many(sock, keys, escape, cas, unescape)`; the keys are strings in an array. With `unescape`
/// the keys of the result are unescaped natively.
pub fn get_many(stack: Stack) -> c_int {
    let keys = keys(stack, 2);
    let cas = flag(stack, 4);
    run(
        stack,
        many(stack, 5),
        &Command::GetMany { keys: &keys, cas },
    )
}

/// `gat(target, key, escape, exptime)`
pub fn gat<const CAS: bool>(stack: Stack) -> c_int {
    let returns = if CAS { Returns::GETS } else { Returns::GET };
    run(
        stack,
        returns,
        &Command::Gat {
            key: key(stack, 2),
            exptime: stack.optional_text(4, "exptime"),
            cas: CAS,
        },
    )
}

/// `gat_many(target, keys, escape, cas, unescape, exptime)`, as [`get_many`]
pub fn gat_many(stack: Stack) -> c_int {
    let keys = keys(stack, 2);
    run(
        stack,
        many(stack, 5),
        &Command::GatMany {
            keys: &keys,
            exptime: stack.optional_text(6, "exptime"),
            cas: flag(stack, 4),
        },
    )
}

/// What a list of keys returns. The keys are unescaped natively if `index` says so.
pub fn many(stack: Stack, index: c_int) -> u8 {
    match flag(stack, index) {
        true => Returns::MANY,
        false => Returns::MANY_RAW,
    }
}

/// The keys in the array at `index`; whether to escape them is at the next index.
pub fn keys<'a>(stack: Stack, index: c_int) -> Vec<Key<'a>> {
    let table = stack.check_table(index);
    let escape = flag(stack, index + 1);
    let len = table.len();
    let mut keys = Vec::new();
    stack.reserve(&mut keys, len);
    for at in 1..=len {
        let Ok(at) = c_int::try_from(at) else { break };
        // SAFETY: the glue passes strings, and nobody changes the table while this runs.
        let bytes = match unsafe { table.string(at) } {
            Ok(bytes) => bytes,
            Err(LUA_TNIL) => b"",
            // the table does not hold the text of a number
            Err(LUA_TNUMBER) => stack.raise(format_args!("bad key argument (string expected)")),
            Err(kind) => stack.raise(format_args!(
                "bad key argument (string or number expected, got {})",
                type_name(kind)
            )),
        };
        keys.push(Key { bytes, escape });
    }
    keys
}

/// `store(target, key, escape, exptime, verb, value, flags, cas_unique?)`
pub fn store(stack: Stack) -> c_int {
    let number = stack.number(5) as usize;
    let Some((_, verb)) = VERBS.get(number) else {
        stack.raise(format_args!("bad storage command"))
    };
    run(
        stack,
        Returns::LINE,
        &Command::Store {
            verb: *verb,
            key: key(stack, 2),
            value: stack.required_text(6, "value"),
            exptime: stack.required_text(4, "exptime"),
            flags: stack.required_text(7, "flags"),
            cas_unique: stack.optional_text(8, "cas unique"),
        },
    )
}

/// `delete(target, key, escape)`
pub fn delete(stack: Stack) -> c_int {
    run(
        stack,
        Returns::LINE,
        &Command::Delete { key: key(stack, 2) },
    )
}

/// `incr(target, key, escape, delta)`, and `decr`
pub fn arith<const INCR: bool>(stack: Stack) -> c_int {
    run(
        stack,
        Returns::LINE,
        &Command::Arith {
            op: if INCR { Arith::Incr } else { Arith::Decr },
            key: key(stack, 2),
            delta: stack.optional_text(4, "delta"),
        },
    )
}

/// `touch(target, key, escape, exptime)`
pub fn touch(stack: Stack) -> c_int {
    run(
        stack,
        Returns::LINE,
        &Command::Touch {
            key: key(stack, 2),
            exptime: stack.optional_text(4, "exptime"),
        },
    )
}

/// `flush_all(target, time?)`
pub fn flush_all(stack: Stack) -> c_int {
    let delay = stack.optional_text(2, "time");
    run(stack, Returns::LINE, &Command::FlushAll { delay })
}

/// `stats(target, args?)`
pub fn stats(stack: Stack) -> c_int {
    let args = stack.optional_text(2, "args");
    run(stack, Returns::LINE, &Command::Stats { args })
}

/// `server_version(target)`
pub fn version(stack: Stack) -> c_int {
    run(stack, Returns::LINE, &Command::Version)
}

/// `verbosity(target, level)`
pub fn verbosity(stack: Stack) -> c_int {
    let level = stack.optional_text(2, "level");
    run(stack, Returns::LINE, &Command::Verbosity { level })
}

/// `quit(target)`
pub fn quit(stack: Stack) -> c_int {
    run(stack, Returns::QUIT, &Command::Quit)
}
