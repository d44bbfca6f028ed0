//! Operations of many on connections that they share, as the module's transport does it.

use std::collections::{BTreeMap, VecDeque};

use ngx_http_lua_memcached_module::protocol::{Buffers, Reply, Server};
use ngx_http_lua_memcached_module::upstream::{Deadlines, Demand, Load, Ticket, choose};

use crate::decoder::seen;
use crate::input::Input;
use crate::metacalls::{Persona, Refusal};
use crate::server::Call;
use crate::wire::{Exchange, Wire};

mod check;
mod loss;

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
    /// What follows when the server has said what it can do: that is asked now.
    then: Option<Vec<Call>>,
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
    stalled: bool,
    slow: bool,
    again: Option<Again>,
}

struct World {
    now: usize,
    wanted: usize,
    turn: usize,
    links: Vec<Link>,
    opened: usize,
    ops: Vec<Op>,
    persona: Persona,
    /// Operations that wait for a connection.
    queue: VecDeque<usize>,
    /// Operations whose question was answered.
    told: Vec<usize>,
    deadlines: Deadlines<usize>,
    buffers: Buffers,
}

pub fn run(mut input: Input<'_>, kind: usize) {
    let mut world = World {
        now: 1000,
        wanted: 1 + kind % 3,
        persona: Persona::of(kind / 3),
        turn: 0,
        links: Vec::new(),
        opened: 0,
        ops: Vec::new(),
        queue: VecDeque::new(),
        told: Vec::new(),
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
        if self.stalled || self.again.is_some() {
            Load::Unavailable
        } else if self.slow {
            Load::Slow
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
            128..152 => {
                link.wire.serve();
            }
            152..160 => link.wire.serve_wrongly(input),
            160..192 => {
                let most = input.size();
                self.receive(at, most);
            }
            192..208 => {
                link.opening = false;
                self.serve_queue();
            }
            208..216 => link.wire.shrink(input),
            216..224 => link.slow = input.flag(),
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
            wire: Wire::new(&self.buffers, self.persona),
            followers: BTreeMap::new(),
            opening: true,
            stalled: false,
            slow: false,
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
            then: None,
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
            Some(at) => self.put_on(at, id, Some(input)),
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
            assert_ne!(loads.get(at), Some(&Load::Unavailable));
            self.turn = at;
        }
        taken
    }

    /// Gives an operation's commands to a connection, or first what it has to ask the server.
    fn put_on(&mut self, at: usize, id: usize, mut input: Option<&mut Input<'_>>) {
        let asked = loop {
            let link = &mut self.links[at];
            let calls = &self.ops[id].calls;
            let given = match (&calls[..], input.as_deref_mut()) {
                ([call], Some(input)) => link.wire.submit(id, call, input),
                (calls, _) => link.wire.submit_batch(id, calls),
            };
            let question = match given {
                Ok(()) => break input.is_some_and(|input| input.flag()),
                Err(Refusal::AskVersion) => {
                    let mut known = self.links.iter().map(|link| link.wire.pipeline.server());
                    if let Some(server) = known.find(|server| *server != Server::Unknown) {
                        self.links[at].wire.assume(server);
                        continue;
                    }
                    Call::Version
                }
                Err(Refusal::AskMeta) => Call::MetaNoop,
                Err(Refusal::Never) => return self.complete(id, Outcome::Refused),
            };
            let op = &mut self.ops[id];
            assert!(op.then.is_none(), "a question is not refused");
            op.then = Some(std::mem::replace(&mut op.calls, vec![question]));
        };
        let link = &mut self.links[at];
        let mut first = None;
        if asked && self.ops[id].calls.len() == 1 {
            // gets in pipelines are never joined
            first = link.wire.ask_once(|id| self.ops[id].calls.len() == 1);
        }
        if let Some(number) = first {
            link.followers.entry(number).or_default().push(id);
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
            self.put_on(at, id, None);
        }
    }

    /// Those who know what the server can do go on.
    fn go_on(&mut self) {
        while let Some(id) = self.told.pop() {
            let op = &mut self.ops[id];
            op.calls = op.then.take().expect("it has asked for that");
            (op.got, op.place) = (0, None);
            (op.moved, op.again) = (false, false);
            let demand = Demand {
                eager: true,
                patient: true,
            };
            match self.choose(demand) {
                Some(at) => self.put_on(at, id, None),
                None if self.links.is_empty() => self.complete(id, Outcome::Refused),
                None => self.queue.push_back(id),
            }
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
            link.stalled = false;
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
                link.stalled |= link.wire.exchanges().iter().any(|e| e.tag == id);
            }
        }
    }

    /// A reply for an operation, which nobody may wait for any more.
    fn deliver(&mut self, id: usize, is_told: bool) {
        let op = &mut self.ops[id];
        if op.outcome.is_some() {
            return;
        }
        op.got += 1;
        if op.got < op.calls.len() {
            return;
        }
        match is_told && op.then.is_some() {
            true => self.told.push(id),
            false => self.complete(id, Outcome::Replied),
        }
    }

    /// Receives; whether that was the end of the connection.
    fn receive(&mut self, at: usize, most: usize) -> bool {
        let replies = self.links[at].wire.receive(most);
        for (number, tag, reply) in replies {
            let link = &mut self.links[at];
            link.stalled = false;
            let followers = link.followers.remove(&number).unwrap_or_default();
            let said = seen(reply.clone());
            let is_told = matches!(reply, Reply::Version(_) | Reply::Done);
            self.buffers.recycle(reply);
            for id in std::iter::once(tag).chain(followers) {
                let op = &self.ops[id];
                if op.outcome.is_none() {
                    let (call, wire) = (&op.calls[op.got], &self.links[at].wire);
                    assert!(wire.may_get(call, &said), "{said:?} for {call:?}");
                }
                self.deliver(id, is_told);
            }
        }
        let over = self.links[at].wire.is_over();
        if over {
            self.close(at);
        } else {
            self.rest(at);
            self.serve_queue();
        }
        self.go_on();
        over
    }

    fn pending(&self) -> impl Iterator<Item = (usize, &Op)> {
        let all = self.ops.iter().enumerate();
        all.filter(|(_, op)| op.outcome.is_none())
    }
}
