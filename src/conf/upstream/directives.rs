//! The directives of an `upstream` block.

use std::cell::Cell;
use std::ffi::{CStr, c_char};
use std::ptr;

use nginx_sys::{NGX_LOG_EMERG, ngx_str_t};

use super::{Check, Discover, UpstreamConf};
use crate::conf::time::seconds;
use crate::conf::{Directive, ERROR};
use crate::contain::contain;
use crate::distribution::{Method, MethodError};
use crate::group::{Failover, FailoverError};
use crate::nginx::Conf;

/// Parameters of a directive that were not looked at yet. A name is taken once.
pub struct Parameters<'a>(Vec<&'a [u8]>);

impl<'a> Parameters<'a> {
    /// What follows a parameter's name.
    pub fn take(&mut self, name: &[u8]) -> Result<Option<&'a [u8]>, &'static CStr> {
        let mut found = None;
        for at in (0..self.0.len()).rev() {
            if let Some(value) = self.0.get(at).and_then(|text| text.strip_prefix(name)) {
                self.0.remove(at);
                if found.replace(value).is_some() {
                    return Err(c"has a parameter twice");
                }
            }
        }
        Ok(found)
    }

    /// Nothing may be left.
    pub fn end(self, error: &'static CStr) -> Result<(), &'static CStr> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(error),
        }
    }
}

/// Sets a value of the block's configuration once.
fn set_once<T, E: Into<Fault>>(
    cf: Conf,
    conf: &Cell<UpstreamConf>,
    slot: impl FnOnce(&mut UpstreamConf) -> &mut Option<T>,
    parse: impl FnOnce(&[&[u8]]) -> Result<T, E>,
) -> *mut c_char {
    let mut changed = conf.get();
    let slot = slot(&mut changed);
    if slot.is_some() {
        return c"is duplicate".as_ptr().cast_mut();
    }
    let args = cf.arguments();
    let words = || {
        args.iter()
            .skip(1)
            .map(ngx_str_t::as_bytes)
            .collect::<Vec<_>>()
    };
    match contain(|| parse(&words()).map_err(Into::into)) {
        Some(Ok(parsed)) => *slot = Some(parsed),
        Some(Err(Fault::Static(text))) => return text.as_ptr().cast_mut(),
        Some(Err(Fault::Text(text))) => {
            let name = args.first().map_or(&b""[..], ngx_str_t::as_bytes);
            let (name, place) = (String::from_utf8_lossy(name), cf.place());
            // as nginx says what is wrong
            let line = format_args!("\"{name}\" directive {text} in {place}");
            cf.log().write(NGX_LOG_EMERG, 0, line);
            return ERROR;
        }
        None => return ERROR,
    }
    conf.set(changed);
    ptr::null_mut() // NGX_CONF_OK
}

/// What is wrong with a directive.
enum Fault {
    Static(&'static CStr),
    Text(String),
}

impl From<&'static CStr> for Fault {
    fn from(text: &'static CStr) -> Fault {
        Fault::Static(text)
    }
}

impl From<MethodError> for Fault {
    fn from(error: MethodError) -> Fault {
        Fault::Text(error.to_string())
    }
}

impl From<FailoverError> for Fault {
    fn from(error: FailoverError) -> Fault {
        Fault::Text(error.to_string())
    }
}

/// Defines directives: each reads the words behind its name.
macro_rules! directives {
    ($($(#[$doc:meta])* $name:ident sets $slot:ident by $parse:expr;)*) => {
        $($(#[$doc])*
        pub enum $name {}

        impl Directive for $name {
            type Of = UpstreamConf;

            fn set(cf: Conf, conf: &Cell<UpstreamConf>) -> *mut c_char {
                set_once(cf, conf, |conf| &mut conf.$slot, $parse)
            }
        })*
    };
}

fn first<'a>(words: &[&'a [u8]]) -> &'a [u8] {
    words.first().copied().unwrap_or_default()
}

fn others<'a>(words: &[&'a [u8]]) -> impl Iterator<Item = &'a [u8]> {
    words.iter().skip(1).copied()
}

directives! {
    /// `lua_memcached_hash`
    SetHash sets hash by |words| Method::parse(first(words), others(words));

    /// `lua_memcached_failover`
    SetFailover sets failover by |words| Failover::parse(first(words), others(words), seconds);

    /// `lua_memcached_check`
    SetCheck sets check by |words| Check::parse(Parameters(words.to_vec()));

    /// `lua_memcached_discover`
    SetDiscover sets discover by |words| Discover::parse(Parameters(words.to_vec()));
}
