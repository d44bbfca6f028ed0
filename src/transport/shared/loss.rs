//! Shared connections that fail: who loses what, and what goes elsewhere.

use super::io::waiting;
use crate::fault;
use crate::nginx::{self, Msec};
use crate::protocol::Pipeline;
use crate::transport::Error;
use crate::transport::link::{Owner, Tag};
use crate::transport::room::Errand;
use crate::transport::session::State;
use crate::transport::worker::{LinkKey, SessionKey, TrunkKey, Worker};

/// How long no further connection is tried after one that failed, in
/// milliseconds.
pub(super) const RETRY_DELAY: Msec = 1000;

/// Commands of which nothing was sent, whose shared connection is lost.
pub(in crate::transport) struct Moved {
    trunk: TrunkKey,
    pipeline: Pipeline<Tag>,
    /// Who else gets the reply to an exchange, by its number.
    followers: Vec<(u64, Vec<Tag>)>,
    /// Why it was lost.
    error: Error,
}

impl Worker {
    /// A shared connection failed: those whose commands were sent, in part at
    /// least, get the error. The others go to another connection.
    pub(super) fn fail_shared(&mut self, key: LinkKey, error: Error) {
        let Some(mut link) = self.links.remove(key) else {
            return;
        };
        let Owner::Trunk { trunk, connecting } = link.owner else {
            return;
        };
        if let Some(trunk) = self.trunks.get_mut(trunk) {
            if connecting {
                trunk.retry_at = nginx::now().saturating_add(RETRY_DELAY);
            }
            trunk.links.retain(|other| *other != key);
            if trunk.current == Some(key) {
                trunk.current = None;
            }
            if trunk.links.is_empty() {
                trunk.served = 0;
                trunk.plain = false;
            }
        }
        let last_resort = link.sharing.as_ref().is_some_and(|s| s.last_resort);
        let can_move = !connecting && !last_resort;
        let moved = can_move.then(|| link.pipeline.split_unsent()).flatten();
        let moved = moved.filter(|moved| moved.in_flight() > 0);
        let writing = !link.pipeline.unsent().is_empty();
        // to those who have given it commands, it was connected
        let error = match error {
            Error::Os(_) if connecting => Error::Closed,
            error => error,
        };
        let mut lost: Vec<Tag> = link.pipeline.tags().collect();
        let kept_from = moved.as_ref().map_or(u64::MAX, |moved| moved.oldest());
        let mut kept = Vec::new();
        if let Some(sharing) = &mut link.sharing {
            for (number, followers) in sharing.followers.drain() {
                if number < kept_from {
                    lost.extend(followers);
                } else {
                    kept.push((number, followers));
                }
            }
        }
        drop(link);
        fault::point();
        for tag in lost {
            self.lose(tag, &error, writing);
        }
        if let Some(pipeline) = moved {
            self.move_on(Moved {
                trunk,
                pipeline,
                followers: kept,
                error: error.clone(),
            });
        }
        let last = self.trunks.get(trunk).is_some_and(|t| t.links.is_empty());
        if connecting && last {
            self.refuse_queue(trunk, &error);
        } else if !connecting {
            self.serve_queue(trunk);
        }
        self.drop_unused_trunk(trunk);
    }

    /// An operation fails with the connection it was on.
    fn lose(&mut self, tag: Tag, error: &Error, writing: bool) {
        fault::point();
        let Some(session) = waiting(&mut self.sessions, tag) else {
            return;
        };
        if let Some(op) = &mut session.reader {
            op.fail(error.clone(), writing);
        }
        self.end_broken(tag.session);
    }

    /// The operation of a session fails; so is its connection, to Lua.
    pub(super) fn finish_failed(&mut self, key: SessionKey, error: &Error) {
        if let Some(op) = self.sessions.get_mut(key).and_then(|s| s.reader.as_mut()) {
            op.fail(error.clone(), false);
        }
        self.end_broken(key);
    }

    fn end_broken(&mut self, key: SessionKey) {
        self.clear_deadline(key);
        let Some(session) = self.sessions.get_mut(key) else {
            return;
        };
        if let State::Attached { trunk, reused, .. } = session.state {
            session.state = State::Broken { reused };
            session.serial += 1;
            if let Some(trunk) = self.trunks.get_mut(trunk) {
                trunk.users = trunk.users.saturating_sub(1);
                trunk.queue.retain(|queued| *queued != key);
            }
        }
    }

    /// Exchanges of which nothing was sent go to a new connection, or are lost.
    pub(in crate::transport) fn move_on(&mut self, moved: Moved) {
        if self.lacks_room() {
            return self.wait_for_room(Errand::Moved(Box::new(moved)));
        }
        let Moved {
            trunk,
            pipeline,
            followers,
            error,
        } = moved;
        let tags: Vec<Tag> = pipeline
            .tags()
            .chain(followers.iter().flat_map(|f| f.1.clone()))
            .collect();
        if self.move_to_new_link(trunk, pipeline, followers).is_err() {
            for tag in tags {
                self.lose(tag, &error, true);
            }
            self.drop_unused_trunk(trunk);
        }
    }

    fn move_to_new_link(
        &mut self,
        trunk: TrunkKey,
        pipeline: Pipeline<Tag>,
        followers: Vec<(u64, Vec<Tag>)>,
    ) -> Result<(), Error> {
        let tags = pipeline
            .tags()
            .chain(followers.iter().flat_map(|f| f.1.clone()));
        let alive: Vec<Tag> = tags
            .filter(|tag| waiting(&mut self.sessions, *tag).is_some())
            .collect();
        let first = alive.first().ok_or(Error::Closed)?;
        let session = self.sessions.get(first.session).ok_or(Error::Closed)?;
        let request = session.request().ok_or(Error::Closed)?;
        let timeout = session.connect_timeout();
        let key = self.open_shared(trunk, request, timeout)?;
        for tag in alive {
            if let Some(session) = self.sessions.get_mut(tag.session)
                && let State::Attached {
                    flight: Some(flight),
                    ..
                } = &mut session.state
            {
                flight.link = key;
            }
        }
        if let Some(link) = self.links.get_mut(key) {
            link.pipeline = pipeline;
            link.set_busy(true);
            if let Some(sharing) = &mut link.sharing {
                sharing.following = followers.iter().map(|(_, tags)| tags.len()).sum();
                sharing.followers.extend(followers);
                sharing.last_resort = true;
            }
        }
        self.flush_shared(key);
        Ok(())
    }
}
