//! Operations on connections, in any order of events: each one completes exactly once, and what it
//! gets is the reply to its own command, unless the server sent something unasked before.
//!
//! Input: a byte for the world, then events of a byte and what they need; see `shared`, `pooled`.

use crate::input::Input;
use crate::{pooled, shared};

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let world = input.byte();
    match world & 1 {
        0 => shared::run(input, usize::from(world >> 1)),
        _ => pooled::run(input, usize::from(world >> 1)),
    }
}
