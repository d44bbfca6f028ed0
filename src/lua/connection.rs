//! Connecting, keepalive, timeouts and closing: the methods of `sock` that cosockets have, with
//! their arguments, results and errors.

use std::ffi::c_int;

use mlua::ffi::{LUA_TNIL, LUA_TNUMBER, LUA_TSTRING};

use super::explain;
use super::fields;
use super::group_connect::{Meant, to_group};
use super::handle::{self, Found, NewHandle};
use super::results::Elsewhere;
use super::results::Returns;
use super::stack::{CannotWait, Stack};
use super::suspend::{give_up, go_on};
use crate::conf::{LocConf, MAX_CONNECTIONS, Multiplex, Servers};
use crate::nginx::Request;
use crate::ngx_lua::{Settings, Table, Value};
use crate::transport::{
    self, Begun, CallError, Caller, Connecting, Error, KeepaliveError, Opened, Peer, PoolName,
    SessionKey, Timeouts,
};

/// `check_phase()`: raises where cosockets are disabled.
pub fn check_phase(stack: Stack) -> c_int {
    let request = stack.request();
    if !stack.is_thread(request) {
        require_phase(stack, request);
    }
    0
}

#[cold]
fn require_phase(stack: Stack, request: Request) {
    if let Err(text) = transport::check_phase(request) {
        stack.raise(format_args!("{text}"));
    }
}

/// Options of `connect`.
#[derive(Default)]
struct Options {
    pool: Option<Vec<u8>>,
    pool_size: Option<usize>,
    backlog: Option<usize>,
}

/// How many arguments the glue inserts between `sock` and the user's arguments: the id, the three
/// timeouts, and the option `multiplex` (-1: share no connections).
const ADDED: c_int = 5;

/// `connect(sock, id, connect_timeout, send_timeout, read_timeout, multiplex, host, port?,
/// options?)`. If the arguments mean a group, returns what [`Elsewhere`] says. A `MEMBER` of a
/// group connects to a server in any case: if that is pending, it returns true, and `wait_connect`
/// is to be called.
pub fn connect<const MEMBER: bool>(stack: Stack) -> c_int {
    let top = stack.top() - ADDED;
    if !(2..=4).contains(&top) {
        stack.raise(format_args!(
            "ngx.socket connect: expecting 2, 3, or 4 arguments (including the object), but seen {top}"
        ));
    }
    let request = stack.request();
    let waiter = stack.waiter(request);
    if waiter.is_err() {
        require_phase(stack, request);
    }
    let sock = stack.check_table(1);
    let found = handle::to_connect(stack, sock, 2);
    let Some(host) = stack.text(ADDED + 2) else {
        stack.raise(format_args!(
            "bad argument #1 to 'connect' (string expected, got {})",
            stack.type_name(ADDED + 2)
        ))
    };
    // 0 for anything but a number, e.g. the options
    let number = stack.integer(ADDED + 3) as i32;
    let options = match top {
        3 if number != 0 => Options::default(),
        _ => match stack.table(ADDED + top) {
            Some(table) => options(stack, ADDED + top, table),
            None => Options::default(),
        },
    };
    let has_port = number != 0 || top >= 3 && stack.is_number(ADDED + 3);
    let port = if has_port {
        match u16::try_from(number) {
            Ok(port) => Some(port),
            Err(_) => return stack.failure(1, format_args!("bad port number: {number}")),
        }
    } else if host
        .get(..5)
        .is_some_and(|start| start.eq_ignore_ascii_case(b"unix:"))
    {
        None
    } else {
        if !MEMBER {
            match Meant::named(request, host) {
                Ok(None) => {}
                found => {
                    return to_group(stack, found, options.pool.is_some(), ADDED + top, top - 1);
                }
            }
        }
        return stack.failure(1, "missing the port number");
    };
    let conf = LocConf::of(request);
    if !MEMBER
        && conf.has_mappings()
        && let Some(servers) = port.and_then(|port| upstream_for(request, host, port))
    {
        let found = Meant::of(request, servers).map(Some);
        return to_group(stack, found, options.pool.is_some(), ADDED + top, top - 1);
    }
    let pool = match &options.pool {
        Some(pool) => PoolName::Given(pool),
        None => PoolName::Default {
            with_port: port.is_some(),
        },
    };
    let peer = Peer {
        host,
        port: port.unwrap_or(0),
        pool,
        pool_size: options.pool_size,
        backlog: options.backlog,
        multiplex: multiplex(stack, conf.multiplex(), ADDED + 1),
    };
    let (object, handle) = match found {
        Found::Session(key) if transport::is_session(key) => (Connecting::Again(key), None),
        Found::Group => {
            stack.push_integer(Elsewhere::LEAVE);
            return 1;
        }
        _ => {
            let timeouts = kept_timeouts(stack);
            let new = NewHandle::push(stack);
            let handle = new.address();
            (Connecting::New { timeouts, handle }, Some(new))
        }
    };
    let (waiter, why) = match waiter {
        Ok(waiter) => (Some(waiter), CannotWait::CCall),
        Err(why) => (None, why),
    };
    let caller = Caller { request, waiter };
    let (key, opened) = begin::<MEMBER>(object, caller, &peer);
    if let Some(handle) = handle {
        handle.give(stack, sock, key);
    }
    match opened {
        Ok(Opened::Connected) => {
            stack.push_integer(1);
            1
        }
        Ok(Opened::Pending) if MEMBER => {
            stack.push_boolean(true);
            1
        }
        Ok(Opened::Pending) => go_on(
            stack,
            Returns::CONNECT,
            Ok::<_, CallError<Error>>(Begun::Waiting),
        ),
        Err(CallError::CannotWait) => stack.cannot_wait(1, why),
        Err(error) => give_up(stack, Returns::CONNECT, error),
    }
}

