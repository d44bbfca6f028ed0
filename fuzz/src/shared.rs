//! Operations of many on connections that they share, as the module's transport does it.

use std::collections::{BTreeMap, VecDeque};

use ngx_http_lua_memcached_module::protocol::Buffers;
use ngx_http_lua_memcached_module::upstream::{Deadlines, Demand, Load, Ticket, choose};

use crate::decoder::seen;
use crate::input::Input;
use crate::replies::Seen;
use crate::server::Call;
use crate::wire::{Exchange, Wire};

const MAX_EVENTS: usize = 400;

/// How many connections may be lost one after the other that answer nothing of what is asked again.
const MOST_FRUITLESS: usize = 3;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Outcome {
    Replied,
    TimedOut,
    Killed,
    Closed,
    /// There was no connection for it.
    Refused,
}

/// Where an operation is under way: its connection, its first exchange and its last one.
#[derive(Clone, Copy, Debug)]
struct Place {
    link: usize,
    first: u64,
    last: u64,
}

struct Op {
    calls: Vec<Call>,
    got: usize,
    outcome: Option<Outcome>,
    ticket: Ticket,
    due: usize,
    place: Option<Place>,
    /// It went to another connection unsent, or was asked again.
    moved: bool,
    again: bool,
}

/// What a connection has that asks again what others have lost.
#[derive(Clone, Copy)]
struct Again {
    /// The first exchange that has to wait.
    until: u64,
    fruitless: usize,
}

struct Link {
    id: usize,
    wire: Wire,
    /// Who else gets the reply to an exchange.
    followers: BTreeMap<u64, Vec<usize>>,
    opening: bool,
    overdue: bool,
    stalled: bool,
    again: Option<Again>,
}

struct World {
    now: usize,
    wanted: usize,
    turn: usize,
    links: Vec<Link>,
    opened: usize,
    ops: Vec<Op>,
    /// Operations that wait for a connection.
    queue: VecDeque<usize>,
    deadlines: Deadlines<usize>,
    buffers: Buffers,
}

pub fn run(mut input: Input<'_>, wanted: usize) {
    let mut world = World {
        now: 1000,
        wanted,
        turn: 0,
        links: Vec::new(),
        opened: 0,
        ops: Vec::new(),
        queue: VecDeque::new(),
        deadlines: Deadlines::default(),
        buffers: Buffers::default(),
    };
    for _ in 0..MAX_EVENTS {
        if input.is_empty() {
            break;
        }
        world.event(&mut input);
        world.check();
    }
    world.finish();
}

impl Link {
    fn load(&self) -> Load {
        if self.overdue || self.again.is_some() {
            Load::Overdue
        } else if self.stalled {
            Load::Stalled
        } else if self.opening {
            Load::Opening
        } else if self.wire.pipeline.lists() > 0 {
            Load::Listed
        } else if self.wire.pipeline.is_amid_value() {
            Load::Busy
        } else {
            Load::Ready(self.wire.pipeline.in_flight())
        }
    }

    /// The first exchange that must not be sent yet.
    fn until(&mut self) -> Option<u64> {
        let again = self.again.as_mut()?;
        let oldest = self.wire.pipeline.oldest();
        if oldest >= again.until {
            let at_once = usize::try_from(oldest / 16).unwrap_or(16).clamp(1, 16);
            let next = self.wire.exchanges().get(at_once).map(|e| e.number);
            again.until = next.unwrap_or(u64::MAX);
        }
        Some(again.until)
    }
}

impl World {
    fn event(&mut self, input: &mut Input<'_>) {
        let event = input.byte();
        match event {
            0..64 => return self.submit(input),
            64..80 => return self.tick(usize::from(event - 64)),
            80..96 => {
                let at = input.below(256);
                if let Some(op) = self.ops.len().checked_sub(1 + at) {
                    self.give_up(op, Outcome::Killed);
                }
                return;
            }
            _ => {}
        }
        if self.links.is_empty() {
            return;
        }
        let at = usize::from(event & 15) % self.links.len();
        let link = &mut self.links[at];
        match event {
            96..128 => {
                // a connection that is being opened has no socket to send to
                if !link.opening {
                    let until = link.until();
                    let sent = link.wire.send(input, until);
                    self.check_sent(at, &sent);
                }
            }
            128..160 => {
                link.wire.serve();
            }
            160..192 => {
                let most = input.size();
                self.receive(at, most);
            }
            192..208 => {
                link.opening = false;
                self.serve_queue();
            }
            208..216 => link.wire.shrink(input),
            216..224 => link.stalled = input.flag(),
            224..240 => {
                let bytes = input.text();
                if !link.opening {
                    link.wire.babble(&bytes);
                }
            }
            _ => self.close(at),
        }
    }

