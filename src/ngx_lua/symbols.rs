//! What the module takes from ngx_lua and its LuaJIT, and whether it is there.
//!
//! nginx resolves all symbols of a module when it loads it, and stops with `undefined symbol:
//! lua_gettop` when one is missing. So these symbols are weak: the module loads, a missing symbol
//! has the address 0, and [`check`] tells the operator what to do before anything is called.
//!
//! This requires a link-time optimized cdylib: then all code is one object, in which `.weak`
//! applies to every reference. A symbol that is used but not listed stays strong, and leads to the
//! old message.

use std::ffi::{CStr, c_void};
use std::ptr;

use nginx_sys::ngx_module_t;

use super::layout::ngx_http_lua_module;

/// Why the module cannot work in this nginx.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// No module provides ngx_lua's symbols.
    #[error(
        "ngx_http_lua_memcached_module needs ngx_http_lua_module, which is not loaded: \
         add its \"load_module\" line before that of ngx_http_lua_memcached_module"
    )]
    NotLoaded,
    /// ngx_lua was loaded after this module, whose symbols had been resolved by then.
    #[error(
        "ngx_http_lua_memcached_module is loaded before ngx_http_lua_module: \
         move its \"load_module\" line below that of ngx_http_lua_module"
    )]
    LoadedTooEarly,
    /// An ngx_lua or a Lua that the module is not made for.
    #[error(
        "the loaded ngx_http_lua_module, or its LuaJIT, has no \"{0}\": \
         ngx_http_lua_memcached_module needs ngx_lua 0.10.23 or newer and LuaJIT 2.1"
    )]
    Lacks(&'static str),
}

macro_rules! weak_symbols {
    ($($name:ident)*) => {
        $(std::arch::global_asm!(concat!(".weak ", stringify!($name)));)*

        /// All of them.
        const NAMES: &[&str] = &[$(concat!(stringify!($name), "\0")),*];
    };
}

weak_symbols! {
    // ngx_lua
    ngx_http_lua_module
    ngx_http_lua_add_package_preload ngx_http_lua_cleanup_add ngx_http_lua_cleanup_free
    ngx_http_lua_ffi_sema_count ngx_http_lua_ffi_sema_gc ngx_http_lua_ffi_sema_new
    ngx_http_lua_ffi_sema_post ngx_http_lua_ffi_sema_wait ngx_http_lua_get_global_state
    ngx_http_lua_get_request

    // all of Lua 5.1, because what mlua uses of it may change
    luaL_addlstring luaL_addstring luaL_addvalue luaL_argerror luaL_buffinit luaL_callmeta
    luaL_checkany luaL_checkinteger luaL_checklstring luaL_checknumber luaL_checkoption
    luaL_checkstack luaL_checktype luaL_checkudata luaL_error luaL_findtable luaL_getmetafield
    luaL_gsub luaL_loadbuffer luaL_loadfile luaL_loadstring luaL_newmetatable luaL_newstate
    luaL_openlib luaL_openlibs luaL_optinteger luaL_optlstring luaL_optnumber luaL_prepbuffer
    luaL_pushresult luaL_ref luaL_register luaL_typerror luaL_unref luaL_where lua_atpanic
    lua_call lua_checkstack lua_close lua_concat lua_cpcall lua_createtable lua_dump lua_equal
    lua_error lua_gc lua_getallocf lua_getfenv lua_getfield lua_gethook lua_gethookcount
    lua_gethookmask lua_getinfo lua_getlocal lua_getmetatable lua_getstack lua_gettable
    lua_gettop lua_getupvalue lua_insert lua_iscfunction lua_isnumber lua_isstring
    lua_isuserdata lua_lessthan lua_load lua_newstate lua_newthread lua_newuserdata lua_next
    lua_objlen lua_pcall lua_pushboolean lua_pushcclosure lua_pushfstring lua_pushinteger
    lua_pushlightuserdata lua_pushlstring lua_pushnil lua_pushnumber lua_pushstring
    lua_pushthread lua_pushvalue lua_pushvfstring lua_rawequal lua_rawget lua_rawgeti lua_rawset
    lua_rawseti lua_remove lua_replace lua_resume lua_setallocf lua_setfenv lua_setfield
    lua_sethook lua_setlocal lua_setmetatable lua_settable lua_settop lua_setupvalue lua_status
    lua_toboolean lua_tocfunction lua_tointeger lua_tolstring lua_tonumber lua_topointer
    lua_tothread lua_touserdata lua_type lua_typename lua_xmove lua_yield

    // LuaJIT 2.1
    lua_isyieldable
}

/// An address that is filled in when the module is loaded.
#[repr(transparent)]
struct Address(*const ngx_module_t);

// SAFETY: it does not change, and it is only compared.
unsafe impl Sync for Address {}

static NGX_LUA: Address = Address((&raw const ngx_http_lua_module).cast());

/// Checks that all symbols that the module uses are there. They must not be used before. All
/// modules have to be loaded.
///
/// # Errors
///
/// If a symbol is missing, or was missing when this module was loaded.
pub fn check() -> Result<(), LoadError> {
    // SAFETY: reading a static; volatile, because the compiler knows that the address of a strong
    // symbol is not null.
    let bound = unsafe { !ptr::read_volatile(&raw const NGX_LUA).0.is_null() };
    match NAMES.iter().find(|name| !is_there(name)) {
        None if bound => Ok(()),
        Some(name) if bound => Err(LoadError::Lacks(name.trim_end_matches('\0'))),
        _ if is_there("ngx_http_lua_module\0") => Err(LoadError::LoadedTooEarly),
        _ => Err(LoadError::NotLoaded),
    }
}

/// The address of a symbol in what is loaded by now; null if there is none.
pub fn find(name: &CStr) -> *mut c_void {
    // SAFETY: only looks the name up.
    unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) }
}

/// Whether the symbol is loaded by now. `name` ends with a NUL.
fn is_there(name: &str) -> bool {
    CStr::from_bytes_with_nul(name.as_bytes()).is_ok_and(|name| !find(name).is_null())
}
