//! An open pipeline: commands kept between `init_pipeline` and `commit_pipeline`. It belongs to no
//! session, so it survives `set_keepalive` and a reconnect.

use crate::protocol::{Batch, Refused};

/// The commands of an open pipeline, and what becomes of each.
#[derive(Default)]
pub struct CommandPipeline {
    pub batch: Batch,
    pub commands: Vec<Queued>,
}

/// A command that was added: its place in the results. The number says in which form the caller
/// wants its result.
pub enum Queued {
    /// It will be sent.
    Command(u8),
    /// It will not be sent; this is its result.
    Refused(u8, Refused),
}