    fn open(&mut self, again: Option<Again>) -> usize {
        self.opened += 1;
        self.links.push(Link {
            id: self.opened,
            wire: Wire::new(&self.buffers),
            followers: BTreeMap::new(),
            opening: true,
            overdue: false,
            stalled: false,
            again,
        });
        self.links.len() - 1
    }

    fn submit(&mut self, input: &mut Input<'_>) {
        let id = self.ops.len();
        let timeout = input.below(16);
        let count = input.byte();
        let count = if count < 200 {
            1
        } else {
            1 + usize::from(count % 5)
        };
        let calls: Vec<Call> = (0..count).map(|n| Call::read(input, id * 10 + n)).collect();
        self.ops.push(Op {
            got: 0,
            outcome: None,
            ticket: self.deadlines.set(self.now, timeout, id),
            due: self.now + timeout,
            calls,
            place: None,
            moved: false,
            again: false,
        });
        let demand = Demand {
            eager: input.below(8) > 0,
            patient: true,
        };
        match self.choose(demand) {
            Some(at) => self.put_on(at, id, input),
            None if self.links.is_empty() => self.complete(id, Outcome::Refused),
            None => self.queue.push_back(id),
        }
    }

    /// Index of the connection that takes what is to be sent.
    fn choose(&mut self, demand: Demand) -> Option<usize> {
        let loads: Vec<Load> = self.links.iter().map(Link::load).collect();
        let choice = choose(&loads, self.wanted, self.turn, demand);
        assert!(!choice.open || loads.len() < 2 * self.wanted);
        assert!(!choice.wait || demand.patient);
        let opened = choice.open.then(|| self.open(None));
        let taken = choice.take.or(opened.filter(|_| !choice.wait));
        if let Some(at) = taken {
            assert_ne!(loads.get(at), Some(&Load::Overdue));
            self.turn = at;
        }
        taken
    }

    fn put_on(&mut self, at: usize, id: usize, input: &mut Input<'_>) {
        let link = &mut self.links[at];
        let calls = &self.ops[id].calls;
        let mut first = None;
        match &calls[..] {
            [call] => {
                link.wire.submit(id, call, input);
                if input.flag() {
                    // gets in pipelines are never joined
                    first = link.wire.ask_once(|id| self.ops[id].calls.len() == 1);
                }
                if let Some(number) = first {
                    link.followers.entry(number).or_default().push(id);
                }
            }
            calls => link.wire.submit_batch(id, calls),
        }
        let newest = link.wire.pipeline.newest().expect("it is in flight");
        let last = first.unwrap_or(newest);
        self.ops[id].place = Some(Place {
            link: link.id,
            first: last + 1 - self.ops[id].calls.len() as u64,
            last,
        });
    }

    /// Those who wait for a connection get what there is.
    fn serve_queue(&mut self) {
        while let Some(id) = self.queue.front().copied() {
            let demand = Demand {
                eager: true,
                patient: true,
            };
            let Some(at) = self.choose(demand) else {
                return;
            };
            self.queue.pop_front();
            let link = &mut self.links[at];
            link.wire.submit_batch(id, &self.ops[id].calls);
            let last = link.wire.pipeline.newest().expect("it is in flight");
            self.ops[id].place = Some(Place {
                link: link.id,
                first: last + 1 - self.ops[id].calls.len() as u64,
                last,
            });
        }
    }

    fn is_pending(&self, id: usize) -> bool {
        self.ops[id].outcome.is_none()
    }

    /// Who waits for the reply to an exchange.
    fn waiting(&self, at: usize, exchange: Exchange) -> Vec<usize> {
        let followers = self.links[at].followers.get(&exchange.number);
        let all = std::iter::once(exchange.tag).chain(followers.into_iter().flatten().copied());
        all.filter(|id| self.is_pending(*id)).collect()
    }

    /// What is sent belongs to those who wait.
    fn check_sent(&self, at: usize, sent: &[u64]) {
        for exchange in self.links[at].wire.exchanges() {
            if sent.contains(&exchange.number) {
                let waiting = self.waiting(at, exchange);
                assert!(!waiting.is_empty(), "{exchange:?} is sent for nobody");
            }
        }
    }

