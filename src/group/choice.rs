//! The server for a key.

use std::collections::TryReserveError;
use std::collections::hash_map::{Entry, HashMap};

use super::failover::{Failover, bounded_exptime};
use super::health::Health;
use super::peer::Peer;
use crate::distribution::{BuildError, MAX_MEMBERS, Member, Method, Table};

/// What is known of the servers of a group at the moment.
pub trait States {
    /// That of the group's peer with this index.
    fn health(&self, peer: usize) -> Health;
}

/// For lists that nginx does not know.
impl States for [Health] {
    fn health(&self, peer: usize) -> Health {
        let unknown = || Health {
            down: true,
            ..Health::new(0, 0)
        };
        self.get(peer).copied().unwrap_or_else(unknown)
    }
}

/// How the servers of a group are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How keys are distributed.
    pub method: Method,
    /// What becomes of the keys of a server that is down.
    pub failover: Failover,
    /// Whether a disabled server gets a user's operation each `fail_timeout`. If not, only checks
    /// find out that it is there again.
    pub trials: bool,
}

/// The server for a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its index.
    pub peer: usize,
    /// It is a backup server, and what is stored there lives at most so many seconds.
    pub gutter: Option<u32>,
    /// It has failed before: what [`Health::choose`] changes is to be stored before another
    /// operation chooses, and its success is to be told.
    pub suspect: bool,
}

impl Choice {
    /// The exptime with which a value is stored there. `now` is a time of the epoch.
    pub fn exptime(&self, exptime: i64, now: i64) -> i64 {
        match self.gutter {
            Some(limit) => bounded_exptime(exptime, limit, now),
            None => exptime,
        }
    }
}

/// A list of servers as it was at one moment, ready to be asked.
#[derive(Debug)]
pub struct Group {
    policy: Policy,
    peers: Vec<Peer>,
    primary: Option<Half>,
    backup: Option<Half>,
}

/// The primary servers, or the backup servers.
#[derive(Debug)]
struct Half {
    table: Table,
    /// The peers of each server of the table: more than one where a name has several addresses.
    peers: Vec<Vec<usize>>,
}

impl Group {
    /// A group of these servers, in the order of the configuration.
    ///
    /// # Errors
    ///
    /// If the list is not for the method, or there is no memory. An empty list is a group that has
    /// no server for any key.
    pub fn new(policy: Policy, peers: Vec<Peer>) -> Result<Group, BuildError> {
        if peers.len() > MAX_MEMBERS {
            return Err(BuildError::TooMany);
        }
        Ok(Group {
            primary: Half::new(policy.method, &peers, false)?,
            backup: Half::new(policy.method, &peers, true)?,
            policy,
            peers,
        })
    }

    /// How its servers are used.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Its servers; what is called a peer's index is the index in these.
    pub fn peers(&self) -> &[Peer] {
        &self.peers
    }

    /// Whether there is only one server. nginx counts no failures of it, hence never disables it.
    pub fn is_single(&self) -> bool {
        self.peers.len() == 1
    }

    /// The server for a key. `tried` are those to which the operation could not connect. `None`: no
    /// live upstreams.
    pub fn choose(
        &self,
        key: &[u8],
        now: i64,
        tried: &[usize],
        states: &(impl States + ?Sized),
    ) -> Option<Choice> {
        let usable = |peer: usize| {
            if tried.contains(&peer) {
                return false;
            }
            let health = states.health(peer);
            match self.is_single() {
                true => !health.down,
                false => health.is_usable(now, self.policy.trials),
            }
        };
        let home = self
            .primary
            .as_ref()
            .and_then(|half| half.home(key, usable));
        let next = |half: &Option<Half>| half.as_ref().and_then(|half| half.next(key, usable));
        let (peer, gutter) = match (home, self.policy.failover) {
            (Some(peer), _) => (peer, None),
            (None, Failover::Off) => return None,
            (None, Failover::Next) => {
                let peer = next(&self.primary).or_else(|| next(&self.backup))?;
                (peer, None)
            }
            (None, Failover::Backup { exptime }) => (next(&self.backup)?, Some(exptime)),
        };
        Some(Choice {
            peer,
            gutter,
            suspect: !self.is_single() && states.health(peer).fails > 0,
        })
    }
}

