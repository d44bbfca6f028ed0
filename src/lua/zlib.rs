//! zlib's `uncompress`, out of the libz that nginx was linked with. It is looked up, so that a
//! nginx without it can load the module.

use std::ffi::{c_int, c_ulong};
use std::sync::OnceLock;

use crate::codec::php::Error;
use crate::ngx_lua::find_symbol;

type Uncompress = unsafe extern "C" fn(*mut u8, *mut c_ulong, *const u8, c_ulong) -> c_int;

fn uncompress() -> Option<Uncompress> {
    static FOUND: OnceLock<Option<Uncompress>> = OnceLock::new();
    *FOUND.get_or_init(|| {
        let found = find_symbol(c"uncompress");
        // SAFETY: zlib's function of this name has this signature in all of its versions; libz is
        // never unloaded, because nginx is linked with it.
        (!found.is_null()).then(|| unsafe { std::mem::transmute::<_, Uncompress>(found) })
    })
}

/// Fills `out`, which is empty and has room for `len` bytes, with what a stream holds. It may hold
/// less than that, but not more.
pub fn inflate(stream: &[u8], out: &mut Vec<u8>, len: usize) -> Result<(), Error> {
    let uncompress = uncompress().ok_or(Error::NoZlib)?;
    let mut got = len as c_ulong;
    if out.capacity() < len {
        return Err(Error::NoMemory);
    }
    // SAFETY: `got` says how much room there is, and afterwards how many bytes were written;
    // nothing else is.
    let status = unsafe {
        let status = uncompress(
            out.as_mut_ptr(),
            &raw mut got,
            stream.as_ptr(),
            stream.len() as c_ulong,
        );
        if status == 0 {
            out.set_len((got as usize).min(len));
        }
        status
    };
    match status {
        0 => Ok(()),
        _ => Err(Error::Inflate),
    }
}
