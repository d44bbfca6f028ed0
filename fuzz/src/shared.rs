//! Operations of many on connections that they share, as the module's transport does it.

use std::collections::BTreeMap;

use ngx_http_lua_memcached_module::protocol::Buffers;
use ngx_http_lua_memcached_module::upstream::{Deadlines, Load, Ticket, choose};

use crate::decoder::seen;
use crate::input::Input;
use crate::replies::Seen;
use crate::server::Call;
use crate::wire::Wire;

const MAX_EVENTS: usize = 400;

#[derive(Clone, Copy, PartialEq, Debug)]
enum Outcome {
    Replied,
    TimedOut,
    Killed,
    Closed,
    /// There was no connection for it.
    Refused,
}

struct Op {
    calls: Vec<Call>,
    got: usize,
    outcome: Option<Outcome>,
    ticket: Ticket,
    due: usize,
}

struct Link {
    wire: Wire,
    /// Who else gets the reply to an exchange.
    followers: BTreeMap<u64, Vec<usize>>,
    opening: bool,
    overdue: bool,
    /// It has what another one could not send.
    last_resort: bool,
}

struct World {
    now: usize,
    wanted: usize,
    turn: usize,
    links: Vec<Link>,
    ops: Vec<Op>,
    deadlines: Deadlines<usize>,
    buffers: Buffers,
}

pub fn run(mut input: Input<'_>, wanted: usize) {
    let mut world = World {
        now: 1000,
        wanted,
        turn: 0,
        links: Vec::new(),
        ops: Vec::new(),
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

impl World {
    fn event(&mut self, input: &mut Input<'_>) {
        let event = input.byte();
        match event {
            0..64 => return self.submit(input),
            64..80 => return self.tick(usize::from(event - 64)),
            80..96 => {
                let at = input.below(256);
                if let Some(op) = self.ops.len().checked_sub(1 + at) {
                    self.complete(op, Outcome::Killed);
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
                    link.wire.send(input);
                }
            }
            128..160 => {
                link.wire.serve();
            }
            160..192 => {
                let most = input.size();
                self.receive(at, most);
            }
            192..208 => link.opening = false,
            208..224 => link.wire.shrink(input),
            224..240 => {
                let bytes = input.text();
                if !link.opening {
                    link.wire.babble(&bytes);
                }
            }
            _ => self.close(at),
        }
    }

    fn load(link: &Link) -> Load {
        if link.opening {
            Load::Opening
        } else if link.overdue {
            Load::Overdue
        } else if link.wire.pipeline.is_amid_value() {
            Load::Busy
        } else {
            Load::Ready(link.wire.pipeline.in_flight())
        }
    }

    fn open(&mut self, wire: Wire, last_resort: bool) -> usize {
        self.links.push(Link {
            wire,
            followers: BTreeMap::new(),
            opening: true,
            overdue: false,
            last_resort,
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
        });

        let loads: Vec<Load> = self.links.iter().map(Self::load).collect();
        let choice = choose(&loads, self.wanted, self.turn);
        assert!(!choice.open || loads.len() < 2 * self.wanted);
        let opened = choice
            .open
            .then(|| self.open(Wire::new(&self.buffers), false));
        let Some(at) = choice.take.or(opened) else {
            return self.complete(id, Outcome::Refused);
        };
        assert_ne!(loads.get(at), Some(&Load::Overdue));
        self.turn = at;
        let link = &mut self.links[at];
        match &self.ops[id].calls[..] {
            [call] => link.wire.submit(id, call, input),
            calls => return link.wire.submit_batch(id, calls),
        }
        if input.flag()
            && let Some(number) = link.wire.ask_once()
        {
            link.followers.entry(number).or_default().push(id);
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

    fn tick(&mut self, time: usize) {
        self.now += time;
        while let Some(id) = self.deadlines.expire(self.now) {
            assert!(self.ops[id].due <= self.now);
            assert!(self.end(id, Outcome::TimedOut), "it was over");
            for link in &mut self.links {
                link.overdue |= link.wire.tags().contains(&id);
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
        }
        over
    }

    /// A connection is gone: who has sent something fails, the others go to another one.
    fn close(&mut self, at: usize) {
        let mut link = self.links.remove(at);
        let move_on = !link.opening && !link.last_resort;
        let moved = move_on.then(|| link.wire.split_unsent());
        let moved = moved.filter(|moved| moved.pipeline.in_flight() > 0);
        let mut lost = link.wire.tags();
        let mut followers = link.followers;
        let kept = match &moved {
            Some(moved) => followers.split_off(&moved.pipeline.oldest()),
            None => BTreeMap::new(),
        };
        lost.extend(followers.into_values().flatten());
        link.wire.pipeline.drop_in_flight();
        assert!(link.wire.pipeline.next_reply().is_none());
        for id in lost {
            self.complete(id, Outcome::Closed);
        }
        if let Some(moved) = moved {
            let at = self.open(moved, true);
            self.links[at].followers = kept;
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
        // whoever waits is on a connection
        let mut waited: Vec<usize> = Vec::new();
        for link in &self.links {
            waited.extend(link.wire.tags());
            waited.extend(link.followers.values().flatten());
        }
        waited.sort_unstable();
        for (id, _) in self.pending() {
            assert!(waited.binary_search(&id).is_ok(), "{id} waits for nothing");
        }
    }

    /// Everybody does what there is to be done: every operation comes to its end.
    fn finish(&mut self) {
        while !self.links.is_empty() && self.pending().next().is_some() {
            let link = &mut self.links[0];
            link.opening = false;
            link.wire.send_all();
            while link.wire.serve() {}
            let over = self.receive(0, usize::MAX);
            self.check();
            if !over {
                let Link { wire, .. } = &self.links[0];
                let answered = wire.pipeline.in_flight() == 0;
                assert!(answered || wire.faulty, "a good server answers everything");
                self.close(0);
            }
        }
        assert_eq!(self.pending().count(), 0);
        assert!(self.deadlines.is_empty());
    }
}
