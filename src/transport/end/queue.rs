//! Operations that wait for room on shared connections.

use crate::nginx;
use crate::transport::error::{Error, Rejected};
use crate::transport::ids::{OpKey, SharedPoolKey};
use crate::transport::state::op::Stage;
use crate::transport::state::outcome::Commands;
use crate::transport::state::postponed::Postponed;
use crate::transport::worker::Worker;

impl Worker {
    /// Those who wait for room get what there is.
    #[inline(always)]
    pub fn serve_queue(&mut self, shared_key: SharedPoolKey) {
        let shared_pool = self.shared_pools.get(shared_key);
        if shared_pool.is_some_and(|shared_pool| !shared_pool.usage.queue.is_empty()) {
            self.serve_all(shared_key);
        }
    }

    #[cold]
    pub fn serve_all(&mut self, shared_key: SharedPoolKey) {
        while let Some(shared_pool) = self.shared_pools.get(shared_key)
            && let Some(op) = shared_pool.usage.next().copied()
        {
            let key = self.waiter_of(op);
            let session = key.and_then(|key| self.sessions.get(key));
            if !session.is_some_and(|session| session.waits_for(op)) {
                // its light thread was killed
                self.take_from_queue(shared_key, op);
                continue;
            }
            if nginx::is_scarce() && self.opens_for_next(shared_key) && self.lacks_room() {
                return self.postpone(Postponed::Room(shared_key));
            }
            let connection = match self.connection_for_batch(shared_key, key, true) {
                Ok(Some(connection)) => connection,
                Ok(None) => return,
                Err(error) => return self.refuse_queue(shared_key, &error),
            };
            let stage = self.take_from_queue(shared_key, op);
            let (Some(Stage::RoomQueue { batch, .. }), Some(key)) = (stage, key) else {
                continue;
            };
            let commands = Commands::Batch(&batch);
            let put = match self.put_on_connection(op, key, connection, commands) {
                Err(rejected) => self.put_on_knowing(op, key, connection, commands, rejected),
                put => put,
            };
            match put {
                Ok(_) => {}
                // the connection to the server that it was meant for is lost
                Err(Rejected::Refused(_)) => self.fail_op(op, &Error::Closed, false),
                Err(Rejected::Failed(_)) => self.fail_op(op, &Error::Unknown, false),
            }
        }
    }

    /// Those who wait for room get none: no connection can be opened.
    pub fn refuse_queue(&mut self, shared_key: SharedPoolKey, error: &Error) {
        while let Some(shared_pool) = self.shared_pools.get_mut(shared_key)
            && let Some(op) = shared_pool.usage.queue.first_of_all().copied()
        {
            self.take_from_queue(shared_key, op);
            self.fail_op(op, error, false);
        }
    }

    /// Takes an operation out of the queue. Where it was.
    pub fn take_from_queue(&mut self, shared_pool: SharedPoolKey, op: OpKey) -> Option<Stage> {
        if let Some(shared_pool) = self.shared_pools.get_mut(shared_pool) {
            shared_pool.usage.queue.drop_first(&op);
        }
        let op = self.ops.get_mut(op)?;
        Some(std::mem::replace(&mut op.stage, Stage::New))
    }
}
