//! A configuration that nginx is reading.

use std::marker::PhantomData;
use std::ptr::NonNull;

use nginx_sys::{
    NGX_OK, ngx_array_t, ngx_conf_full_name, ngx_conf_t, ngx_http_conf_ctx_t, ngx_int_t,
    ngx_palloc, ngx_str_t,
};

use nginx_sys::ngx_pool_t;

use super::Log;
use super::cycle::Cycle;
use super::live::Live;
use super::log::silent_log;
use super::module::{Confs, Module};

/// What nginx passes to hooks of an HTTP module, and to handlers of its directives. It is theirs
/// while they run.
#[derive(Clone, Copy)]
pub struct Conf(Live<ngx_conf_t>);

impl Conf {
    /// # Safety
    ///
    /// nginx has passed it to the hook or handler that runs, of an HTTP module.
    pub unsafe fn from_raw(cf: *mut ngx_conf_t) -> Conf {
        // SAFETY: by this function's contract; nginx passes no null.
        unsafe { Conf(Live::new(NonNull::new_unchecked(cf))) }
    }

    /// For functions of nginx and ngx_lua.
    pub fn as_ptr(self) -> *mut ngx_conf_t {
        self.0.as_ptr()
    }

    /// Its log.
    pub fn log(self) -> Log {
        Log::of(&*self.0)
    }

    /// The arguments of the directive; the first is its name. Each is followed by a NUL.
    pub fn arguments<'a>(self) -> &'a [ngx_str_t] {
        // SAFETY: nginx has the arguments in an array of strings.
        let args = unsafe { Array::<ngx_str_t>::new(self.0.args) };
        args.as_slice()
    }

    /// The file and the line of the directive.
    pub fn place(self) -> String {
        // SAFETY: a directive is read from a file, which has a name; or from nowhere.
        let file = unsafe { self.0.conf_file.as_ref() };
        file.map_or_else(
            || "?".into(),
            |file| format!("{}:{}", file.file.name, file.line),
        )
    }

    /// Puts a value into the memory of the configuration. `None`: no memory.
    pub fn keep<T>(self, value: T) -> Option<Live<T>> {
        const { assert!(align_of::<T>() <= 16) };
        // SAFETY: the configuration has a pool; what that gives is of this size, aligned like the
        // words of the machine, and ours to fill.
        unsafe {
            let at = NonNull::new(ngx_palloc(self.0.pool, size_of::<T>()).cast::<T>())?;
            at.write(value);
            Some(Live::new(at))
        }
    }

    /// What a module has for the block that is being read or merged.
    pub fn of_block<C, X>(self, module: &Module<C, X>) -> Option<Live<C>> {
        Confs::of_block(&*self.context()?).get(module)
    }

    /// The configurations of the block that is being read or merged.
    pub(super) fn context(self) -> Option<Live<ngx_http_conf_ctx_t>> {
        let context = NonNull::new(self.0.ctx.cast());
        // SAFETY: nginx sets the context to that of a block of http, in which it has all modules'
        // configurations.
        context.map(|context| unsafe { Live::new(context) })
    }

    /// What modules have once in the http block.
    pub(super) fn mains(self) -> Option<Confs> {
        Some(Confs::mains(self.context()?.main_conf))
    }

    /// The cycle that it will be the configuration of.
    pub(super) fn cycle(self) -> Option<Cycle> {
        Cycle::of(&self.0)
    }

    /// Its memory.
    pub(super) fn pool(self) -> *mut ngx_pool_t {
        self.0.pool
    }

    /// What a module has for the http block, if this does not belong to reading a configuration.
    /// For `init_worker_by_lua*`, ngx_lua makes all modules merge a location in each worker, with
    /// an empty parent.
    pub fn of_finished_http<C, X>(self, module: &Module<C, X>) -> Option<Live<C>> {
        // the cycle has the http block's context as soon as nginx reads that block, and merges with
        // it; ngx_lua has one of its own
        let http = Cycle::of(&self.0)?.http()?;
        match http.as_ptr().cast() == self.0.ctx {
            true => None,
            false => Confs::of_block(&http).get(module),
        }
    }

    /// The result of `f`, to which nginx logs nothing.
    pub fn quietly<R>(self, f: impl FnOnce(Conf) -> R) -> R {
        let mut quiet = *self.0;
        quiet.log = silent_log();
        // SAFETY: the copy is there while `f` runs.
        f(unsafe { Conf::from_raw(&raw mut quiet) })
    }

    /// Makes a path complete, in the folder of the configuration. False if there is no memory.
    pub fn complete_path(self, path: &mut ngx_str_t) -> bool {
        // SAFETY: a configuration has a cycle with a pool.
        unsafe { ngx_conf_full_name(self.0.cycle, path, 1) == NGX_OK as ngx_int_t }
    }
}

/// Values of a directive, in the memory of a configuration: an array of `T`, or none, or not set
/// (`NGX_CONF_UNSET_PTR`).
#[derive(Debug)]
pub struct Array<T>(*mut ngx_array_t, PhantomData<T>);

impl<T> Clone for Array<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Array<T> {}

impl<T> Array<T> {
    /// # Safety
    ///
    /// `array` is one of these, and nobody has the result for longer.
    pub unsafe fn new(array: *mut ngx_array_t) -> Array<T> {
        Array(array, PhantomData)
    }

    /// The other one, if this is not set.
    pub fn or(self, other: Array<T>) -> Array<T> {
        match self.is_set() {
            true => self,
            false => other,
        }
    }

    fn is_set(self) -> bool {
        self.0.addr() != usize::MAX
    }

    /// For functions of nginx; null if there is none.
    pub fn as_ptr(self) -> *mut ngx_array_t {
        self.0
    }

    /// The elements, which are there as long as the array.
    pub fn as_slice<'a>(self) -> &'a [T] {
        if self.0.is_null() || !self.is_set() {
            return &[];
        }
        // SAFETY: see the type.
        unsafe { std::slice::from_raw_parts((*self.0).elts.cast(), (*self.0).nelts) }
    }
}
