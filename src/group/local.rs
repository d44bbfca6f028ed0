//! A group whose list nginx does not know, e.g. one that was discovered: failures are counted here,
//! as nginx would.

use std::collections::TryReserveError;
use std::rc::Rc;

use super::choice::{Choice, Group, Policy};
use super::health::{Failure, Health};
use super::peer::{Peer, predecessors, vanished};
use crate::distribution::BuildError;

/// A group with what is counted for its servers.
#[derive(Debug)]
pub struct Local {
    group: Rc<Group>,
    /// Of each of the group's servers.
    states: Vec<Health>,
    /// A server that has not failed.
    fresh: Health,
}

impl Local {
    /// A group of these servers. `fresh` has their limits.
    ///
    /// # Errors
    ///
    /// As [`Group::new`].
    pub fn new(policy: Policy, list: Vec<Peer>, fresh: Health) -> Result<Local, BuildError> {
        let group = Rc::new(Group::new(policy, list)?);
        let mut states = Vec::new();
        states.try_reserve_exact(group.peers().len())?;
        states.resize(group.peers().len(), fresh);
        Ok(Local {
            group,
            states,
            fresh,
        })
    }

    /// The servers.
    pub fn group(&self) -> &Rc<Group> {
        &self.group
    }

    /// What is known of them.
    pub fn states(&self) -> &[Health] {
        &self.states
    }

    /// The server for a key, as [`Group::choose`]; a trial is written down.
    pub fn choose(&mut self, key: &[u8], now: i64, tried: &[usize]) -> Option<Choice> {
        let choice = self.group.choose(key, now, tried, &self.states[..])?;
        if choice.suspect
            && let Some(state) = self.states.get_mut(choice.peer)
        {
            state.choose(now);
        }
        Some(choice)
    }

    /// The servers for the keys of one operation, as [`Group::choose_all`].
    ///
    /// # Errors
    ///
    /// If there is no memory.
    pub fn choose_all(
        &mut self,
        keys: impl ExactSizeIterator<Item = impl AsRef<[u8]>>,
        now: i64,
        tried: &[usize],
        choices: &mut Vec<Option<Choice>>,
    ) -> Result<(), TryReserveError> {
        self.group
            .choose_all(keys, now, tried, &self.states[..], choices)?;
        for choice in choices.iter().flatten().filter(|choice| choice.suspect) {
            if let Some(state) = self.states.get_mut(choice.peer) {
                state.choose(now);
            }
        }
        Ok(())
    }

    /// An operation with this server failed.
    pub fn fail(&mut self, peer: &Peer, now: i64) -> Failure {
        self.state(peer)
            .map_or(Failure::Counted, |state| state.fail(now))
    }

    /// An operation with this server was answered. True if it was disabled and is used again.
    pub fn succeed(&mut self, peer: &Peer) -> bool {
        self.state(peer).is_some_and(Health::succeed)
    }

    /// As [`Health::give_back`].
    pub fn give_back(&mut self, peer: &Peer, trial: i64) {
        if let Some(state) = self.state(peer) {
            state.give_back(trial);
        }
    }

    /// A check found this server in order. True if it was disabled.
    pub fn revive(&mut self, peer: &Peer) -> bool {
        self.state(peer).is_some_and(Health::revive)
    }

    /// That of a server, unless it is the only one: as nginx, which counts nothing for that.
    fn state(&mut self, peer: &Peer) -> Option<&mut Health> {
        let single = self.group.is_single();
        let at = self.group.peers().iter().position(|known| known == peer)?;
        self.states.get_mut(at).filter(|_| !single)
    }

