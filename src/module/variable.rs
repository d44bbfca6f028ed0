//! `$lua_memcached_key`: what `hash` can name where Lua alone uses an upstream,
//! and no other module has a variable for the key. It has no value.

use nginx_sys::{
    NGX_OK, ngx_conf_t, ngx_http_add_variable, ngx_http_request_t, ngx_http_variable_value_t,
    ngx_int_t, ngx_str_t,
};

const NAME: &std::ffi::CStr = c"lua_memcached_key";

/// Makes the variable. False if there is no memory.
///
/// # Safety
///
/// To be called from `preconfiguration`, with its `cf`.
pub unsafe fn add(cf: *mut ngx_conf_t) -> bool {
    let mut name = ngx_str_t {
        len: NAME.count_bytes(),
        data: NAME.as_ptr().cast_mut().cast(),
    };
    // SAFETY: nginx copies the name.
    unsafe {
        match ngx_http_add_variable(cf, &raw mut name, 0).as_mut() {
            None => false,
            Some(variable) => {
                variable.get_handler = Some(get);
                true
            }
        }
    }
}

unsafe extern "C" fn get(
    _: *mut ngx_http_request_t,
    value: *mut ngx_http_variable_value_t,
    _: usize,
) -> ngx_int_t {
    // SAFETY: nginx passes the variable's value.
    unsafe { (*value).set_not_found(1) };
    NGX_OK as ngx_int_t
}
