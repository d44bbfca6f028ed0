//! What becomes of the operations on a shared connection that failed.
//!
//! Commands that were not sent go to another connection, once. Reads that were sent, and of whose
//! reply nothing has come, are sent once more, on a connection of their own: one of them may be why
//! the server has closed. All else fails.

use std::ops::RangeInclusive;

use crate::protocol::Exchange;

/// Connections that may be lost one after the other without an answer to what they repeat.
const MOST_FRUITLESS: u32 = 3;

/// Most exchanges that are repeated at once; one more for each so many that were answered.
const MOST_AT_ONCE: u64 = 16;

/// What becomes of the commands of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    /// Another connection takes them.
    Move,
    /// They are sent once more.
    Retry,
    /// The operation fails.
    Fail,
}

/// Which way an operation came to the connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct History {
    /// It was on another connection, which could not send it.
    pub moved: bool,
    /// It was sent on another connection, which was lost.
    pub retried: bool,
}

/// The commands of one operation on a connection that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loss<K> {
    /// What becomes of it.
    pub fate: Fate,
    /// The operation.
    pub op: K,
    /// Numbers of the exchanges that were not answered.
    pub numbers: RangeInclusive<u64>,
    /// A list of keys is asked for.
    pub is_list: bool,
    /// Its reply was the next one, so it may be why the server has closed.
    pub suspect: bool,
    /// Nothing of it was sent.
    pub unsent: bool,
    /// It may be sent again.
    pub repeatable: bool,
}

/// What is lost with a connection, in order. Exchanges for whose reply nobody waits are left out.
/// `broken`: the server has sent something wrong, so that no command is suspected of being the
/// reason why it has closed.
pub fn losses<K: Copy + PartialEq>(
    exchanges: impl Iterator<Item = Exchange<K>>,
    oldest: u64,
    broken: bool,
    is_awaited: impl Fn(K) -> bool,
) -> Vec<Loss<K>> {
    let mut all: Vec<Loss<K>> = Vec::new();
    for exchange in exchanges {
        if let Some(loss) = all.last_mut()
            && loss.op == exchange.tag
        {
            loss.numbers = *loss.numbers.start()..=exchange.number;
            loss.unsent &= !exchange.begun;
            loss.repeatable &= exchange.repeatable;
            loss.is_list |= exchange.is_list;
        } else if is_awaited(exchange.tag) && all.try_reserve(1).is_ok() {
            all.push(Loss {
                fate: Fate::Fail,
                op: exchange.tag,
                numbers: exchange.number..=exchange.number,
                is_list: exchange.is_list,
                suspect: exchange.begun && exchange.number == oldest && !broken,
                unsent: !exchange.begun,
                repeatable: exchange.repeatable,
            });
        }
    }
    all
}

/// What is still possible.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rescue {
    /// Other connections take commands that were not sent.
    pub can_move: bool,
    /// Another connection may repeat reads.
    pub can_retry: bool,
}

impl Rescue {
    /// After a connection has failed: `forced`: nginx closes it, as the worker's time is over;
    /// `refused`: the server has said that it does not serve it; `opening`: it was not established
    /// yet; `standing`: another connection takes commands; `fruitless`: connections that were lost
    /// one after the other without an answer to what they repeat.
    pub fn after(
        forced: bool,
        refused: bool,
        opening: bool,
        standing: bool,
        fruitless: u32,
    ) -> Rescue {
        Rescue {
            can_move: !forced && (!opening || standing),
            can_retry: !forced && !refused && !opening && fruitless < MOST_FRUITLESS,
        }
    }

    /// What becomes of an operation. `first` is the number of its first exchange, answered or not.
    pub fn fate<K>(self, loss: &Loss<K>, first: u64, history: History) -> Fate {
        if first != *loss.numbers.start() {
            // some of its commands were answered
            return Fate::Fail;
        }
        match (history.moved, history.retried) {
            (false, false) if self.can_move && loss.unsent => Fate::Move,
            (_, false) if self.can_retry && loss.repeatable => Fate::Retry,
            // it was not sent again yet
            (_, true) if self.can_retry && loss.unsent => Fate::Retry,
            _ => Fate::Fail,
        }
    }
}

/// Puts losses in the order in which they are dealt with. Of what is repeated, those come last that
/// may spoil it for others.
pub fn put_in_order<K>(losses: &mut [Loss<K>]) {
    losses.sort_unstable_by_key(|loss| {
        let Loss {
            fate,
            suspect,
            is_list,
            ..
        } = *loss;
        (fate, suspect, is_list, *loss.numbers.start())
    });
}

/// How a connection repeats what was lost: one exchange first, so that one that ends the connection
/// harms no other, and later a few at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Number of the first exchange that has to wait until those before it are answered.
    until: u64,
    fruitless: u32,
}

impl Retry {
    /// On a new connection. `fruitless`: as for [`Rescue::after`].
    pub fn new(fruitless: u32) -> Retry {
        Retry {
            until: 0,
            fruitless,
        }
    }

