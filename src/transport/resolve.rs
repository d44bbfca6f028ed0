//! Names to addresses, by nginx's resolver.

use std::ffi::CStr;
use std::ptr::{self, NonNull};

use nginx_sys::{
    NGX_OK, ngx_http_core_loc_conf_t, ngx_http_core_module, ngx_http_request_t, ngx_int_t,
    ngx_resolve_name, ngx_resolve_name_done, ngx_resolve_start, ngx_resolver_ctx_t,
    ngx_resolver_strerror, ngx_str_t,
};

use super::Error;
use super::address::Address;
use super::worker::{SessionKey, with};
use crate::contain::contain;
use crate::nginx;

/// A look-up. Dropping it gives it up.
pub(super) struct Resolution {
    /// Null once the answer is there.
    context: *mut ngx_resolver_ctx_t,
    /// The resolver keeps a pointer to it.
    name: Vec<u8>,
    id: u64,
    /// `ngx_resolve_name` runs and may call back at once.
    starting: bool,
    answer: Option<Result<Address, Error>>,
}

impl Resolution {
    /// Starts to look up `name` with the resolver of `request`'s location,
    /// for the session of this id.
    ///
    /// # Errors
    ///
    /// The look-up cannot be started. An answer known at once is no such
    /// error, see [`Self::take_answer`].
    ///
    /// # Safety
    ///
    /// `request` is live.
    pub(super) unsafe fn start(
        name: &[u8],
        id: u64,
        request: NonNull<ngx_http_request_t>,
    ) -> Result<Box<Resolution>, Error> {
        let mut this = Box::new(Resolution {
            context: ptr::null_mut(),
            name: name.to_vec(),
            id,
            starting: true,
            answer: None,
        });
        let text = ngx_str_t {
            len: this.name.len(),
            data: this.name.as_mut_ptr(),
        };
        let failed = |text: &str| {
            let name = String::from_utf8_lossy(name);
            Err(Error::Host(text.replace("{}", &name)))
        };
        // SAFETY: every request has nginx's core configuration, whose resolver
        // may be null; the context's name and data outlive it, as dropping
        // gives it up.
        unsafe {
            let conf = *(*request.as_ptr())
                .loc_conf
                .add(ngx_http_core_module.ctx_index);
            let conf = conf.cast::<ngx_http_core_loc_conf_t>();
            if (*conf).resolver.is_null() {
                return failed("no resolver defined to resolve \"{}\"");
            }
            let mut question: ngx_resolver_ctx_t = std::mem::zeroed();
            question.name = text;
            let context = ngx_resolve_start((*conf).resolver, &mut question);
            if context.is_null() {
                return failed("failed to start the resolver");
            }
            // NGX_NO_RESOLVER
            if context.addr() == usize::MAX {
                return failed("no resolver defined to resolve \"{}\"");
            }
            (*context).name = text;
            (*context).handler = Some(on_answer);
            (*context).data = (&raw mut *this).cast();
            (*context).timeout = (*conf).resolver_timeout;
            this.context = context;
            // it may open a connection to its server
            let asked = nginx::without_draining(|| ngx_resolve_name(context));
            if asked != NGX_OK as ngx_int_t {
                // the resolver has freed the context
                this.context = ptr::null_mut();
                return failed("{} could not be resolved");
            }
        }
        this.starting = false;
        Ok(this)
    }

    /// The answer, if it is there: an address without a port.
    pub(super) fn take_answer(&mut self) -> Option<Result<Address, Error>> {
        self.answer.take()
    }
}

impl Resolution {
    /// Whether the answer is there, and is an address.
    pub(super) fn has_address(&self) -> bool {
        matches!(self.answer, Some(Ok(_)))
    }
}

impl Drop for Resolution {
    fn drop(&mut self) {
        if !self.context.is_null() {
            // SAFETY: the look-up is pending.
            unsafe { ngx_resolve_name_done(self.context) };
        }
    }
}

/// The resolver has an answer, or has given up.
unsafe extern "C" fn on_answer(context: *mut ngx_resolver_ctx_t) {
    // SAFETY: the resolver passes its context, whose data is the look-up's
    // boxed state: it would have been given up otherwise.
    let waiting = unsafe {
        let this = (*context).data.cast::<Resolution>();
        let answer = contain(|| answer(context));
        (*this).answer = Some(answer.unwrap_or(Err(Error::Internal)));
        ngx_resolve_name_done(context);
        (*this).context = ptr::null_mut();
        (!(*this).starting).then_some((*this).id)
    };
    if let Some(id) = waiting {
        with(|worker| worker.on_resolved(SessionKey::from_bits(id)));
    }
}

/// # Safety
///
/// `context` is that of a finished look-up.
unsafe fn answer(context: *mut ngx_resolver_ctx_t) -> Result<Address, Error> {
    // SAFETY: by this function's contract: name and addresses are valid.
    unsafe {
        let state = (*context).state;
        if state != 0 {
            let name = std::slice::from_raw_parts((*context).name.data, (*context).name.len);
            let reason = CStr::from_ptr(ngx_resolver_strerror(state));
            return Err(Error::Host(format!(
                "{} could not be resolved ({state}: {})",
                String::from_utf8_lossy(name),
                reason.to_string_lossy()
            )));
        }
        // one of them at random, as cosockets do; nginx seeds the generator
        let count = (*context).naddrs;
        if count == 0 {
            return Err(Error::Unknown);
        }
        let chosen = (*context)
            .addrs
            .add(libc::rand().unsigned_abs() as usize % count);
        Ok(Address::copy((*chosen).sockaddr, (*chosen).socklen))
    }
}
