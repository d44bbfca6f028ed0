//! Bytes out and in.

pub mod due;
pub mod established;
pub mod private;
pub mod renew;
pub mod shared;
