//! How many operations there may be, and those that wait for room.

use super::{Trunk, Waits};
use crate::nginx;
use crate::protocol::Batch;
use crate::transport::Error;
use crate::transport::op::{Begun, Op, Work};
use crate::transport::room::Errand;
use crate::transport::session::State;
use crate::transport::submit::{Rejected, What};
use crate::transport::worker::{SessionKey, TrunkKey, Worker};

impl Worker {
    /// Whether a trunk takes a further operation now.
    pub(super) fn has_room(&self, trunk: TrunkKey) -> bool {
        let Some(trunk) = self.trunks.get(trunk) else {
            return false;
        };
        let (mut operations, mut size) = (0, 0);
        for link in trunk.links.iter().filter_map(|link| self.links.get(*link)) {
            operations += link.pipeline.in_flight() + link.followers();
            size += link.pipeline.unsent_len();
        }
        operations < trunk.multiplex.max_operations && size < trunk.multiplex.max_size
    }

    /// Has an operation wait for room, if its session may.
    pub(super) fn queue_up(
        &mut self,
        key: SessionKey,
        trunk_key: TrunkKey,
        what: What<'_>,
    ) -> Result<Begun, Rejected> {
        let room = self.has_room(trunk_key);
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let trunk = self.trunks.get(trunk_key).ok_or(Error::Closed)?;
        let most = match session.backlog {
            // it is the connections that are missing
            _ if room => trunk.multiplex.max_operations,
            backlog => backlog.unwrap_or(0),
        };
        if trunk.queue.len() >= most {
            return Err(Error::TooManyOperations.into());
        }
        let (batch, work) = match what {
            What::Command(command) => {
                let mut batch = Batch::new();
                batch.push(command).map_err(Rejected::Refused)?;
                (batch, Work::Command)
            }
            What::Batch(batch) => {
                let copy = batch.try_clone().ok_or(Error::NoMemory)?;
                (copy, Work::pipeline(batch)?)
            }
        };
        let op = self.new_op(Work::Queued(Box::new((batch, work))))?;
        let trunk = self.trunks.get_mut(trunk_key);
        let place = trunk.and_then(|trunk| trunk.queue.try_push_back(key));
        let (Some(place), Some(session)) = (place, self.sessions.get_mut(key)) else {
            self.semaphores.give(op.into_semaphore());
            return Err(Error::NoMemory.into());
        };
        session.reader = Some(op);
        session.waits = Some(Waits::Queued(place));
        self.set_operation_deadline(key);
        Ok(Begun::Waiting)
    }

    /// Those who wait for room get what there is.
    pub(in crate::transport) fn serve_queue(&mut self, trunk_key: TrunkKey) {
        let queued = |trunk: &Trunk| !trunk.queue.is_empty();
        while self.trunks.get(trunk_key).is_some_and(queued) && self.has_room(trunk_key) {
            let trunk = self.trunks.get(trunk_key);
            let Some(first) = trunk.and_then(|trunk| trunk.queue.front().copied()) else {
                return;
            };
            let op = self.sessions.get(first).and_then(|s| s.reader.as_ref());
            if op.is_none_or(Op::is_abandoned) {
                // its light thread was killed
                self.disconnect(first, State::Closed);
                if let Some(trunk) = self.trunks.get_mut(trunk_key)
                    && trunk.queue.front() == Some(&first)
                {
                    trunk.queue.pop_front();
                }
                continue;
            }
            if nginx::is_scarce() && self.opens_for_batch(trunk_key) && self.lacks_room() {
                return self.wait_for_room(Errand::Queue(trunk_key));
            }
            let link = match self.batch_link(trunk_key, Some(first), true) {
                Ok(Some(link)) => link,
                Ok(None) => return,
                Err(error) => return self.refuse_queue(trunk_key, &error),
            };
            self.stop_waiting(first, trunk_key);
            let session = self.sessions.get_mut(first);
            let op = session.and_then(|session| session.reader.as_mut());
            if let Some(batch) = op.and_then(Op::unqueue)
                && self.put_on_link(first, link, What::Batch(&batch)).is_err()
            {
                self.finish_failed(first, &Error::Unknown);
            }
        }
    }

    /// Those who wait for room get none: no connection can be opened.
    pub(super) fn refuse_queue(&mut self, trunk_key: TrunkKey, error: &Error) {
        while let Some(trunk) = self.trunks.get_mut(trunk_key)
            && let Some(key) = trunk.queue.pop_front()
        {
            self.finish_failed(key, error);
        }
    }

    /// A session does not wait for a connection, or for room, any more.
    pub(super) fn stop_waiting(&mut self, key: SessionKey, trunk: TrunkKey) {
        let session = self.sessions.get_mut(key);
        let waits = session.and_then(|session| session.waits.take());
        if let (Some(waits), Some(trunk)) = (waits, self.trunks.get_mut(trunk)) {
            match waits {
                Waits::Joining(place) => trunk.joining.remove(place),
                Waits::Queued(place) => trunk.queue.remove(place),
            };
        }
    }
}
