//! The directives of an `upstream` block.

use std::cell::Cell;
use std::ffi::c_char;

use super::check::Check;
use super::conf::UpstreamConf;
use super::discover::Discover;
use super::parameters::Parameters;
use crate::conf::directive::{Directive, Fault, set_once};
use crate::conf::time::seconds;
use crate::distribution::{Method, MethodError};
use crate::group::{Failover, FailoverError};
use crate::nginx::Conf;

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
    SetCheck sets check by |words| Check::parse(Parameters::new(words));

    /// `lua_memcached_discover`
    SetDiscover sets discover by |words| Discover::parse(Parameters::new(words));
}
