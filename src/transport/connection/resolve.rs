//! Names to addresses, by nginx's resolver.

use std::ffi::CStr;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};

use nginx_sys::{
    NGX_OK, ngx_int_t, ngx_resolve_name, ngx_resolve_name_done, ngx_resolve_start,
    ngx_resolver_ctx_t, ngx_resolver_strerror, ngx_resolver_t, ngx_str_t,
};

use crate::contain::contain;
use crate::nginx::{self, Msec};
use crate::transport::connection::address::Address;
use crate::transport::connection::handlers::handlers;
use crate::transport::error::Error;
use crate::transport::ids::Asker;

/// What a name stands for: addresses without a port.
pub struct Answer {
    /// One of them.
    pub address: Address,
    /// All of them, if a shared pool asked.
    pub all: Vec<Address>,
    /// How long that holds.
    pub life: Msec,
}

/// Set while the resolver calls back. It calls all who have asked for a name in turn, from a list
/// of its own, so their contexts must stay until then.
static ANSWERING: AtomicBool = AtomicBool::new(false);

/// A look-up. Dropping it cancels it.
pub struct Resolution {
    /// Null once the answer is there.
    context: *mut ngx_resolver_ctx_t,
    /// The resolver keeps a pointer to it.
    name: Vec<u8>,
    asker: Asker,
    /// `ngx_resolve_name` runs and may call back at once.
    starting: bool,
    answer: Option<Result<Answer, Error>>,
}

impl Resolution {
    /// Starts to look up `name` with this resolver, within this time. The resolver may be null. It
    /// must live longer than the look-up.
    ///
    /// # Errors
    ///
    /// The look-up cannot be started. An answer known at once is no such error, see
    /// [`Self::take_answer`].
    pub fn start(
        name: &[u8],
        asker: Asker,
        (resolver, timeout): (*mut ngx_resolver_t, Msec),
    ) -> Result<Box<Resolution>, Error> {
        let mut this = Box::new(Resolution {
            context: ptr::null_mut(),
            name: name.to_vec(),
            asker,
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
        if resolver.is_null() {
            return failed("no resolver defined to resolve \"{}\"");
        }
        // SAFETY: the resolver is there by this function's contract; the context's name and data
        // outlive it, as dropping gives it up.
        unsafe {
            let mut question: ngx_resolver_ctx_t = std::mem::zeroed();
            question.name = text;
            let context = ngx_resolve_start(resolver, &mut question);
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
            (*context).timeout = timeout;
            if !matches!(asker, Asker::Session(_)) {
                // a worker that exits does not wait for it
                (*context).set_cancelable(1);
            }
            this.context = context;
            // the resolver may open a connection to a name server
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

    /// The answer, if it is there.
    pub fn take_answer(&mut self) -> Option<Result<Answer, Error>> {
        self.answer.take()
    }
}

impl Resolution {
    /// Whether the answer is there, and is an address.
    pub fn has_address(&self) -> bool {
        matches!(self.answer, Some(Ok(_)))
    }
}

impl Drop for Resolution {
    fn drop(&mut self) {
        if self.context.is_null() {
            return;
        }
        // SAFETY: the look-up is pending.
        unsafe {
            if !ANSWERING.load(Ordering::Relaxed) {
                return ngx_resolve_name_done(self.context);
            }
            // the resolver may call this context back next, so it stays until then
            let name = Box::new(std::mem::take(&mut self.name));
            (*self.context).data = Box::into_raw(name).cast();
            (*self.context).handler = Some(on_unwanted_answer);
            let event = (*self.context).event;
            if !event.is_null() {
                (*event).set_cancelable(1);
            }
        }
    }
}

/// The resolver has an answer that nobody waits for any more.
unsafe extern "C" fn on_unwanted_answer(context: *mut ngx_resolver_ctx_t) {
    // SAFETY: the resolver passes its context, whose data is its name: see where this handler is
    // set.
    unsafe {
        let name = (*context).data.cast::<Vec<u8>>();
        ngx_resolve_name_done(context);
        drop(Box::from_raw(name));
    }
}

/// The resolver has an answer, or has given up.
unsafe extern "C" fn on_answer(context: *mut ngx_resolver_ctx_t) {
    // SAFETY: the resolver passes its context, whose data is the look-up's boxed state: it would
    // have been given up otherwise.
    let waiting = unsafe {
        let this = (*context).data.cast::<Resolution>();
        let asker = (*this).asker;
        let answer = contain(|| answer(context, asker));
        (*this).answer = Some(answer.unwrap_or(Err(Error::Internal)));
        ngx_resolve_name_done(context);
        (*this).context = ptr::null_mut();
        (!(*this).starting).then_some(asker)
    };
    let Some(asker) = waiting else {
        return;
    };
    ANSWERING.store(true, Ordering::Relaxed);
    (handlers().answer)(asker);
    ANSWERING.store(false, Ordering::Relaxed);
}

/// # Safety
///
/// `context` is that of a finished look-up.
unsafe fn answer(context: *mut ngx_resolver_ctx_t, asker: Asker) -> Result<Answer, Error> {
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
        let address = |at| {
            let one = (*context).addrs.add(at);
            Address::copy((*one).sockaddr, (*one).socklen)
        };
        let mut all = Vec::new();
        if let Asker::Shared(_) = asker {
            all.try_reserve_exact(count).map_err(|_| Error::NoMemory)?;
            all.extend((0..count).map(address));
        }
        Ok(Answer {
            address: address(libc::rand().unsigned_abs() as usize % count),
            all,
            life: nginx::until_after((*context).valid),
        })
    }
}
