//! What nginx calls for this module's directives, and for the configurations that they set.

use std::cell::Cell;
use std::ffi::{c_char, c_void};
use std::ptr;

use nginx_sys::{ngx_command_t, ngx_conf_t};

use crate::nginx::Conf;

/// A directive of this module.
pub trait Directive {
    /// What it sets: this module's configuration of a block, which [`create`] makes. The command
    /// table says which of the configurations that is.
    type Of;

    /// Sets what its arguments say. The result is that of nginx's handlers.
    fn set(cf: Conf, conf: &Cell<Self::Of>) -> *mut c_char;
}

/// The handler of a directive.
pub unsafe extern "C" fn set<D: Directive>(
    cf: *mut ngx_conf_t,
    _: *mut ngx_command_t,
    conf: *mut c_void,
) -> *mut c_char {
    // SAFETY: this is the directive's handler; `create` made the block's configuration.
    let (cf, conf) = unsafe { (Conf::from_raw(cf), &*conf.cast::<Cell<D::Of>>()) };
    D::set(cf, conf)
}

/// `create_loc_conf` and its like. nginx keeps one configuration of each kind for a block.
pub unsafe extern "C" fn create<C: Default>(cf: *mut ngx_conf_t) -> *mut c_void {
    // SAFETY: this is a hook.
    let cf = unsafe { Conf::from_raw(cf) };
    let conf = cf.keep(Cell::new(C::default()));
    conf.map_or(ptr::null_mut(), |conf| conf.as_ptr().cast())
}
