//! Logs whose lines end with a server's address: `…, client: 127.0.0.1, …, memcached:
//! 127.0.0.1:11211`.

use std::ptr::{self, NonNull};

use nginx_sys::{ngx_log_t, u_char};

use super::live::Zeroed;
use super::log::Log;

/// Stands for another log: it writes to the same places, with the server's address at the end of
/// each line, behind what the other log adds.
pub struct PeerLog(NonNull<Inner>);

#[repr(C)]
struct Inner {
    log: ngx_log_t,
    /// The log it stands for.
    target: *mut ngx_log_t,
    peer: String,
}

impl PeerLog {
    /// For lines about this server. It stands for no log yet, and is not to be used before
    /// [`Self::stand_for`].
    pub fn new(peer: String) -> PeerLog {
        let inner = Box::new(Inner {
            // at level 0, without a file
            log: Zeroed::ZEROED,
            target: ptr::null_mut(),
            peer,
        });
        PeerLog(NonNull::from(Box::leak(inner)))
    }

    /// The server's address.
    pub fn peer(&self) -> &str {
        // SAFETY: the box lives until drop; its text does not change.
        unsafe { &(*self.0.as_ptr()).peer }
    }

    /// Stands for `target` from now on, as long as that may be used. The result is at the same
    /// place each time.
    #[inline(always)]
    pub fn stand_for(&mut self, target: Log) -> Log {
        let (inner, target) = (self.0.as_ptr(), target.as_ptr());
        // SAFETY: the box lives until drop, and `target` is another log, which is valid.
        unsafe {
            let log = &raw mut (*inner).log;
            if log != target {
                log.copy_from_nonoverlapping(target, 1);
                (*log).handler = Some(append);
                (*log).data = inner.cast();
                (*inner).target = target;
            }
            Log::from_raw(log)
        }
    }

    /// The log it stands for.
    pub fn target(&self) -> Log {
        // SAFETY: the box lives until drop; the log is valid as long as it is used.
        unsafe { Log::from_raw((*self.0.as_ptr()).target) }
    }
}

impl Drop for PeerLog {
    fn drop(&mut self) {
        // SAFETY: it came out of a box, and is used by nobody else any more.
        drop(unsafe { Box::from_raw(self.0.as_ptr()) });
    }
}

/// Calls `f` with a log that stands for `target` and adds the server's address, if there is one.
pub fn with_peer<R>(target: Log, peer: &str, f: impl FnOnce(Log) -> R) -> R {
    if peer.is_empty() {
        return f(target);
    }
    let mut log = PeerLog::new(peer.to_owned());
    f(log.stand_for(target))
}

/// What nginx calls at the end of a line: adds what the log stood for adds, then the address, for
/// which room is kept.
unsafe extern "C" fn append(log: *mut ngx_log_t, buf: *mut u_char, len: usize) -> *mut u_char {
    const LABEL: &[u8] = b", memcached: ";
    // SAFETY: nginx calls this with the log whose handler it is, or a copy of it, and with room for
    // `len` bytes; `stand_for` has set `data`. The log stood for is valid.
    unsafe {
        let inner = (*log).data.cast::<Inner>();
        let target = (*inner).target;
        let peer = (*inner).peer.as_bytes();
        let tail = LABEL.len() + peer.len();
        let fits = tail <= len;
        let room = if fits { len - tail } else { len };
        let end = match (*target).handler {
            Some(handler) => handler(target, buf, room),
            None => buf,
        };
        if !fits {
            return end;
        }
        for (at, byte) in LABEL.iter().chain(peer).enumerate() {
            let shown = if byte.is_ascii_control() { b'?' } else { *byte };
            end.add(at).write(shown);
        }
        end.add(tail)
    }
}
