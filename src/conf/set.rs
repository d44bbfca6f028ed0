//! The directives of locations.

use std::cell::Cell;
use std::ffi::c_char;
use std::ptr;

use super::directive::{Directive, ERROR, set_once};
use super::loc_conf::{LocConf, UNSET};
use super::multiplex::{self, Multiplex};
use super::queue::Queueing;
use super::size;
use crate::contain::contain;
use crate::nginx::Conf;

/// `lua_memcached_max_value_size`
pub enum SetMaxValueSize {}

impl Directive for SetMaxValueSize {
    type Of = LocConf;

    fn set(cf: Conf, conf: &Cell<LocConf>) -> *mut c_char {
        let mut changed = conf.get();
        if changed.max_value_size != UNSET {
            return c"is duplicate".as_ptr().cast_mut();
        }
        let size = contain(|| size::parse(cf.arguments().get(1)?.as_bytes()));
        match size {
            Some(Some(size)) => changed.max_value_size = size,
            Some(None) => {
                return c"needs a size such as 512k, 1m or 2g, or 0 for no limit"
                    .as_ptr()
                    .cast_mut();
            }
            None => return ERROR,
        }
        conf.set(changed);
        ptr::null_mut() // NGX_CONF_OK
    }
}

/// `lua_memcached_multiplex`
pub enum SetMultiplex {}

impl Directive for SetMultiplex {
    type Of = LocConf;

    fn set(cf: Conf, conf: &Cell<LocConf>) -> *mut c_char {
        let result = set_once(cf, conf, |conf| &mut conf.multiplex, Multiplex::parse);
        let connections = conf.get().multiplex().connections;
        if result.is_null() && connections > 0 {
            contain(|| multiplex::note_place(cf, connections));
        }
        result
    }
}

/// `lua_memcached_queue`
pub enum SetQueue {}

impl Directive for SetQueue {
    type Of = LocConf;

    fn set(cf: Conf, conf: &Cell<LocConf>) -> *mut c_char {
        set_once(cf, conf, |conf| &mut conf.queue, Queueing::parse)
    }
}

/// `lua_memcached_upstream`
pub enum SetMapping {}

impl Directive for SetMapping {
    type Of = LocConf;

    fn set(cf: Conf, conf: &Cell<LocConf>) -> *mut c_char {
        let mut changed = conf.get();
        match contain(|| changed.mappings.with(cf)) {
            Some(Ok(mappings)) => changed.mappings = mappings,
            Some(Err(error)) => return error,
            None => return ERROR,
        }
        conf.set(changed);
        ptr::null_mut() // NGX_CONF_OK
    }
}