    /// Puts another list in place. Servers that stay keep what was counted for them. Returns those
    /// whose address is gone.
    ///
    /// # Errors
    ///
    /// As [`Group::new`]; then the old list stays.
    pub fn replace(&mut self, list: Vec<Peer>) -> Result<Vec<Peer>, BuildError> {
        let mut next = Local::new(self.group.policy(), list, self.fresh)?;
        let (old, new) = (self.group.peers(), next.group.peers());
        let kept = predecessors(old, new)?;
        for (state, was) in next.states.iter_mut().zip(kept) {
            if let Some(known) = was.and_then(|was| self.states.get(was)) {
                *state = *known;
            }
        }
        let gone = vanished(old, new)?;
        let gone = gone.into_iter().filter_map(|at| old.get(at).cloned());
        let gone = gone.collect();
        *self = next;
        Ok(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::{Method, Scheme};
    use crate::group::Failover;

    fn list(names: &[&str]) -> Vec<Peer> {
        let peer = |name: &&str| Peer::new(&format!("{name}:11211"), name, false);
        names.iter().map(peer).collect()
    }

    fn local(names: &[&str]) -> Local {
        let policy = Policy {
            method: Method::of(Scheme::Ketama),
            failover: Failover::Off,
            trials: true,
        };
        Local::new(policy, list(names), Health::new(1, 10)).unwrap()
    }

    /// A key of this server.
    fn key_of(local: &mut Local, peer: usize) -> String {
        (0..1000)
            .map(|n| format!("key:{n}"))
            .find(|key| local.choose(key.as_bytes(), 0, &[]).unwrap().peer == peer)
            .unwrap()
    }

    #[test]
    fn failures_and_one_trial() {
        let mut local = local(&["a", "b", "c"]);
        let key = key_of(&mut local, 1);
        let choose = |local: &mut Local, now| local.choose(key.as_bytes(), now, &[]);
        let peer = local.group().peers()[1].clone();
        assert_eq!(local.fail(&peer, 100), Failure::Disabled);
        assert!(local.states()[1].is_disabled() && !local.states()[0].is_disabled());
        assert_eq!(choose(&mut local, 110), None);
        assert!(choose(&mut local, 111).unwrap().suspect);
        assert_eq!(choose(&mut local, 111), None);
        local.give_back(&peer, 111);
        assert!(choose(&mut local, 111).unwrap().suspect);
        assert_eq!(choose(&mut local, 111), None);
        assert!(local.succeed(&peer));
        assert!(!choose(&mut local, 111).unwrap().suspect);
        local.fail(&peer, 120);
        assert!(local.revive(&peer) && !local.revive(&peer));
        assert!(choose(&mut local, 120).is_some());
        assert_eq!(local.fail(&list(&["d"])[0], 100), Failure::Counted);
        assert!(!local.succeed(&list(&["d"])[0]));
    }

    #[test]
    fn keys_of_one_operation_share_a_trial() {
        let mut local = local(&["a", "b", "c"]);
        let keys: Vec<_> = (0..30).map(|n| format!("key:{n}")).collect();
        let all = || keys.iter().map(String::as_bytes);
        let peer = local.group().peers()[1].clone();
        let (mut before, mut after) = (Vec::new(), Vec::new());
        local.choose_all(all(), 100, &[], &mut before).unwrap();
        assert!(before.len() == 30 && before.iter().all(Option::is_some));
        local.fail(&peer, 100);
        local.choose_all(all(), 111, &[], &mut after).unwrap();
        let servers = |choices: &[Option<Choice>]| -> Vec<_> {
            choices
                .iter()
                .map(|choice| choice.map(|choice| choice.peer))
                .collect()
        };
        assert_eq!(servers(&after), servers(&before));
        // the next one has none
        local.choose_all(all(), 111, &[], &mut after).unwrap();
        for (was, is) in servers(&before).into_iter().zip(servers(&after)) {
            assert_eq!(is, was.filter(|peer| *peer != 1));
        }
        // nor has one that could not connect to another
        local.choose_all(all(), 111, &[2], &mut after).unwrap();
        for (was, is) in servers(&before).into_iter().zip(servers(&after)) {
            assert_eq!(is, was.filter(|peer| *peer == 0));
        }
    }

    #[test]
    fn a_list_that_changes() {
        let mut local = local(&["a", "b", "c"]);
        let b = local.group().peers()[1].clone();
        local.fail(&b, 100);
        let gone = local.replace(list(&["d", "b", "c"])).unwrap();
        assert_eq!(gone, list(&["a"]));
        let disabled: Vec<_> = local.states().iter().map(Health::is_disabled).collect();
        assert_eq!(disabled, [false, true, false]);
        // one that comes back is new
        local.replace(list(&["c", "d"])).unwrap();
        local.replace(list(&["b", "c", "d"])).unwrap();
        assert!(!local.states()[0].is_disabled());
        // what cannot be used changes nothing
        let mut bad = list(&["x", "y"]);
        bad[0].weight = 0;
        assert!(local.replace(bad).is_err());
        assert_eq!(local.group().peers(), list(&["b", "c", "d"]));
    }

    #[test]
    fn the_only_server_is_never_disabled() {
        let mut local = local(&["a"]);
        let peer = local.group().peers()[0].clone();
        assert_eq!(local.fail(&peer, 100), Failure::Counted);
        assert!(local.choose(b"k", 100, &[]).is_some());
        assert!(!local.states()[0].is_disabled());
    }
}
