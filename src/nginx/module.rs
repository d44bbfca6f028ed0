//! Modules, and what nginx keeps for each of them.

use std::cell::UnsafeCell;
use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr::NonNull;

use nginx_sys::{
    ngx_command_t, ngx_http_conf_ctx_t, ngx_http_core_loc_conf_t, ngx_http_module_t,
    ngx_http_request_t, ngx_module_t, ngx_uint_t,
};

use super::live::Live;
use nginx_sys::{ngx_http_upstream_main_conf_t, ngx_http_upstream_srv_conf_t};

/// A module of nginx, which makes a `C` for each location and may have an `X` for a request.
#[repr(transparent)]
pub struct Module<C = (), X = ()>(UnsafeCell<ngx_module_t>, PhantomData<fn() -> (C, X)>);

// SAFETY: nginx writes the indices while it loads modules, in its one thread.
unsafe impl<C, X> Sync for Module<C, X> {}

// SAFETY: nginx's modules; the core module of http makes these.
unsafe extern "C" {
    pub(super) safe static ngx_http_module: Module;
    pub(super) safe static ngx_http_core_module: Module<ngx_http_core_loc_conf_t>;
    pub(super) safe static ngx_http_upstream_module: Module<ngx_http_upstream_main_conf_t>;
}

impl<C, X> Module<C, X> {
    /// # Safety
    ///
    /// It is a module, and what it makes is as its type says.
    pub unsafe fn from_raw(module: *const ngx_module_t) -> &'static Module<C, X> {
        // SAFETY: by this function's contract; a module is never freed.
        unsafe { &*module.cast() }
    }

    #[inline(always)]
    fn get(&self) -> &ngx_module_t {
        // SAFETY: see `Sync`; no reference is held while nginx loads modules.
        unsafe { &*self.0.get() }
    }

    /// Its place among all modules.
    #[inline(always)]
    pub(super) fn core_index(&self) -> ngx_uint_t {
        self.get().index
    }

    /// Its place among the modules of http.
    pub(super) fn http_index(&self) -> ngx_uint_t {
        self.get().ctx_index
    }

    /// Its directives; the last has an empty name.
    pub fn commands(&self) -> *const ngx_command_t {
        self.get().commands
    }

    /// Its hooks, if it is a module of http.
    pub fn hooks(&self) -> *const ngx_http_module_t {
        self.get().ctx.cast_const().cast()
    }
}

/// The configurations that a location or a block has: one of each module of http.
#[derive(Clone, Copy)]
pub(super) struct Confs(*mut *mut c_void);

impl Confs {
    /// Those of a block, while its configuration is read and later.
    pub(super) fn of_block(block: &ngx_http_conf_ctx_t) -> Confs {
        Confs(block.loc_conf)
    }

    /// Those of a request's location.
    #[inline(always)]
    pub(super) fn of_request(request: &ngx_http_request_t) -> Confs {
        Confs(request.loc_conf)
    }

    /// Those of the http block that are not of a location: what each module has once.
    pub(super) fn mains(mains: *mut *mut c_void) -> Confs {
        Confs(mains)
    }

    /// Those of an `upstream` block.
    pub(super) fn of_upstream(block: &ngx_http_upstream_srv_conf_t) -> Confs {
        Confs(block.srv_conf)
    }

    /// That of one module.
    #[inline(always)]
    pub(super) fn get<C, X>(self, module: &Module<C, X>) -> Option<Live<C>> {
        // SAFETY: nginx has filled the array with what the modules have made.
        unsafe {
            let place = self.0.add(module.get().ctx_index);
            NonNull::new((*place).cast()).map(|at| Live::new(at))
        }
    }
}

/// What modules of http have for a request.
#[derive(Clone, Copy)]
pub(super) struct Contexts(*mut *mut c_void);

impl Contexts {
    #[inline(always)]
    pub(super) fn of_request(request: &ngx_http_request_t) -> Contexts {
        Contexts(request.ctx)
    }

    /// That of one module, if it has any.
    #[inline(always)]
    pub(super) fn get<C, X>(self, module: &Module<C, X>) -> Option<Live<X>> {
        // SAFETY: a request has a place for each module, which fills it.
        unsafe {
            let place = self.0.add(module.get().ctx_index);
            NonNull::new((*place).cast()).map(|at| Live::new(at))
        }
    }
}