    /// An operation is over, if it is not already. True if it was not.
    fn end(&mut self, id: usize, outcome: Outcome) -> bool {
        let op = &mut self.ops[id];
        let pending = op.outcome.is_none();
        if pending {
            op.outcome = Some(outcome);
        }
        pending
    }

    fn complete(&mut self, id: usize, outcome: Outcome) {
        if self.end(id, outcome) {
            assert!(self.deadlines.cancel(self.ops[id].ticket));
        }
        assert!(!self.deadlines.cancel(self.ops[id].ticket));
    }

    /// An operation is over before its reply came.
    fn give_up(&mut self, id: usize, outcome: Outcome) {
        if self.is_pending(id) {
            self.complete(id, outcome);
            self.forsake(id);
        }
    }

    /// What of an operation's commands was not sent is not sent any more.
    fn forsake(&mut self, id: usize) {
        self.queue.retain(|queued| *queued != id);
        let Some(place) = self.ops[id].place else {
            return;
        };
        let Some(at) = self.links.iter().position(|link| link.id == place.link) else {
            return;
        };
        for exchange in self.links[at].wire.exchanges() {
            let its = (place.first..=place.last).contains(&exchange.number);
            if !its || exchange.sent || !self.waiting(at, exchange).is_empty() {
                continue;
            }
            if exchange.begun {
                return self.close(at);
            }
            let link = &mut self.links[at];
            assert!(link.wire.withdraw(exchange.number));
            link.followers.remove(&exchange.number);
        }
        self.rest(at);
    }

    /// A connection on which nothing is in flight takes work again.
    fn rest(&mut self, at: usize) {
        let link = &mut self.links[at];
        if link.wire.pipeline.in_flight() == 0 {
            link.again = None;
            link.overdue = false;
            self.serve_queue();
        }
    }

    fn tick(&mut self, time: usize) {
        self.now += time;
        while let Some(id) = self.deadlines.expire(self.now) {
            assert!(self.ops[id].due <= self.now);
            assert!(self.end(id, Outcome::TimedOut), "it was over");
            self.forsake(id);
            for link in &mut self.links {
                link.overdue |= link.wire.exchanges().iter().any(|e| e.tag == id);
            }
        }
    }

    /// A reply for an operation, which nobody may wait for any more.
    fn deliver(&mut self, id: usize, reply: &Seen, faulty: bool) {
        let op = &mut self.ops[id];
        if op.outcome.is_some() {
            return;
        }
        let call = &op.calls[op.got];
        assert!(faulty || *reply == call.wanted(), "{reply:?} for {call:?}");
        op.got += 1;
        if op.got == op.calls.len() {
            self.complete(id, Outcome::Replied);
        }
    }

    /// Receives; whether that was the end of the connection.
    fn receive(&mut self, at: usize, most: usize) -> bool {
        let link = &mut self.links[at];
        let faulty = link.wire.faulty;
        for (number, tag, reply) in link.wire.receive(most) {
            let link = &mut self.links[at];
            link.overdue = false;
            let followers = link.followers.remove(&number).unwrap_or_default();
            let said = seen(reply.clone());
            self.buffers.recycle(reply);
            for id in std::iter::once(tag).chain(followers) {
                self.deliver(id, &said, faulty);
            }
        }
        let over = self.links[at].wire.is_over();
        if over {
            self.close(at);
        } else {
            self.rest(at);
            self.serve_queue();
        }
        over
    }

