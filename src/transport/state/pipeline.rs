//! An open pipeline: commands kept between `init_pipeline` and `commit_pipeline`. It belongs to no
//! session, so it survives `set_keepalive` and a reconnect.

use crate::protocol::Bound;
use crate::protocol::{Batch, Refused};

/// The commands of an open pipeline, and what becomes of each.
#[derive(Default)]
pub struct CommandPipeline {
    pub batch: Batch,
    pub commands: Vec<Queued>,
    /// If it is a part of another one, the places of its commands in that.
    pub places: Vec<usize>,
}

/// A command that was added: its place in the results.
pub enum Queued {
    /// It will be sent.
    Command {
        /// In which form the caller wants its result.
        form: u8,
        /// Whether the default transform was applied to its key.
        escaped: bool,
    },
    /// It will not be sent; this is its result. The number is the form.
    Refused(u8, Refused),
}

impl CommandPipeline {
    /// The places of the commands that are to be sent. `None` if there is no memory.
    pub fn to_send(&self) -> Option<Vec<usize>> {
        let mut places = Vec::new();
        places.try_reserve_exact(self.batch.len()).ok()?;
        let all = (0..).zip(&self.commands);
        let is_sent = |queued: &Queued| matches!(queued, Queued::Command { .. });
        places.extend(all.filter_map(|(place, queued)| is_sent(queued).then_some(place)));
        Some(places)
    }

    /// Some of its commands, by their indexes in `to_send`, in ascending order. `bound` as for
    /// [`Batch::part`]. `None` if there is no memory.
    pub fn part(
        &self,
        to_send: &[usize],
        indexes: &[usize],
        bound: Option<Bound<'_>>,
    ) -> Option<CommandPipeline> {
        let batch = self.batch.part(indexes, bound)?;
        let (mut commands, mut places) = (Vec::new(), Vec::new());
        commands.try_reserve_exact(indexes.len()).ok()?;
        places.try_reserve_exact(indexes.len()).ok()?;
        for place in indexes.iter().filter_map(|index| to_send.get(*index)) {
            if let Some(Queued::Command { form, escaped }) = self.commands.get(*place) {
                let (form, escaped) = (*form, *escaped);
                commands.push(Queued::Command { form, escaped });
                places.push(*place);
            }
        }
        Some(CommandPipeline {
            batch,
            commands,
            places,
        })
    }
}