/// The servers that `lua_memcached_upstream` maps this one to. A function of its own, so that
/// `connect` copies the configuration only where there are mappings.
#[cold]
#[inline(never)]
fn upstream_for(request: Request, host: &[u8], port: u16) -> Option<Servers> {
    LocConf::of(request).upstream_for(host, port)
}

#[inline(always)]
fn begin<const MEMBER: bool>(
    object: Connecting,
    caller: Caller,
    peer: &Peer<'_>,
) -> (SessionKey, Result<Opened, CallError<Error>>) {
    if MEMBER && caller.waiter.is_some() {
        return transport::begin_connect(object, caller.request, peer);
    }
    transport::connect(object, caller, peer)
}

/// The timeouts stored in the `sock` that connects.
#[inline(always)]
fn kept_timeouts(stack: Stack) -> Timeouts {
    let kept = |index| stack.number(index + 1) as u32 as usize;
    Timeouts {
        connect: kept(fields::CONNECT_TIMEOUT),
        send: kept(fields::SEND_TIMEOUT),
        read: kept(fields::READ_TIMEOUT),
    }
}

/// Whether and how the `sock` that connects shares connections. The option of `new`, which is at
/// the index `option`, takes precedence over the location's directive.
pub fn multiplex(stack: Stack, of_location: Multiplex, option: c_int) -> Multiplex {
    let mut multiplex = of_location;
    let said = stack.number(option);
    if said != 0.0 {
        multiplex.connections = (said as usize).min(MAX_CONNECTIONS);
    }
    multiplex
}