    /// A connection is gone. What was not sent of operations that have sent nothing goes to others,
    /// reads are asked once more, and the rest fails.
    fn close(&mut self, at: usize) {
        let link = self.links.remove(at);
        let usable = |other: &Link| !other.opening && other.load() != Load::Overdue;
        let standing = self.links.iter().any(usable);
        let can_move = !link.opening || standing;
        let fruitless = match (link.again, link.wire.pipeline.oldest()) {
            (Some(again), 0) => again.fruitless + 1,
            _ => 0,
        };
        let can_ask = !link.opening && fruitless < MOST_FRUITLESS;
        let mut lost: Vec<(usize, Vec<usize>, Vec<Exchange>)> = Vec::new();
        for exchange in link.wire.exchanges() {
            if let Some((tag, _, exchanges)) = lost.last_mut()
                && *tag == exchange.tag
            {
                exchanges.push(exchange);
                continue;
            }
            let followers = link.followers.get(&exchange.number);
            let all = std::iter::once(exchange.tag).chain(followers.into_iter().flatten().copied());
            let waiting: Vec<usize> = all.filter(|id| self.is_pending(*id)).collect();
            lost.push((exchange.tag, waiting, vec![exchange]));
        }
        let mut asked_again = None;
        for (_, waiting, exchanges) in lost {
            let Some(op) = waiting.first().map(|id| &self.ops[*id]) else {
                continue;
            };
            let whole = op
                .place
                .is_some_and(|place| place.first == exchanges[0].number);
            let unsent = exchanges.iter().all(|exchange| !exchange.begun);
            let repeatable = exchanges.iter().all(|exchange| exchange.repeatable);
            let to = if !whole {
                None
            } else if can_move && unsent && !op.moved && !op.again {
                let eager = false;
                let patient = false;
                self.choose(Demand { eager, patient })
            } else if can_ask && (repeatable && !op.again || unsent && op.again) {
                let until = 0;
                let open = || self.open(Some(Again { until, fruitless }));
                Some(*asked_again.get_or_insert_with(open))
            } else {
                None
            };
            match to {
                Some(to) => self.hand_over(&link, to, &waiting, &exchanges),
                None => {
                    for id in waiting {
                        self.complete(id, Outcome::Closed);
                    }
                }
            }
        }
        if self.links.is_empty() {
            while let Some(id) = self.queue.pop_front() {
                self.complete(id, Outcome::Closed);
            }
        }
        self.serve_queue();
    }

    fn hand_over(&mut self, from: &Link, to: usize, waiting: &[usize], exchanges: &[Exchange]) {
        let link = &mut self.links[to];
        let mut numbers = Vec::new();
        for exchange in exchanges {
            numbers.push(link.wire.adopt(waiting[0], &from.wire, exchange.number));
        }
        if waiting.len() > 1 {
            link.followers.insert(numbers[0], waiting[1..].to_vec());
        }
        for id in waiting {
            let op = &mut self.ops[*id];
            op.moved |= link.again.is_none();
            op.again |= link.again.is_some();
            op.place = Some(Place {
                link: link.id,
                first: numbers[0],
                last: numbers[numbers.len() - 1],
            });
        }
    }

    fn pending(&self) -> impl Iterator<Item = (usize, &Op)> {
        let all = self.ops.iter().enumerate();
        all.filter(|(_, op)| op.outcome.is_none())
    }

    fn check(&mut self) {
        for link in &self.links {
            link.wire.check();
        }
        let due = self.pending().map(|(_, op)| op.due).min();
        assert_eq!(self.deadlines.next_due(), due);
        assert_eq!(self.deadlines.is_empty(), due.is_none());
        // whoever waits is on a connection, or waits for one
        let mut waited: Vec<usize> = self.queue.iter().copied().collect();
        for link in &self.links {
            waited.extend(link.wire.exchanges().iter().map(|exchange| exchange.tag));
            waited.extend(link.followers.values().flatten());
        }
        waited.sort_unstable();
        for (id, _) in self.pending() {
            assert!(waited.binary_search(&id).is_ok(), "{id} waits for nothing");
        }
        // and nothing is still to be sent for nobody
        for at in 0..self.links.len() {
            for exchange in self.links[at].wire.exchanges() {
                let nobody = self.waiting(at, exchange).is_empty();
                assert!(exchange.sent || !nobody, "{exchange:?} is for nobody");
            }
        }
    }

    /// Everybody does what there is to be done: every operation comes to its end.
    fn finish(&mut self) {
        while !self.links.is_empty() && self.pending().next().is_some() {
            let link = &mut self.links[0];
            link.opening = false;
            let until = link.until();
            let sent = link.wire.send_all(until);
            self.check_sent(0, &sent);
            while self.links[0].wire.serve() {}
            let over = self.receive(0, usize::MAX);
            self.check();
            if !over {
                let wire = &self.links[0].wire;
                let unsent = wire.exchanges().iter().any(|exchange| !exchange.sent);
                if unsent && !wire.faulty {
                    // what had to wait, or was queued until now
                    continue;
                }
                let answered = wire.pipeline.in_flight() == 0;
                assert!(answered || wire.faulty, "a good server answers everything");
                self.close(0);
            }
        }
        assert_eq!(self.pending().count(), 0);
        assert!(self.deadlines.is_empty());
    }
}
