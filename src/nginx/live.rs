//! What nginx and ngx_lua own, and C structs that begin as zeros.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;

use nginx_sys::{ngx_connection_t, ngx_event_t, ngx_log_t};

/// A pointer to what nginx or ngx_lua has, in the memory of a request or of a configuration.
///
/// Whoever has one got it from that request or configuration, and does not keep it for longer. What
/// C code may write between two looks is in cells: no reference to a field is held across a call of
/// C.
#[repr(transparent)]
pub struct Live<T>(NonNull<T>);

impl<T> Clone for Live<T> {
    #[inline(always)]
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Live<T> {}

/// The same, not equal ones.
impl<T> PartialEq for Live<T> {
    #[inline(always)]
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T> Eq for Live<T> {}

impl<T> fmt::Debug for Live<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<T> Live<T> {
    /// # Safety
    ///
    /// There is a `T`, as long as the type says.
    #[inline(always)]
    pub unsafe fn new(at: NonNull<T>) -> Live<T> {
        Live(at)
    }

    /// For functions of C.
    #[inline(always)]
    pub fn as_ptr(self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Deref for Live<T> {
    type Target = T;

    #[inline(always)]
    fn deref(&self) -> &T {
        // SAFETY: see the type.
        unsafe { self.0.as_ref() }
    }
}

/// A C struct for which all zeros is the initial state.
///
/// # Safety
///
/// All zeros is a valid value.
pub unsafe trait Zeroed: Sized {
    /// All zeros.
    const ZEROED: Self = {
        // SAFETY: see the trait.
        unsafe { std::mem::zeroed() }
    };
}

// SAFETY: integers, flags, and pointers that may be null.
unsafe impl Zeroed for ngx_event_t {}
// SAFETY: as above.
unsafe impl Zeroed for ngx_connection_t {}
// SAFETY: as above.
unsafe impl Zeroed for ngx_log_t {}