/// Reads the options in a table, which is the argument at `index`.
fn options(stack: Stack, index: c_int, table: Table) -> Options {
    let mut options = Options::default();
    let pool_size = table.push_field(c"pool_size");
    match stack.kind(pool_size) {
        LUA_TNUMBER | LUA_TSTRING if stack.is_number(pool_size) => {
            let size = stack.integer(pool_size);
            match usize::try_from(size) {
                Ok(size) if size > 0 => options.pool_size = Some(size),
                _ => bad_option(
                    stack,
                    index,
                    format_args!("bad \"pool_size\" option value: {size}"),
                ),
            }
        }
        LUA_TNIL => {}
        _ => bad_option(
            stack,
            index,
            format_args!(
                "bad \"pool_size\" option type: {}",
                stack.type_name(pool_size)
            ),
        ),
    }
    let backlog = table.push_field(c"backlog");
    if stack.is_number(backlog) {
        let backlog = stack.integer(backlog);
        match usize::try_from(backlog) {
            Ok(backlog) => options.backlog = Some(backlog),
            Err(_) => bad_option(
                stack,
                index,
                format_args!("bad \"backlog\" option value: {backlog}"),
            ),
        }
    }
    if options.backlog.is_some() && options.pool_size.is_none() {
        let settings = Settings::of(stack.request());
        let size = settings.map(|settings| settings.pool_size());
        options.pool_size = size.and_then(|size| usize::try_from(size).ok());
    }
    let pool = table.push_field(c"pool");
    match stack.kind(pool) {
        LUA_TNUMBER | LUA_TSTRING => {
            options.pool = stack.text(pool).map(|pool| stack.owned(pool));
        }
        LUA_TNIL => {}
        _ => bad_option(
            stack,
            index,
            format_args!("bad \"pool\" option type: {}", stack.type_name(pool)),
        ),
    }
    explain::connect_options(stack, index);
    options
}

fn bad_option(stack: Stack, index: c_int, text: std::fmt::Arguments<'_>) -> ! {
    stack.raise(format_args!(
        "bad argument #{} to 'connect' ({text})",
        index - ADDED - 1
    ))
}

/// A timeout in milliseconds; anything but a number counts as 0.
fn timeout(stack: Stack, index: c_int) -> usize {
    let ms = stack.number(index);
    if ms == 0.0 && !stack.is_none_or_nil(index) && !stack.is_number(index) {
        explain::timeout(stack, index);
    }
    if ms > -1.0 && ms < 2_147_483_648.0 {
        return ms as usize;
    }
    stack.raise(format_args!("bad timeout value"))
}

/// `settimeout(sock, ms)`
pub fn settimeout(stack: Stack) -> c_int {
    if stack.top() != 2 {
        stack.raise(format_args!(
            "ngx.socket settimeout: expecting 2 arguments (including the object) but seen {}",
            stack.top()
        ));
    }
    let ms = timeout(stack, 2);
    store_timeouts(
        stack,
        Timeouts {
            connect: ms,
            send: ms,
            read: ms,
        },
    )
}

/// `settimeouts(sock, connect, send, read)`
pub fn settimeouts(stack: Stack) -> c_int {
    if stack.top() != 4 {
        stack.raise(format_args!(
            "ngx.socket settimeout: expecting 4 arguments (including the object) but seen {}",
            stack.top()
        ));
    }
    store_timeouts(
        stack,
        Timeouts {
            connect: timeout(stack, 2),
            send: timeout(stack, 3),
            read: timeout(stack, 4),
        },
    )
}

/// Stores the timeouts in `sock` for later connections, and passes them to the session.
fn store_timeouts(stack: Stack, timeouts: Timeouts) -> c_int {
    let sock = stack.check_table(1);
    let session = handle::session_of(stack, sock);
    for (index, ms) in [
        (fields::CONNECT_TIMEOUT, timeouts.connect),
        (fields::SEND_TIMEOUT, timeouts.send),
        (fields::READ_TIMEOUT, timeouts.read),
    ] {
        sock.put(index, Value::Number(ms as f64));
    }
    if let Some(key) = session {
        transport::set_timeouts(key, timeouts);
    }
    0
}