    /// How many connections will have been lost without an answer, if this one is. `oldest` is the
    /// number of the exchange whose reply comes next.
    pub fn fruitless_after(&self, oldest: u64) -> u32 {
        match oldest {
            0 => self.fruitless + 1,
            _ => 0,
        }
    }

    /// Number of the first exchange that is not to be sent yet. `nth` gives the number of the n-th
    /// exchange in flight, or of what comes after the last one.
    pub fn sends_until(&mut self, oldest: u64, nth: impl FnOnce(usize) -> u64) -> u64 {
        if oldest >= self.until {
            // those before are answered
            let at_once = (oldest / MOST_AT_ONCE).clamp(1, MOST_AT_ONCE);
            self.until = nth(at_once as usize);
        }
        self.until
    }

    /// Whether those that had to wait may be sent now.
    pub fn may_send_more(&self, oldest: u64) -> bool {
        oldest >= self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ALL: Rescue = Rescue {
        can_move: true,
        can_retry: true,
    };
    const NEW: History = History {
        moved: false,
        retried: false,
    };
    const MOVED: History = History { moved: true, ..NEW };
    const RETRIED: History = History {
        retried: true,
        ..NEW
    };

    fn unsent(at: u64) -> Loss<()> {
        Loss {
            fate: Fate::Fail,
            op: (),
            numbers: at..=at,
            is_list: false,
            suspect: false,
            unsent: true,
            repeatable: false,
        }
    }

    fn sent_read(at: u64) -> Loss<()> {
        Loss {
            unsent: false,
            repeatable: true,
            ..unsent(at)
        }
    }

    #[test]
    fn what_was_not_sent_moves_once() {
        assert_eq!(ALL.fate(&unsent(3), 3, NEW), Fate::Move);
        assert_eq!(ALL.fate(&unsent(3), 3, MOVED), Fate::Fail);
        let read = Loss {
            repeatable: true,
            ..unsent(3)
        };
        assert_eq!(ALL.fate(&read, 3, MOVED), Fate::Retry);
        let none = Rescue {
            can_move: false,
            ..ALL
        };
        assert_eq!(none.fate(&unsent(3), 3, NEW), Fate::Fail);
        assert_eq!(none.fate(&read, 3, NEW), Fate::Retry);
    }

    #[test]
    fn only_reads_are_sent_again_and_only_once() {
        assert_eq!(ALL.fate(&sent_read(3), 3, NEW), Fate::Retry);
        assert_eq!(ALL.fate(&sent_read(3), 3, MOVED), Fate::Retry);
        assert_eq!(ALL.fate(&sent_read(3), 3, RETRIED), Fate::Fail);
        // on the connection that repeats it, it was not sent yet
        assert_eq!(ALL.fate(&unsent(3), 3, RETRIED), Fate::Retry);
        let write = Loss {
            repeatable: false,
            ..sent_read(3)
        };
        assert_eq!(ALL.fate(&write, 3, NEW), Fate::Fail);
        let never = Rescue {
            can_retry: false,
            ..ALL
        };
        assert_eq!(never.fate(&sent_read(3), 3, NEW), Fate::Fail);
        assert_eq!(never.fate(&unsent(3), 3, RETRIED), Fate::Fail);
    }

    #[test]
    fn a_pipeline_that_was_answered_in_part_fails() {
        assert_eq!(ALL.fate(&sent_read(4), 3, NEW), Fate::Fail);
        assert_eq!(ALL.fate(&unsent(4), 3, NEW), Fate::Fail);
    }

    #[test]
    fn what_is_possible_depends_on_how_it_failed() {
        let rescue = |can_move, can_retry| Rescue {
            can_move,
            can_retry,
        };
        let after = Rescue::after;
        assert_eq!(after(false, false, false, false, 0), rescue(true, true));
        assert_eq!(after(true, false, false, true, 0), rescue(false, false));
        assert_eq!(after(false, true, false, false, 0), rescue(true, false));
        assert_eq!(after(false, false, true, false, 0), rescue(false, false));
        assert_eq!(after(false, false, true, true, 0), rescue(true, false));
        assert_eq!(after(false, false, false, false, 2), rescue(true, true));
        assert_eq!(after(false, false, false, false, 3), rescue(true, false));
    }

    #[test]
    fn those_that_may_have_caused_it_come_last() {
        let suspect = Loss {
            suspect: true,
            ..sent_read(0)
        };
        let list = Loss {
            is_list: true,
            ..sent_read(1)
        };
        let retried = |loss: Loss<()>| Loss {
            fate: Fate::Retry,
            ..loss
        };
        let moved = |loss: Loss<()>| Loss {
            fate: Fate::Move,
            ..loss
        };
        let mut losses = vec![
            retried(suspect),
            retried(list),
            retried(sent_read(2)),
            unsent(3),
            moved(unsent(5)),
            moved(unsent(4)),
            retried(sent_read(6)),
        ];
        put_in_order(&mut losses);
        let order: Vec<u64> = losses.iter().map(|loss| *loss.numbers.start()).collect();
        assert_eq!(order, [4, 5, 2, 6, 1, 0, 3]);
    }

    #[test]
    fn operations_are_lost_with_all_their_exchanges() {
        let exchange = |number: u64, tag: char, begun: bool| Exchange {
            number,
            tag,
            begun,
            repeatable: tag != 'w' && number != 9,
            is_list: number == 5,
        };
        let all = [
            exchange(3, 'a', true),
            exchange(4, 'p', true),
            exchange(5, 'p', false),
            exchange(6, 'n', false),
            exchange(7, 'w', false),
            exchange(8, 'm', false),
            exchange(9, 'm', false),
        ];
        let of = |broken| losses(all.into_iter(), 3, broken, |op| op != 'n');
        let lost = of(false);
        let summary: Vec<_> = lost
            .iter()
            .map(|l| (l.op, l.numbers.clone(), l.unsent, l.repeatable, l.is_list))
            .collect();
        assert_eq!(
            summary,
            [
                ('a', 3..=3, false, true, false),
                ('p', 4..=5, false, true, true),
                ('w', 7..=7, true, false, false),
                ('m', 8..=9, true, false, false),
            ]
        );
        let suspects = |lost: Vec<Loss<char>>| lost.iter().filter(|l| l.suspect).count();
        assert!(lost.first().is_some_and(|loss| loss.suspect));
        assert_eq!((suspects(lost), suspects(of(true))), (1, 0));
    }

    #[test]
    fn what_is_repeated_starts_slowly() {
        let mut retry = Retry::new(0);
        let nth = |oldest: u64| move |n: usize| oldest + n as u64;
        assert_eq!(retry.sends_until(0, nth(0)), 1);
        assert!(!retry.may_send_more(0));
        // the same until it is answered
        assert_eq!(retry.sends_until(0, |_| 999), 1);
        assert!(retry.may_send_more(1));
        assert_eq!(retry.sends_until(1, nth(1)), 2);
        assert_eq!(retry.sends_until(32, nth(32)), 34);
        assert_eq!(retry.sends_until(33, |_| 999), 34);
        assert_eq!(retry.sends_until(1000, nth(1000)), 1016);
    }

    #[test]
    fn only_losses_without_any_answer_count() {
        assert_eq!(Retry::new(0).fruitless_after(0), 1);
        assert_eq!(Retry::new(2).fruitless_after(0), 3);
        assert_eq!(Retry::new(2).fruitless_after(1), 0);
    }

    fn any_loss() -> impl Strategy<Value = Loss<()>> {
        (any::<(bool, bool, bool, bool)>(), 0u64..9, 0u64..3).prop_map(
            |((is_list, suspect, unsent, repeatable), start, more)| Loss {
                fate: Fate::Fail,
                op: (),
                numbers: start..=start + more,
                is_list,
                suspect,
                unsent,
                repeatable,
            },
        )
    }

    proptest! {
        /// A write that may have been executed is never sent again, and nothing goes on for ever.
        #[test]
        fn nothing_is_done_twice(
            loss in any_loss(), first in 0u64..9, moved: bool, retried: bool,
            can_move: bool, can_retry: bool,
        ) {
            let rescue = Rescue { can_move, can_retry };
            match rescue.fate(&loss, first, History { moved, retried }) {
                Fate::Move => prop_assert!(loss.unsent && !moved && !retried && can_move),
                Fate::Retry => {
                    prop_assert!(can_retry && (loss.unsent || loss.repeatable));
                    prop_assert!(!retried || loss.unsent);
                }
                Fate::Fail => {}
            }
        }

        #[test]
        fn order_keeps_all_and_puts_fates_together(
            mut all in proptest::collection::vec(any_loss(), 0..20),
        ) {
            let mut before: Vec<_> = all.iter().map(|loss| loss.numbers.clone()).collect();
            put_in_order(&mut all);
            let rank = |loss: &Loss<()>| (loss.fate, loss.suspect, loss.is_list);
            prop_assert!(all.is_sorted_by_key(rank));
            let mut after: Vec<_> = all.iter().map(|loss| loss.numbers.clone()).collect();
            before.sort_by_key(|numbers| (*numbers.start(), *numbers.end()));
            after.sort_by_key(|numbers| (*numbers.start(), *numbers.end()));
            prop_assert_eq!(before, after);
        }

        #[test]
        fn all_is_sent_in_the_end(total in 1u64..2000) {
            let mut retry = Retry::new(0);
            let (mut oldest, mut rounds) = (0, 0);
            while oldest < total {
                let nth = |n: usize| (oldest + n as u64).min(total);
                let until = retry.sends_until(oldest, nth);
                prop_assert!(until > oldest && until <= oldest + MOST_AT_ONCE);
                oldest = until;
                prop_assert!(retry.may_send_more(oldest));
                rounds += 1;
            }
            prop_assert!(rounds <= total);
        }
    }
}