impl Group {
    /// The servers for the keys of one operation, in their order. Keys of a server that gets a
    /// trial go there together. `tried` as for [`Self::choose`].
    ///
    /// # Errors
    ///
    /// If there is no memory.
    pub fn choose_all(
        &self,
        keys: impl ExactSizeIterator<Item = impl AsRef<[u8]>>,
        now: i64,
        tried: &[usize],
        states: &(impl States + ?Sized),
        choices: &mut Vec<Option<Choice>>,
    ) -> Result<(), TryReserveError> {
        choices.clear();
        choices.try_reserve(keys.len())?;
        choices.extend(keys.map(|key| self.choose(key.as_ref(), now, tried, states)));
        Ok(())
    }
}

impl Half {
    /// `None` if there are no such servers.
    fn new(method: Method, peers: &[Peer], backup: bool) -> Result<Option<Half>, BuildError> {
        let wanted = || (0..).zip(peers).filter(|(_, peer)| peer.backup == backup);
        let count = wanted().count();
        if count == 0 {
            return Ok(None);
        }
        let mut members = Vec::<Member<'_>>::new();
        let mut peers_of = Vec::<Vec<usize>>::new();
        let mut known = HashMap::new();
        members.try_reserve_exact(count)?;
        peers_of.try_reserve_exact(count)?;
        known.try_reserve(count)?;
        for (at, peer) in wanted() {
            let of_its_own = method.tells_addresses_apart().then_some(at);
            match known.entry((&*peer.server, of_its_own)) {
                Entry::Vacant(entry) => {
                    entry.insert(members.len());
                    members.push(Member {
                        server: &peer.server,
                        weight: peer.weight,
                    });
                    let mut list = Vec::new();
                    list.try_reserve_exact(1)?;
                    list.push(at);
                    peers_of.push(list);
                }
                Entry::Occupied(entry) => {
                    if let Some(member) = members.get_mut(*entry.get()) {
                        member.weight = member.weight.max(peer.weight);
                    }
                    if let Some(list) = peers_of.get_mut(*entry.get()) {
                        list.try_reserve(1)?;
                        list.push(at);
                    }
                }
            }
        }
        Ok(Some(Half {
            table: Table::new(method, &members)?,
            peers: peers_of,
        }))
    }

    /// The first usable address of a server of the table.
    fn first(&self, member: usize, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let mut peers = self.peers.get(member)?.iter().copied();
        peers.find(|peer| usable(*peer))
    }

    fn home(&self, key: &[u8], usable: impl Fn(usize) -> bool) -> Option<usize> {
        self.first(self.table.home(key), usable)
    }