/// `setkeepalive(sock, timeout?, pool_size?)`, or with the id after `sock`
pub fn setkeepalive<const WITH_ID: bool>(stack: Stack) -> c_int {
    let added = c_int::from(WITH_ID);
    let top = keepalive_top(stack, added);
    let sock = stack.check_table(1);
    let found = if WITH_ID {
        handle::session_with_id(stack, sock, 2)
    } else {
        handle::session_of(stack, sock)
    };
    let Some(key) = found else {
        return stack.failure(1, Error::Closed);
    };
    let (timeout, pool_size) = (
        keepalive_argument(stack, 2, added),
        keepalive_argument(stack, 3, added),
    );
    let request = stack.request();
    // a negative time expires at once
    let timeout = timeout.map(|ms| usize::try_from(ms).unwrap_or(1));
    match transport::set_keepalive(key, request, timeout, pool_size) {
        Ok(retired) => {
            handle::detach(stack, sock, retired);
            stack.push_integer(1);
            1
        }
        Err(KeepaliveError::BadPoolSize(size)) => bad_pool_size(stack, top, size),
        Err(KeepaliveError::Failed(error)) => {
            give_up(stack, Returns::CONNECT, CallError::Failed(error))
        }
    }
}

/// `check_keepalive(sock, timeout?, pool_size?)`: raises what `setkeepalive` would.
pub fn check_keepalive(stack: Stack) -> c_int {
    let top = keepalive_top(stack, 0);
    keepalive_argument(stack, 2, 0);
    match keepalive_argument(stack, 3, 0) {
        Some(size) if size < 1 => bad_pool_size(stack, top, size),
        _ => 0,
    }
}

fn bad_pool_size(stack: Stack, top: c_int, size: i64) -> ! {
    stack.raise(format_args!(
        "bad argument #{} to 'setkeepalive' ({})",
        top - 1,
        KeepaliveError::BadPoolSize(size)
    ))
}

/// The number of arguments, without those that the glue has added.
#[inline(always)]
fn keepalive_top(stack: Stack, added: c_int) -> c_int {
    let top = stack.top() - added;
    if !(1..=3).contains(&top) {
        stack.raise(format_args!(
            "expecting 1 to 3 arguments (including the object), but got {top}"
        ));
    }
    top
}

#[inline(always)]
fn keepalive_argument(stack: Stack, index: c_int, added: c_int) -> Option<i64> {
    let number = stack.integer(index + added);
    if number != 0 {
        return Some(number);
    }
    if stack.is_none_or_nil(index + added) {
        return None;
    }
    if !stack.is_number(index + added) {
        stack.raise(format_args!(
            "bad argument #{} to 'setkeepalive' (number expected, got {})",
            index - 1,
            stack.type_name(index + added)
        ));
    }
    Some(0)
}

fn require_only_self(stack: Stack, verb: &str) {
    if stack.top() != 1 {
        stack.raise(format_args!(
            "expecting 1 argument (including the object){verb} {}",
            stack.top()
        ));
    }
}

/// `getreusedtimes(sock)`
pub fn getreusedtimes(stack: Stack) -> c_int {
    require_only_self(stack, ", but got");
    let times = match handle::session(stack, 1) {
        Some(key) => transport::reused_times(key),
        None => Err(Error::Closed),
    };
    match times {
        Ok(times) => {
            stack.push_integer(times as i64);
            1
        }
        Err(error) => stack.failure(1, error),
    }
}

/// `close(sock)`
pub fn close(stack: Stack) -> c_int {
    require_only_self(stack, " but seen");
    let request = stack.request();
    let sock = stack.check_table(1);
    let Some(key) = handle::session_of(stack, sock) else {
        return stack.failure(1, Error::Closed);
    };
    match transport::close(key, request) {
        Ok(retired) => {
            handle::detach(stack, sock, retired);
            stack.push_integer(1);
            1
        }
        Err(error) => give_up(stack, Returns::CONNECT, CallError::Failed(error)),
    }
}
