//! How many operations there may be, and those that wait for room.

use super::Waits;
use crate::nginx;
use crate::protocol::Batch;
use crate::transport::Error;
use crate::transport::op::{Begun, Op, Work};
use crate::transport::room::Errand;
use crate::transport::session::State;
use crate::transport::submit::{Rejected, What};
use crate::transport::worker::{SessionKey, TrunkKey, Worker};
use crate::upstream::Bounds;

impl Worker {
    /// Whether a trunk takes a session's operation now, and nobody who waits
    /// comes first.
    pub(super) fn has_turn(&self, key: SessionKey, trunk: TrunkKey) -> bool {
        let (Some(session), Some(trunk)) = (self.sessions.get(key), self.trunks.get(trunk)) else {
            return false;
        };
        let first = trunk.queue.is_empty()
            || !trunk.queue.has(session.bounds) && trunk.next_in_queue().is_none();
        first && trunk.has_room(session.bounds)
    }

    /// Has an operation wait for room, if its session may, or for connections.
    pub(super) fn queue_up(
        &mut self,
        key: SessionKey,
        trunk_key: TrunkKey,
        what: What<'_>,
    ) -> Result<Begun, Rejected> {
        let session = self.sessions.get(key).ok_or(Error::Closed)?;
        let trunk = self.trunks.get(trunk_key).ok_or(Error::Closed)?;
        let bounds = session.bounds;
        // what waits for room is bounded for itself
        let backlog = Bounds {
            operations: session.backlog.unwrap_or(0),
            ..bounds
        };
        let may_wait = backlog.allow(trunk.queue.len(), trunk.queue.size());
        if !may_wait && !trunk.has_room(bounds) {
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
        let size = batch.text_len();
        let op = self.new_op(Work::Queued(Box::new((batch, work))))?;
        let trunk = self.trunks.get_mut(trunk_key);
        let spot = trunk.and_then(|trunk| trunk.queue.try_push_back(key, bounds, size));
        let (Some(spot), Some(session)) = (spot, self.sessions.get_mut(key)) else {
            self.semaphores.give(op.into_semaphore());
            return Err(Error::NoMemory.into());
        };
        session.reader = Some(op);
        session.waits = Some(Waits::Queued(spot));
        self.set_operation_deadline(key);
        Ok(Begun::Waiting)
    }

    /// Those who wait for room get what there is.
    pub(in crate::transport) fn serve_queue(&mut self, trunk_key: TrunkKey) {
        while let Some(trunk) = self.trunks.get(trunk_key)
            && let Some(first) = trunk.next_in_queue()
        {
            let op = self.sessions.get(first).and_then(|s| s.reader.as_ref());
            if op.is_none_or(Op::is_abandoned) {
                // its light thread was killed
                self.disconnect(first, State::Closed);
                self.drop_from_queue(trunk_key, first);
                continue;
            }
            if nginx::is_scarce() && self.opens_for_next(trunk_key) && self.lacks_room() {
                return self.wait_for_room(Errand::Queue(trunk_key));
            }
            let link = match self.batch_link(trunk_key, Some(first), true) {
                Ok(Some(link)) => link,
                Ok(None) => return,
                Err(error) => return self.refuse_queue(trunk_key, &error),
            };
            self.stop_waiting(first, trunk_key);
            self.drop_from_queue(trunk_key, first);
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
            && let Some(key) = trunk.queue.first_of_all().copied()
        {
            self.finish_failed(key, error);
            self.drop_from_queue(trunk_key, key);
        }
    }

    /// A session that is not there any more, or was served, is not at the head
    /// of the queue either.
    fn drop_from_queue(&mut self, trunk: TrunkKey, key: SessionKey) {
        if let Some(trunk) = self.trunks.get_mut(trunk) {
            trunk.queue.drop_first(&key);
        }
    }

    /// A session does not wait for a connection, or for room, any more.
    pub(super) fn stop_waiting(&mut self, key: SessionKey, trunk: TrunkKey) {
        let session = self.sessions.get_mut(key);
        let waits = session.and_then(|session| session.waits.take());
        if let (Some(waits), Some(trunk)) = (waits, self.trunks.get_mut(trunk)) {
            match waits {
                Waits::Joining(place) => trunk.joining.remove(place),
                Waits::Queued(spot) => trunk.queue.remove(spot),
            };
        }
    }
}
