//! Failures of a server, counted as nginx counts them for an upstream.

/// What nginx keeps of a server. Times are seconds of any one clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    /// Taken out by the configuration or by hand.
    pub down: bool,
    /// Failures without a success since.
    pub fails: usize,
    /// When it failed last.
    pub accessed: i64,
    /// When it failed or was tried last.
    pub checked: i64,
    /// `max_fails`; 0: never disabled.
    pub max_fails: usize,
    /// `fail_timeout`
    pub fail_timeout: i64,
}

/// What a failure led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// It is counted.
    Counted,
    /// The server is disabled from now on, or still after the one trial that its `fail_timeout`
    /// allows. To be logged.
    Disabled,
}

impl Health {
    /// A server that has not failed.
    pub fn new(max_fails: usize, fail_timeout: i64) -> Health {
        Health {
            down: false,
            fails: 0,
            accessed: 0,
            checked: 0,
            max_fails,
            fail_timeout,
        }
    }

    /// Whether it has failed too often. Then it gets nothing but trials.
    pub fn is_disabled(&self) -> bool {
        self.max_fails > 0 && self.fails >= self.max_fails
    }

    /// Whether commands may go to it. `trials`: one may, each `fail_timeout`, while it is disabled.
    pub fn is_usable(&self, now: i64, trials: bool) -> bool {
        !self.down && (!self.is_disabled() || trials && self.is_due(now))
    }

    fn is_due(&self, now: i64) -> bool {
        now.saturating_sub(self.checked) > self.fail_timeout
    }

    /// Whether [`Self::choose`] would change anything that matters.
    pub fn is_trial(&self, now: i64) -> bool {
        self.fails > 0 && self.is_due(now)
    }

    /// A command goes to it.
    pub fn choose(&mut self, now: i64) {
        if self.is_due(now) {
            self.checked = now;
        }
    }

    /// It failed.
    pub fn fail(&mut self, now: i64) -> Failure {
        // others that were under way when it was disabled tell nothing new
        let was_known = self.is_disabled() && self.accessed >= self.checked;
        self.fails = self.fails.saturating_add(1);
        self.accessed = now;
        self.checked = now;
        match self.is_disabled() && !was_known {
            true => Failure::Disabled,
            false => Failure::Counted,
        }
    }

    /// It answered. True if it was disabled and is used again.
    pub fn succeed(&mut self) -> bool {
        let was_disabled = self.is_disabled();
        // a trial was chosen since it failed
        if self.accessed < self.checked {
            self.fails = 0;
        }
        was_disabled && !self.is_disabled()
    }

    /// Since when a trial of a server that failed too often is under way.
    pub fn trial(&self) -> Option<i64> {
        (self.is_disabled() && self.accessed < self.checked).then_some(self.checked)
    }

    /// The trial that began then has no result and never will: another one may be made.
    pub fn give_back(&mut self, trial: i64) {
        if self.trial() == Some(trial) {
            self.checked = self.accessed;
        }
    }

    /// A check from outside found it in order. True if it was disabled.
    pub fn revive(&mut self) -> bool {
        let was_disabled = self.is_disabled();
        self.fails = 0;
        was_disabled
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disabled_for_fail_timeout_then_one_trial() {
        let mut health = Health::new(2, 10);
        assert!(health.is_usable(100, true));
        assert_eq!(health.fail(100), Failure::Counted);
        assert!(health.is_usable(100, true) && !health.is_disabled());
        assert_eq!(health.fail(101), Failure::Disabled);
        assert!(health.is_disabled());
        for now in [101, 105, 111] {
            assert!(!health.is_usable(now, true), "{now}");
            assert!(!health.is_trial(now), "{now}");
        }
        // more than fail_timeout after the last failure
        assert!(health.is_usable(112, true) && health.is_trial(112));
        assert!(!health.is_usable(112, false));
        health.choose(112);
        // one only
        assert!(!health.is_usable(112, true) && !health.is_usable(122, true));
        assert!(health.is_usable(123, true));
    }

    #[test]
    fn a_trial_that_fails_is_told_and_one_that_succeeds_clears() {
        let mut health = Health::new(1, 10);
        assert_eq!(health.fail(100), Failure::Disabled);
        health.choose(111);
        assert_eq!(health.fail(111), Failure::Disabled);
        assert!(!health.is_usable(121, true));
        health.choose(122);
        assert!(health.succeed());
        assert_eq!(health.fails, 0);
        assert!(!health.succeed());
        assert!(health.is_usable(122, true));
    }

    #[test]
    fn a_trial_without_a_result_is_given_back() {
        let mut health = Health::new(1, 10);
        health.fail(100);
        assert_eq!(health.trial(), None);
        health.choose(111);
        assert_eq!(health.trial(), Some(111));
        assert!(!health.is_usable(112, true));
        // another one
        health.give_back(110);
        assert!(!health.is_usable(112, true));
        health.give_back(111);
        assert_eq!(health.trial(), None);
        assert!(health.is_disabled() && health.is_usable(112, true));
        // what answers now was no trial
        assert!(!health.succeed() && health.is_disabled());
        // the next one counts
        health.choose(112);
        assert!(!health.is_usable(112, true));
        assert_eq!(health.fail(113), Failure::Disabled);
        health.give_back(112);
        assert!(!health.is_usable(114, true));
        health.choose(124);
        assert!(health.succeed());
        health.give_back(124);
        assert_eq!((health.fails, health.trial()), (0, None));
    }

    #[test]
    fn others_under_way_are_counted_and_not_told() {
        let mut health = Health::new(1, 10);
        assert_eq!(health.fail(100), Failure::Disabled);
        assert_eq!(health.fail(100), Failure::Counted);
        assert_eq!(health.fail(103), Failure::Counted);
        assert_eq!(health.fails, 3);
        // one that was sent before, and answered after, is no trial
        assert!(!health.succeed());
        assert!(health.is_disabled());
    }

    #[test]
    fn few_failures_are_forgotten_after_fail_timeout() {
        let mut health = Health::new(3, 10);
        health.fail(100);
        health.choose(105);
        assert_eq!(health.checked, 100);
        assert!(!health.succeed());
        assert_eq!(health.fails, 1);
        assert!(health.is_trial(111));
        health.choose(111);
        assert!(!health.succeed());
        assert_eq!(health.fails, 0);
    }

    #[test]
    fn never_disabled_or_down() {
        let mut health = Health::new(0, 10);
        for now in 0..5 {
            assert_eq!(health.fail(now), Failure::Counted);
            assert!(health.is_usable(now, true) && health.is_usable(now, false));
        }
        health.down = true;
        assert!(!health.is_usable(1000, true));
        let unused = Health::new(1, 10);
        assert!(!unused.is_trial(1000));
    }

    #[test]
    fn checks_revive() {
        let mut health = Health::new(1, 10);
        assert!(!health.revive());
        health.fail(100);
        assert!(health.revive());
        assert!(health.is_usable(100, false));
    }

    #[test]
    fn extreme_numbers() {
        let mut health = Health::new(1, i64::MAX);
        health.fail(i64::MIN);
        assert!(!health.is_usable(i64::MAX, true));
        health.fails = usize::MAX;
        health.fail(i64::MAX);
        assert_eq!(health.fails, usize::MAX);
    }
}
