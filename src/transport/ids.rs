//! Generational ids of sessions, connections and pools, as nginx and Lua carry them.

use slotmap::{Key, KeyData, new_key_type};

new_key_type! {
    /// A Lua object's side of a connection.
    pub struct SessionKey;
    /// A connection.
    pub struct ConnectionKey;
    /// An operation. It is the tag of the operation's exchanges.
    pub struct OpKey;
    /// A keepalive pool.
    pub struct PoolKey;
    /// The shared connections to a server.
    pub struct SharedPoolKey;
    /// An open pipeline.
    pub struct PipelineKey;
    /// A question that the worker asks by itself.
    pub struct ProbeKey;
}

/// Bits of an id in Lua, an integer up to 2^53, that are the place; the others are the generation.
const PLACE_BITS: u32 = 21;

impl SessionKey {
    /// The id as nginx and Lua carry it.
    pub fn to_bits(self) -> u64 {
        self.data().as_ffi()
    }

    /// From [`Self::to_bits`]; any other number finds no session.
    pub fn from_bits(bits: u64) -> SessionKey {
        KeyData::from_ffi(bits).into()
    }

    /// The id as a Lua number; `None`: there are too many sessions.
    pub fn to_number(self) -> Option<f64> {
        let bits = self.to_bits();
        let place = bits & u64::from(u32::MAX);
        (place < 1 << PLACE_BITS).then_some(((bits >> 32) << PLACE_BITS | place) as f64)
    }

    /// From [`Self::to_number`]; any other number finds no session.
    pub fn from_number(number: f64) -> SessionKey {
        // by way of a signed one, which is less work
        let id = number as i64 as u64;
        let place = id & ((1 << PLACE_BITS) - 1);
        SessionKey::from_bits((id >> PLACE_BITS) << 32 | place)
    }
}

impl PipelineKey {
    /// As [`SessionKey::to_bits`].
    pub fn to_bits(self) -> u64 {
        self.data().as_ffi()
    }

    /// As [`SessionKey::from_bits`].
    pub fn from_bits(bits: u64) -> PipelineKey {
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

/// A background queue: its place among those of the worker, which stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueKey(pub usize);

/// Who has a name looked up.
#[derive(Clone, Copy)]
pub enum Asker {
    Session(SessionKey),
    /// In the background: it knows an address already.
    Shared(SharedPoolKey),
    /// For the connection of a background queue.
    Queue(QueueKey),
    /// For a list of servers: the place of the poll.
    Poll(usize),
}
