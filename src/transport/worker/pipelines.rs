//! Open pipelines.

use crate::fault;
use crate::protocol::{Command, Server};
use crate::transport::error::{Error, Rejected};
use crate::transport::ids::PipelineKey;
use crate::transport::state::pipeline::{CommandPipeline, Queued};
use crate::transport::worker::Worker;

impl Worker {
    /// A new pipeline, without commands. If there is no memory the key is null.
    pub fn new_pipeline(&mut self) -> PipelineKey {
        match self.pipelines.try_reserve(1) {
            Ok(()) => self.pipelines.insert(CommandPipeline::default()),
            Err(_) => PipelineKey::default(),
        }
    }

    /// How many commands were added to a pipeline.
    pub fn pipeline_len(&self, key: PipelineKey) -> usize {
        let pipeline = self.pipelines.get(key);
        pipeline.map_or(0, |pipeline| pipeline.commands.len())
    }

    /// Adds a command, whose result is wanted in a form. A refused one takes a place in the results
    /// and does not affect the others.
    ///
    /// # Errors
    ///
    /// It was refused, or there is no memory for it.
    pub fn add_command(
        &mut self,
        key: PipelineKey,
        form: u8,
        command: &Command<'_>,
    ) -> Result<(), Rejected> {
        fault::point();
        let Some(CommandPipeline {
            batch, commands, ..
        }) = self.pipelines.get_mut(key)
        else {
            return Ok(());
        };
        commands.try_reserve(1).map_err(|_| Error::NoMemory)?;
        match batch.push(command) {
            Ok(()) => {
                let escaped = command.escapes();
                commands.push(Queued::Command { form, escaped });
            }
            Err(refused) => {
                commands.push(Queued::Refused(form, refused.clone()));
                return Err(Rejected::Refused(refused));
            }
        }
        Ok(())
    }

    /// Refuses those commands of a pipeline that a server does not support.
    pub fn restrict_pipeline(&mut self, key: PipelineKey, server: Server) {
        let Some(CommandPipeline {
            batch, commands, ..
        }) = self.pipelines.get_mut(key)
        else {
            return;
        };
        let mut sent = 0;
        let mut commands = commands.iter_mut();
        batch.drop_unsupported(server, |slot, refused| {
            // each command that is sent has a reply
            let place = commands.find(|queued| {
                let is_sent = matches!(queued, Queued::Command { .. });
                sent += usize::from(is_sent);
                is_sent && sent == slot + 1
            });
            if let Some(place) = place
                && let Queued::Command { form, .. } = *place
            {
                *place = Queued::Refused(form, refused);
            }
        });
    }

    /// Ends a pipeline.
    pub fn take_pipeline(&mut self, key: PipelineKey) -> CommandPipeline {
        self.pipelines.remove(key).unwrap_or_default()
    }

    /// Stores a pipeline, and returns its key. `None` if there is no memory.
    pub fn put_pipeline(&mut self, pipeline: CommandPipeline) -> Option<PipelineKey> {
        self.pipelines.try_reserve(1).ok()?;
        Some(self.pipelines.insert(pipeline))
    }

    /// Takes the commands out of a pipeline, until [`Self::give_pipeline_back`].
    pub fn lend_pipeline(&mut self, key: PipelineKey) -> CommandPipeline {
        let pipeline = self.pipelines.get_mut(key);
        pipeline.map(std::mem::take).unwrap_or_default()
    }

    /// Puts back what [`Self::lend_pipeline`] has taken out.
    pub fn give_pipeline_back(&mut self, key: PipelineKey, lent: CommandPipeline) {
        if let Some(pipeline) = self.pipelines.get_mut(key) {
            *pipeline = lent;
        }
    }
}
