//! Who waits for what, and for how long.

pub mod calls;
pub mod failures;
pub mod members;
