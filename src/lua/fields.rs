//! The fields of a `sock`, a Lua array: one list of their indices.

use std::ffi::c_int;

/// The id of the session as a number. After closing it stays, and finds no session. It is false
/// before the first connect, and nil while the object is connected to a group of servers.
pub const ID: c_int = 1;
/// The timeouts in milliseconds, for later connections.
pub const CONNECT_TIMEOUT: c_int = 2;
/// See [`CONNECT_TIMEOUT`].
pub const SEND_TIMEOUT: c_int = 3;
/// See [`CONNECT_TIMEOUT`].
pub const READ_TIMEOUT: c_int = 4;
/// The host passed to `connect`, for the TLS handshake.
const HOST: c_int = 5;
/// The port passed to `connect`.
const PORT: c_int = 6;
/// The userdata whose collection ends the session.
pub const HANDLE: c_int = 7;
/// How many connections to share; -1: none; false: as the location's directive says.
const MULTIPLEX: c_int = 8;
/// The group of servers that the object is connected to, or false. Its number is 0, which an array
/// has place for anyway: a `sock` with one field more takes the allocator longer.
const GROUP: c_int = 0;
/// The client certificate, a pointer of ngx.ssl.
const CERTIFICATE: c_int = 9;
/// The certificate's private key.
const PRIVATE_KEY: c_int = 10;

/// The name of the server, in a hidden `sock` that a group has for it.
const SERVER: c_int = 11;

/// All fields by the names that the glue uses.
const ALL: &[(&str, c_int)] = &[
    ("ID", ID),
    ("CONNECT_TIMEOUT", CONNECT_TIMEOUT),
    ("SEND_TIMEOUT", SEND_TIMEOUT),
    ("READ_TIMEOUT", READ_TIMEOUT),
    ("HOST", HOST),
    ("PORT", PORT),
    ("HANDLE", HANDLE),
    ("MULTIPLEX", MULTIPLEX),
    ("CERTIFICATE", CERTIFICATE),
    ("PRIVATE_KEY", PRIVATE_KEY),
    ("GROUP", GROUP),
    ("SERVER", SERVER),
];

/// A chunk of the glue with numbers in the place of names: `sock[ID]` becomes `sock[1]`.
pub fn with_indices(chunk: &str) -> String {
    ALL.iter().fold(chunk.to_owned(), |chunk, (name, index)| {
        chunk.replace(&format!("[{name}]"), &format!("[{index}]"))
    })
}
