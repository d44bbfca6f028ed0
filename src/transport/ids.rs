//! Generational ids of sessions, connections and pools, as nginx and Lua carry them.

use slotmap::{Key, KeyData, new_key_type};

new_key_type! {
    /// A Lua object's side of a connection.
    pub struct SessionKey;
    /// A connection.
    pub struct ConnectionKey;
    /// A keepalive pool.
    pub struct PoolKey;
    /// The shared connections to a server.
    pub struct SharedPoolKey;
}

impl SessionKey {
    /// The id as nginx and Lua carry it.
    pub fn to_bits(self) -> u64 {
        self.data().as_ffi()
    }

    /// From [`Self::to_bits`]; any other number finds no session.
    pub fn from_bits(bits: u64) -> SessionKey {
        KeyData::from_ffi(bits).into()
    }
}

impl ConnectionKey {
    /// As [`SessionKey::to_bits`].
    pub fn to_bits(self) -> u64 {
        self.data().as_ffi()
    }

    /// As [`SessionKey::from_bits`].
    pub fn from_bits(bits: u64) -> ConnectionKey {
        KeyData::from_ffi(bits).into()
    }
}

// ids travel in pointers
const _: () = assert!(size_of::<usize>() == size_of::<u64>());

/// Who has a name looked up.
#[derive(Clone, Copy)]
pub enum Asker {
    Session(SessionKey),
    /// In the background: it knows an address already.
    Shared(SharedPoolKey),
}
