//! `lua_memcached_upstream HOST:PORT NAME;`: what `connect(HOST, PORT)` means.

use std::cell::{Cell, RefCell};
use std::ffi::c_char;
use std::iter::successors;

use nginx_sys::ngx_str_t;

use super::directive::ERROR;
use super::upstream::Servers;
use crate::nginx::{Conf, Live};

/// An entry of a list, in the configuration's memory.
struct Mapping {
    host: ngx_str_t,
    port: u16,
    name: ngx_str_t,
    /// Set when the configuration is read.
    servers: Cell<Option<Servers>>,
    before: Mappings,
}

/// The directives of one level, the last one first; inherited as a whole where a level has none.
#[derive(Clone, Copy, Debug)]
pub struct Mappings(Option<Live<Mapping>>);

impl Mappings {
    /// Nothing is said.
    pub const NONE: Mappings = Mappings(None);

    /// What is said here, or else by `parent`.
    pub fn or(self, parent: Mappings) -> Mappings {
        Mappings(self.0.or(parent.0))
    }

    /// Whether something is said.
    pub fn any(self) -> bool {
        self.0.is_some()
    }

    /// The upstream that stands for a server.
    pub fn find(self, host: &[u8], port: u16) -> Option<Servers> {
        self.entry(host, port)?.servers.get()
    }

    /// With the directive that is being read. The error is that of nginx's handlers.
    pub fn with(self, cf: Conf) -> Result<Mappings, *mut c_char> {
        let [_, server, name] = cf.arguments() else {
            return Err(ERROR);
        };
        let (host, port) = split(server.as_bytes()).ok_or_else(|| {
            let text = c"needs HOST:PORT and the name of an upstream";
            text.as_ptr().cast_mut()
        })?;
        if self.entry(host, port).is_some() {
            return Err(c"is duplicate".as_ptr().cast_mut());
        }
        let entry = cf.keep(Mapping {
            host: ngx_str_t {
                len: host.len(),
                data: server.data,
            },
            port,
            name: *name,
            servers: Cell::new(None),
            before: self,
        });
        let entry = entry.ok_or(ERROR)?;
        ENTRIES.0.borrow_mut().push((entry, cf.place()));
        Ok(Mappings(Some(entry)))
    }

    fn entry(self, host: &[u8], port: u16) -> Option<Live<Mapping>> {
        let mut entries = successors(self.0, |entry| entry.before.0);
        entries.find(|entry| entry.port == port && entry.host.as_bytes().eq_ignore_ascii_case(host))
    }
}

/// Each entry of the configuration that is being read, with the place of its directive.
struct Entries(RefCell<Vec<(Live<Mapping>, String)>>);

// SAFETY: nginx reads its configuration in one thread.
unsafe impl Sync for Entries {}

static ENTRIES: Entries = Entries(RefCell::new(Vec::new()));

/// Forgets the entries of a configuration, which owns them.
pub fn forget() {
    ENTRIES.0.take();
}

/// Looks up the upstreams of all entries, when the whole configuration is read. An error is for the
/// operator to read.
pub fn complete(servers: impl Fn(&[u8]) -> Result<Servers, String>) -> Result<(), String> {
    for (entry, place) in ENTRIES.0.take() {
        let found = servers(entry.name.as_bytes());
        let found = found
            .map_err(|error| format!("\"lua_memcached_upstream\" directive: {error} in {place}"))?;
        entry.servers.set(Some(found));
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
