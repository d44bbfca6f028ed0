//! `lua_memcached_upstream HOST:PORT NAME;`: what `connect(HOST, PORT)` means.

use std::cell::RefCell;
use std::ffi::{c_char, c_void};
use std::ptr;

use nginx_sys::{
    ngx_array_create, ngx_array_push, ngx_array_t, ngx_command_t, ngx_conf_t, ngx_str_t,
};

use super::upstream::Servers;
use super::{ERROR, LocConf};
use crate::contain::contain;

/// An entry of a list.
#[derive(Debug)]
struct Mapping {
    host: ngx_str_t,
    port: u16,
    name: ngx_str_t,
    /// Where the directive is.
    file: ngx_str_t,
    line: usize,
    /// Set when the configuration is read.
    servers: Option<Servers>,
}

/// The directives of one level, in the configuration's memory; inherited as a
/// whole where a level has none.
#[derive(Clone, Copy, Debug)]
pub struct Mappings(*mut ngx_array_t);

impl Mappings {
    /// Nothing is said.
    pub const NONE: Mappings = Mappings(ptr::null_mut());

    /// What is said here, or else by `parent`.
    pub fn or(self, parent: Mappings) -> Mappings {
        if self.0.is_null() { parent } else { self }
    }

    /// The upstream that stands for a server.
    pub fn find(&self, host: &[u8], port: u16) -> Option<Servers> {
        // SAFETY: as long as a configuration is there, so is its list, and
        // nobody changes it any more.
        let list = unsafe { self.entries() };
        list.iter()
            .find(|entry| entry.port == port && entry.host.as_bytes().eq_ignore_ascii_case(host))
            .and_then(|entry| entry.servers)
    }

    /// # Safety
    ///
    /// The configuration is there, and nobody else refers to the list for
    /// writing.
    unsafe fn entries<'a>(self) -> &'a [Mapping] {
        // SAFETY: by this function's contract.
        match unsafe { self.0.as_ref() } {
            None => &[],
            // SAFETY: the same; `set` has filled it.
            Some(list) => unsafe { std::slice::from_raw_parts(list.elts.cast(), list.nelts) },
        }
    }
}

/// The lists of the configuration that is being read.
struct Lists(RefCell<Vec<Mappings>>);

// SAFETY: nginx reads its configuration in one thread.
unsafe impl Sync for Lists {}

static LISTS: Lists = Lists(RefCell::new(Vec::new()));

/// Forgets the lists of a configuration, which owns them.
pub fn forget() {
    LISTS.0.take();
}

/// Looks up the upstreams of all lists. An error is for the operator to read.
///
/// # Safety
///
/// To be called once for a configuration, when all of it is read.
pub unsafe fn complete(
    mut servers: impl FnMut(&[u8]) -> Result<Servers, String>,
) -> Result<(), String> {
    for list in LISTS.0.borrow().iter() {
        // SAFETY: `set` has filled the lists, and nobody else refers to them.
        let list = unsafe {
            let list = list.0;
            std::slice::from_raw_parts_mut((*list).elts.cast::<Mapping>(), (*list).nelts)
        };
        for entry in list {
            let found = servers(entry.name.as_bytes()).map_err(|error| {
                let file = String::from_utf8_lossy(entry.file.as_bytes());
                format!(
                    "\"lua_memcached_upstream\" directive: {error} in {file}:{}",
                    entry.line
                )
            })?;
            entry.servers = Some(found);
        }
    }
    Ok(())
}

/// `HOST:PORT`. An IPv6 address has brackets.
fn split(text: &[u8]) -> Option<(&[u8], u16)> {
    let colon = text.iter().rposition(|byte| *byte == b':')?;
    let (host, port) = (text.get(..colon)?, text.get(colon.checked_add(1)?..)?);
    let digits = port.iter().all(u8::is_ascii_digit);
    let port: u16 = str::from_utf8(port).ok().filter(|_| digits)?.parse().ok()?;
    let colons = host.contains(&b':') && !(host.starts_with(b"[") && host.ends_with(b"]"));
    (!host.is_empty() && !colons && port > 0).then_some((host, port))
}

/// The directive's handler.
pub unsafe extern "C" fn set(
    cf: *mut ngx_conf_t,
    _: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: nginx passes the configuration being read, with the directive
    // and its two arguments, and what `create_loc_conf` made.
    contain(|| unsafe { add(cf, &mut *conf.cast::<LocConf>()) }).unwrap_or(ERROR)
}

/// # Safety
///
/// As for [`set`].
unsafe fn add(cf: *mut ngx_conf_t, conf: &mut LocConf) -> *mut c_char {
    // SAFETY: by this function's contract; arguments live as long as the
    // configuration.
    unsafe {
        let args = (*(*cf).args).elts.cast::<ngx_str_t>();
        let (server, name) = (*args.add(1), *args.add(2));
        let Some((host, port)) = split(server.as_bytes()) else {
            return c"needs HOST:PORT and the name of an upstream"
                .as_ptr()
                .cast_mut();
        };
        let (file, line) = match (*cf).conf_file.as_ref() {
            Some(file) => (file.file.name, file.line),
            None => (ngx_str_t::empty(), 0),
        };
        let known = conf.mappings.entries().iter();
        if known
            .clone()
            .any(|entry| entry.port == port && entry.host.as_bytes().eq_ignore_ascii_case(host))
        {
            return c"is duplicate".as_ptr().cast_mut();
        }
        if conf.mappings.0.is_null() {
            let list = ngx_array_create((*cf).pool, 4, size_of::<Mapping>());
            if list.is_null() {
                return ERROR;
            }
            conf.mappings = Mappings(list);
            LISTS.0.borrow_mut().push(conf.mappings);
        }
        let entry = ngx_array_push(conf.mappings.0).cast::<Mapping>();
        if entry.is_null() {
            return ERROR;
        }
        entry.write(Mapping {
            host: ngx_str_t {
                len: host.len(),
                data: server.data,
            },
            port,
            name,
            file,
            line,
            servers: None,
        });
    }
    ptr::null_mut() // NGX_CONF_OK
}
