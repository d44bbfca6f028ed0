//! The end of sessions and connections, and who gets what is free then.

pub mod private;
pub mod shared;
pub mod wake;
