//! What nginx calls for this module's directives, and for the configurations that they set.

use std::cell::Cell;
use std::ffi::{CStr, c_char, c_void};
use std::ptr;

use nginx_sys::{NGX_LOG_EMERG, ngx_command_t, ngx_conf_t, ngx_str_t};

use crate::contain::contain;
use crate::nginx::Conf;

/// `NGX_CONF_ERROR`
pub const ERROR: *mut c_char = usize::MAX as *mut c_char;

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

/// Sets a value of a configuration once: `parse` is given the words behind the directive's name. The
/// result is that of nginx's handlers.
pub fn set_once<C: Copy, T, E: Into<Fault>>(
    cf: Conf,
    conf: &Cell<C>,
    slot: impl FnOnce(&mut C) -> &mut Option<T>,
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

/// What is wrong with a directive, for the operator.
pub enum Fault {
    /// A text for nginx to write.
    Static(&'static CStr),
    /// One to be written here.
    Text(String),
}

impl From<&'static CStr> for Fault {
    fn from(text: &'static CStr) -> Fault {
        Fault::Static(text)
    }
}