    /// The first usable server in the key's order.
    fn next(&self, key: &[u8], usable: impl Fn(usize) -> bool + Copy) -> Option<usize> {
        // one that is usable may have no point on the ring
        let any = self
            .peers
            .iter()
            .flatten()
            .copied()
            .find(|at| usable(*at))?;
        let mut found = None;
        self.table.find(key, |member| {
            found = self.first(member, usable);
            found.is_some()
        });
        found.or(Some(any))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::distribution::Scheme;

    fn policy(scheme: Scheme, failover: Failover) -> Policy {
        Policy {
            method: Method::of(scheme),
            failover,
            trials: true,
        }
    }

    /// Five servers and two for backup.
    fn seven(scheme: Scheme, failover: Failover) -> Group {
        let name = |n| format!("cache-{n}:11211");
        let peers = (0..7)
            .map(|n| Peer::new(&name(n), &name(n), n > 4))
            .collect();
        Group::new(policy(scheme, failover), peers).unwrap()
    }

    const UP: Health = Health {
        down: false,
        fails: 0,
        accessed: 0,
        checked: 0,
        max_fails: 1,
        fail_timeout: 10,
    };
    const DOWN: Health = Health { down: true, ..UP };
    /// Until 110.
    const DISABLED: Health = Health {
        fails: 1,
        accessed: 100,
        checked: 100,
        ..UP
    };

    fn keys() -> impl Iterator<Item = Vec<u8>> {
        (0..200).map(|n| format!("key:{n}").into_bytes())
    }

    fn home(group: &Group, key: &[u8]) -> usize {
        group.choose(key, 100, &[], &[UP; 7][..]).unwrap().peer
    }

    #[test]
    fn next_takes_the_other_servers_and_then_the_backups() {
        for scheme in [Scheme::Consistent, Scheme::Crc, Scheme::Modula] {
            let group = seven(scheme, Failover::Next);
            for key in keys() {
                let home = home(&group, &key);
                assert!(home < 5);
                let mut states = [UP; 7];
                states[home] = DISABLED;
                let choice = group.choose(&key, 105, &[], &states[..]).unwrap();
                assert!(choice.peer != home && choice.peer < 5);
                assert!(choice.gutter.is_none() && !choice.suspect);
                // back for a trial
                let choice = group.choose(&key, 111, &[], &states[..]).unwrap();
                assert!(choice.peer == home && choice.suspect);
                // the same without a state, for one that cannot be connected to
                let other = group.choose(&key, 100, &[home], &[UP; 7][..]).unwrap();
                assert!(other.peer != home && other.peer < 5);
                states[..5].fill(DOWN);
                let choice = group.choose(&key, 105, &[], &states[..]).unwrap();
                assert!(choice.peer > 4 && choice.gutter.is_none());
                states.fill(DOWN);
                assert_eq!(group.choose(&key, 105, &[], &states[..]), None);
            }
        }
    }

    #[test]
    fn off_fails() {
        let group = seven(Scheme::Consistent, Failover::Off);
        assert_eq!(group.peers().len(), 7);
        assert_eq!(group.policy().failover, Failover::Off);
        for key in keys() {
            let home = home(&group, &key);
            for state in [DISABLED, DOWN] {
                let mut states = [UP; 7];
                states[home] = state;
                assert_eq!(group.choose(&key, 105, &[], &states[..]), None);
            }
            assert_eq!(group.choose(&key, 105, &[home], &[UP; 7][..]), None);
        }
    }

    #[test]
    fn backup_takes_backups_only() {
        let group = seven(Scheme::Ketama, Failover::Backup { exptime: 60 });
        let mut used = [0; 7];
        for key in keys() {
            let home = home(&group, &key);
            let mut states = [UP; 7];
            states[home] = DISABLED;
            let choice = group.choose(&key, 105, &[], &states[..]).unwrap();
            used[choice.peer] += 1;
            assert_eq!(choice.gutter, Some(60));
            assert_eq!((choice.exptime(0, 0), choice.exptime(10, 0)), (60, 10));
            // the other one, if this is down, too
            states[choice.peer] = DOWN;
            let other = group.choose(&key, 105, &[], &states[..]).unwrap();
            assert_eq!(other.peer, 11 - choice.peer);
            states[other.peer] = DOWN;
            assert_eq!(group.choose(&key, 105, &[], &states[..]), None);
        }
        assert!(used[..5] == [0; 5] && used[5] > 50 && used[6] > 50);
    }

    #[test]
    fn without_trials_only_a_check_revives() {
        let mut group = seven(Scheme::Modula, Failover::Off);
        group.policy.trials = false;
        let mut states = [DISABLED; 7];
        assert_eq!(group.choose(b"k", 1000, &[], &states[..]), None);
        states.iter_mut().for_each(|state| {
            state.revive();
        });
        assert!(group.choose(b"k", 1000, &[], &states[..]).is_some());
    }

    #[test]
    fn a_name_has_its_first_usable_address_but_crc_has_all() {
        let peers = || {
            vec![
                Peer::new("a:11211", "1", false),
                Peer::new("a:11211", "2", false),
                Peer::new("b:11211", "3", false),
            ]
        };
        let group = Group::new(policy(Scheme::Consistent, Failover::Next), peers()).unwrap();
        let chosen = |group: &Group, states: [Health; 3]| {
            let mut chosen = [false; 3];
            for key in keys() {
                chosen[group.choose(&key, 100, &[], &states[..]).unwrap().peer] = true;
            }
            chosen
        };
        assert_eq!(chosen(&group, [UP; 3]), [true, false, true]);
        assert_eq!(chosen(&group, [DOWN, UP, UP]), [false, true, true]);
        assert_eq!(chosen(&group, [DOWN, DISABLED, UP]), [false, false, true]);
        let group = Group::new(policy(Scheme::Crc, Failover::Next), peers()).unwrap();
        assert_eq!(chosen(&group, [UP; 3]), [true; 3]);
    }

    #[test]
    fn of_two_weights_of_a_name_the_greater_counts() {
        let weighing = |weights: [u32; 2]| {
            let mut peers = vec![
                Peer::new("a:1", "1", false),
                Peer::new("a:1", "2", false),
                Peer::new("b:1", "3", false),
            ];
            (peers[0].weight, peers[1].weight) = (weights[0], weights[1]);
            let group = Group::new(policy(Scheme::Modula, Failover::Next), peers).unwrap();
            keys()
                .map(|key| group.choose(&key, 0, &[], &[UP; 3][..]).unwrap().peer)
                .collect::<Vec<_>>()
        };
        assert_eq!(weighing([5, 1]), weighing([1, 5]));
        assert_ne!(weighing([5, 1]), weighing([1, 1]));
    }

    #[test]
    fn a_single_server_is_never_disabled() {
        let policy = policy(Scheme::Consistent, Failover::Off);
        let single = Group::new(policy, vec![Peer::new("a:1", "1", false)]).unwrap();
        let choice = single.choose(b"k", 105, &[], &[DISABLED][..]).unwrap();
        assert_eq!((choice.peer, choice.suspect), (0, false));
        assert_eq!(single.choose(b"k", 105, &[], &[DOWN][..]), None);
        assert_eq!(single.choose(b"k", 105, &[0], &[UP][..]), None);
        // with one for backup it is
        let peers = vec![Peer::new("a:1", "1", false), Peer::new("b:1", "2", true)];
        let two = Group::new(policy, peers).unwrap();
        assert!(!two.is_single());
        assert_eq!(two.choose(b"k", 105, &[], &[DISABLED, UP][..]), None);
    }

    #[test]
    fn a_server_without_points_is_better_than_none() {
        let mut peers = vec![Peer::new("a:1", "1", false), Peer::new("b:1", "2", false)];
        // the other's share is less than one point
        peers[0].weight = 100;
        let group = Group::new(policy(Scheme::Ketama, Failover::Next), peers).unwrap();
        let choice = group.choose(b"k", 0, &[], &[DOWN, UP][..]).unwrap();
        assert_eq!(choice.peer, 1);
    }

    #[test]
    fn lists_that_are_empty_or_too_long() {
        let policy = policy(Scheme::Consistent, Failover::Next);
        let empty = Group::new(policy, Vec::new()).unwrap();
        assert_eq!(empty.choose(b"k", 0, &[], &[][..]), None);
        let backups = Group::new(policy, vec![Peer::new("a:1", "1", true); 2]).unwrap();
        assert_eq!(backups.choose(b"k", 0, &[], &[UP; 2][..]).unwrap().peer, 0);
        let many = vec![Peer::new("a:1", "1", false); MAX_MEMBERS + 1];
        assert!(matches!(Group::new(policy, many), Err(BuildError::TooMany)));
    }

    #[test]
    fn an_unknown_peer_is_down() {
        assert!([].health(0).down);
        assert!(!States::health(&[UP][..], 0).down);
    }
}
