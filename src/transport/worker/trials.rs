//! Trials of disabled servers of `upstream` blocks that are under way in sessions. If the coroutine
//! of one is killed, or its request ends, another one may be made.

use crate::conf::give_back_trial;
use crate::transport::ids::SessionKey;
use crate::transport::state::trial::Trial;
use crate::transport::worker::Worker;

impl Worker {
    /// A trial begins in a session. Without memory it is not noted.
    pub fn note_trial(&mut self, session: SessionKey, upstream: &[u8], server: &[u8], began: i64) {
        self.trials.retain(|trial| trial.session != session);
        if self.trials.try_reserve(1).is_ok() {
            self.trials.push(Trial {
                session,
                upstream: upstream.into(),
                server: server.into(),
                began,
            });
        }
    }

    /// What came of the trials of this server is known.
    pub fn settle_trials(&mut self, upstream: &[u8], server: &[u8]) {
        self.trials
            .retain(|trial| *trial.upstream != *upstream || *trial.server != *server);
    }

    /// A session's trial has no result: another one may be made.
    #[inline(always)]
    pub fn give_trial_back(&mut self, session: SessionKey) {
        if !self.trials.is_empty() {
            self.give_back_trial_of(session);
        }
    }

    #[cold]
    fn give_back_trial_of(&mut self, session: SessionKey) {
        let mut all = self.trials.iter();
        if let Some(at) = all.position(|trial| trial.session == session) {
            let trial = self.trials.swap_remove(at);
            give_back_trial(&trial.upstream, &trial.server, trial.began);
        }
    }
}
