//! Sessions with connections of their own, which a pool keeps and counts.

use std::collections::{BTreeMap, VecDeque};

use ngx_http_lua_memcached_module::protocol::Buffers;
use ngx_http_lua_memcached_module::upstream::{Admission, Fitness, Place, Pool};

use crate::decoder::seen;
use crate::input::Input;
use crate::metacalls::{Persona, Refusal};
use crate::server::Call;
use crate::wire::Wire;

const MAX_EVENTS: usize = 400;

/// What a session has of its connect operation.
#[derive(Clone, Copy, PartialEq, Debug)]
enum State {
    Waiting,
    /// It may get an idle connection, or a new one.
    Undecided,
    Connected(usize),
    /// Its connect failed, or its use of a connection is over.
    Over,
}

struct World {
    size: usize,
    backlog: Option<usize>,
    /// Whether idle connections are not for everybody.
    picky: bool,
    pool: Pool<usize, usize>,
    wires: BTreeMap<usize, Wire>,
    opened: usize,
    sessions: Vec<State>,
    /// Where waiting sessions and idle wires stand.
    waiting: BTreeMap<usize, Place>,
    idle: BTreeMap<usize, Place>,
    /// By wire, the calls of its session that have no reply yet.
    calls: BTreeMap<usize, VecDeque<Call>>,
    asked: usize,
    persona: Persona,
    buffers: Buffers,
}

