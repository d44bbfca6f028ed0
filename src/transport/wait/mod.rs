//! Who waits for what, and for how long.

pub mod deadlines;
pub mod failures;
pub mod members;