pub fn run(mut input: Input<'_>, kind: usize) {
    let size = 1 + kind % 3;
    let backlog = [None, Some(0), Some(1), Some(2)][kind / 3 % 4];
    let mut world = World {
        size,
        backlog,
        picky: kind / 12 % 2 == 1,
        pool: Pool::new(size, backlog),
        wires: BTreeMap::new(),
        opened: 0,
        sessions: Vec::new(),
        waiting: BTreeMap::new(),
        idle: BTreeMap::new(),
        calls: BTreeMap::new(),
        asked: 0,
        persona: Persona::of(kind / 24),
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

/// Whether an idle connection is what a session wants. Both are of three kinds.
fn fitness(picky: bool, wire: usize, session: usize) -> Fitness {
    match (picky, wire % 3) {
        (false, _) | (true, 0) => Fitness::Fits,
        (true, kind) if kind == session % 3 => Fitness::MayFit,
        (true, _) => Fitness::Unfit,
    }
}

impl World {
    fn event(&mut self, input: &mut Input<'_>) {
        let event = input.byte();
        if event < 64 {
            return self.connect();
        }
        let session = match self.sessions.len() {
            0 => return,
            // the last ones have most to do
            len => len - 1 - usize::from(event & 15) % len,
        };
        let state = self.sessions[session];
        match (event, state) {
            (64..96, State::Undecided) => self.decide(session, input),
            (96..112, State::Undecided) => self.give_up(session),
            (64..112, State::Waiting) => {
                self.sessions[session] = State::Over;
                assert!(self.pool.abandon(self.waiting[&session]));
                assert!(!self.pool.abandon(self.waiting[&session]));
            }
            (64..96, State::Connected(wire)) => self.keep(session, wire),
            (96..112, State::Connected(wire)) => self.close(session, wire),
            (112..160, State::Connected(wire)) => self.submit(wire, input),
            (160..208, State::Connected(wire)) => self.exchange(session, wire, event, input),
            (208..224, State::Connected(wire)) => {
                let bytes = input.text();
                if let Some(wire) = self.wires.get_mut(&wire) {
                    wire.babble(&bytes);
                }
            }
            (224.., _) => {
                // an idle connection ends
                let at = usize::from(event & 7);
                let idle = self.pool.idle().nth(at).copied();
                if let Some(wire) = idle {
                    assert!(self.pool.remove(self.idle[&wire]));
                    assert!(!self.pool.remove(self.idle[&wire]));
                    self.drop_wire(wire);
                    self.resume();
                }
            }
            _ => {}
        }
    }

    fn connect(&mut self) {
        let session = self.sessions.len();
        self.sessions.push(State::Over);
        let picky = self.picky;
        match self.pool.admit(|wire| fitness(picky, *wire, session)) {
            Admission::Wait => {
                self.waiting.insert(session, self.pool.enqueue(session));
                self.sessions[session] = State::Waiting;
            }
            Admission::Refuse => {
                assert!(self.backlog.is_some() && self.in_use() >= self.size);
            }
            admission => self.admitted(session, admission),
        }
    }

    fn admitted(&mut self, session: usize, admission: Admission<usize>) {
        self.sessions[session] = match admission {
            Admission::Reuse(wire) => {
                assert_eq!(fitness(self.picky, wire, session), Fitness::Fits);
                State::Connected(wire)
            }
            Admission::Connect => State::Connected(self.open()),
            Admission::Replace(wire) => {
                assert_eq!(fitness(self.picky, wire, session), Fitness::Unfit);
                self.drop_wire(wire);
                State::Connected(self.open())
            }
            Admission::Undecided => State::Undecided,
            other => panic!("{other:?} for one that was told to wait"),
        };
    }

    fn open(&mut self) -> usize {
        let wire = self.opened;
        self.opened += 1;
        self.wires
            .insert(wire, Wire::new(&self.buffers, self.persona));
        self.calls.insert(wire, VecDeque::new());
        wire
    }

    fn drop_wire(&mut self, wire: usize) {
        assert!(self.wires.remove(&wire).is_some(), "it is closed once");
        self.calls.remove(&wire);
    }

    /// It turns out what an undecided session needs.
    fn decide(&mut self, session: usize, input: &mut Input<'_>) {
        let picky = self.picky;
        let wants_idle = input.flag();
        let alike = |wire: &usize| fitness(picky, *wire, session) == Fitness::MayFit;
        let taken = self.pool.take(|wire| wants_idle && alike(wire));
        let wire = taken.unwrap_or_else(|| {
            if let Some(evicted) = self.pool.claim() {
                self.drop_wire(evicted);
            }
            self.open()
        });
        self.sessions[session] = State::Connected(wire);
    }

    fn give_up(&mut self, session: usize) {
        self.sessions[session] = State::Over;
        self.pool.release();
        self.resume();
    }

    /// A session is done with its connection, which is kept if it is fit for that.
    fn keep(&mut self, session: usize, wire: usize) {
        if !self.wires[&wire].pipeline.is_quiet() {
            return self.close(session, wire);
        }
        assert!(self.calls[&wire].is_empty());
        self.sessions[session] = State::Over;
        let (place, evicted) = self.pool.put(wire, true);
        self.idle.insert(wire, place);
        if let Some(evicted) = evicted {
            self.drop_wire(evicted);
        }
        self.resume();
    }

    fn close(&mut self, session: usize, wire: usize) {
        self.sessions[session] = State::Over;
        self.drop_wire(wire);
        self.pool.release();
        self.resume();
    }

    /// There is room for one more.
    fn resume(&mut self) {
        let picky = self.picky;
        let Some(waiter) = self.pool.next_waiting().copied() else {
            return;
        };
        assert_eq!(self.sessions[waiter], State::Waiting);
        let resumed = self.pool.resume(|wire| fitness(picky, *wire, waiter));
        match resumed {
            Some((session, admission)) => {
                assert_eq!(session, waiter);
                self.admitted(session, admission);
            }
            // it was not one in use that ended
            None => assert!(self.in_use() >= self.size, "somebody waits"),
        }
    }

    fn submit(&mut self, at: usize, input: &mut Input<'_>) {
        let Some(wire) = self.wires.get_mut(&at) else {
            return;
        };
        let mut call = Call::read(input, self.asked);
        self.asked += 1;
        if let Err(refusal) = wire.submit(at, &call, input) {
            call = match refusal {
                Refusal::AskVersion => Call::Version,
                Refusal::AskMeta => Call::MetaNoop,
                Refusal::Never => return,
            };
            assert_eq!(wire.submit(at, &call, input), Ok(()));
        }
        self.calls.entry(at).or_default().push_back(call);
    }

    fn exchange(&mut self, session: usize, at: usize, event: u8, input: &mut Input<'_>) {
        let Some(wire) = self.wires.get_mut(&at) else {
            return;
        };
        match event {
            160..176 => {
                wire.send(input, None);
            }
            176..184 => {
                wire.serve();
            }
            184..192 => wire.serve_wrongly(input),
            _ => {
                for (_, tag, reply) in wire.receive(input.size()) {
                    assert_eq!(tag, at);
                    let call = self.calls.get_mut(&at).and_then(VecDeque::pop_front);
                    let call = call.expect("it was called");
                    let said = seen(reply.clone());
                    assert!(wire.may_get(&call, &said), "{said:?} for {call:?}");
                    self.buffers.recycle(reply);
                }
                if wire.is_over() {
                    self.close(session, at);
                }
            }
        }
    }

    fn count(&self, is: impl Fn(&State) -> bool) -> usize {
        self.sessions.iter().filter(|state| is(state)).count()
    }

    fn in_use(&self) -> usize {
        self.count(|state| matches!(state, State::Connected(_) | State::Undecided))
    }

    fn check(&self) {
        for wire in self.wires.values() {
            wire.check();
        }
        let idle = self.pool.idle().count();
        let connected = self.count(|state| matches!(state, State::Connected(_)));
        let undecided = self.count(|state| *state == State::Undecided);
        let waiting = self.count(|state| *state == State::Waiting);
        // each connection has one place
        assert_eq!(self.wires.len(), idle + connected);
        for wire in self.pool.idle() {
            assert!(self.wires[wire].pipeline.is_quiet());
        }
        let counted = idle + connected + undecided + waiting;
        assert_eq!(self.pool.connections(), counted);
        assert_eq!(self.pool.is_unused(), counted == 0);
        assert!(idle <= self.size);
        if let Some(backlog) = self.backlog {
            assert!(connected + undecided <= self.size, "too many in use");
            assert!(idle + connected <= self.size, "too many are open");
            assert!(waiting <= backlog);
            let full = connected + undecided == self.size;
            assert!(waiting == 0 || full, "somebody waits for nothing");
        } else {
            assert_eq!(waiting, 0);
        }
    }

    /// Everybody is done: nobody waits, and nothing is counted.
    fn finish(&mut self) {
        loop {
            let over = |state: &State| matches!(state, State::Over | State::Waiting);
            let Some(session) = self.sessions.iter().position(|state| !over(state)) else {
                break;
            };
            match self.sessions[session] {
                State::Connected(wire) => self.keep(session, wire),
                _ => self.give_up(session),
            }
            self.check();
        }
        assert_eq!(self.count(|state| *state == State::Waiting), 0);
        let idle: Vec<usize> = self.pool.idle().copied().collect();
        for wire in idle {
            assert!(self.pool.remove(self.idle[&wire]));
        }
        assert!(self.pool.is_unused());
    }
}
