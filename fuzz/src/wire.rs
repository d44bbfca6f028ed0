//! A connection with its pipeline, the server at its other end, and a plain model of what should be
//! in flight on it.

use std::collections::VecDeque;

use ngx_http_lua_memcached_module::protocol::{
    Answer, Batch, Buffers, Limits, Pipeline, Refused, Reply, Server, VALUE_END,
};

use crate::decoder::receive;
use crate::input::Input;
use crate::metacalls::{Persona, Refusal, allows};
use crate::replies::Seen;
use crate::server::{Call, DEAD};

mod check;
mod far_end;

const LIMITS: Limits = Limits {
    max_line: 300,
    max_value: 40_000,
};

/// Most memory of a read buffer in bytes: values of a list, at most four, lie in one.
const MOST: usize = 10 * 40_000;

/// A command in flight.
#[derive(Clone)]
struct Flight {
    tag: usize,
    number: u64,
    /// Bytes of it, and how many were sent.
    len: usize,
    sent: usize,
    get: Option<(String, bool)>,
    reads: bool,
    list: bool,
    meta: bool,
    /// The reply to a question about the server. The first is `version`, the second `mn`.
    asks: Option<bool>,
}

/// What an exchange in flight is to its owner.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Exchange {
    pub number: u64,
    pub tag: usize,
    /// Some of it was sent.
    pub begun: bool,
    /// All of it was sent.
    pub sent: bool,
    /// It can be asked again.
    pub repeatable: bool,
    pub list: bool,
}

pub struct Wire {
    pub pipeline: Pipeline<usize>,
    persona: Persona,
    /// What the server has said of itself.
    known: Server,
    flights: VecDeque<Flight>,
    /// Number of the next one.
    next: u64,
    /// What is left to send of commands that were answered before they were sent.
    early: usize,
    /// Some of the reply to the oldest one was received.
    amid: bool,
    /// Sent and not executed.
    requests: Vec<u8>,
    /// Answered and not received.
    replies: VecDeque<u8>,
    /// The server sent what nobody asked for.
    pub faulty: bool,
    /// The server answered meta commands for each other, or not.
    pub crossed: bool,
    /// It answered by an error line behind which nobody knows where the next reply begins.
    spoiled: bool,
}

impl Wire {
    pub fn new(buffers: &Buffers, persona: Persona) -> Self {
        Wire {
            persona,
            known: Server::Unknown,
            crossed: false,
            pipeline: Pipeline::new(LIMITS).with_buffers(buffers.clone()),
            flights: VecDeque::new(),
            next: 0,
            early: 0,
            amid: false,
            requests: Vec::new(),
            replies: VecDeque::new(),
            faulty: false,
            spoiled: false,
        }
    }

    fn unsent(&self) -> usize {
        let rests = self.flights.iter().map(|flight| flight.len - flight.sent);
        self.early + rests.sum::<usize>()
    }

    fn oldest(&self) -> u64 {
        self.flights.front().map_or(self.next, |first| first.number)
    }

    /// The exchanges in flight, as they should be.
    pub fn exchanges(&self) -> Vec<Exchange> {
        let oldest = self.oldest();
        let exchange = |flight: &Flight| Exchange {
            number: flight.number,
            tag: flight.tag,
            begun: flight.sent > 0,
            sent: flight.sent == flight.len,
            repeatable: flight.reads && !(self.amid && flight.number == oldest),
            list: flight.list,
        };
        self.flights.iter().map(exchange).collect()
    }

    fn push_in_flight(&mut self, tag: usize, call: &Call, len: usize) {
        let get = match call {
            Call::Get {
                key,
                cas,
                touch: false,
            } => Some((key.clone(), *cas)),
            _ => None,
        };
        let reads = match call {
            Call::Get { touch, .. } | Call::Many { touch, .. } => !touch,
            _ => false,
        };
        self.flights.push_back(Flight {
            tag,
            number: self.next,
            len,
            sent: 0,
            reads,
            meta: matches!(call, Call::Meta(_)),
            asks: match call {
                Call::Version => Some(false),
                Call::MetaNoop => Some(true),
                _ => None,
            },
            list: matches!(call, Call::Many { keys, .. } if keys.len() > 1),
            get,
        });
        self.next += 1;
    }

    /// So many bytes were sent. The numbers of the exchanges whose they were.
    fn note_sent(&mut self, mut n: usize) -> Vec<u64> {
        let early = n.min(self.early);
        self.early -= early;
        n -= early;
        let mut numbers = Vec::new();
        for flight in &mut self.flights {
            let part = n.min(flight.len - flight.sent);
            flight.sent += part;
            n -= part;
            if part > 0 {
                numbers.push(flight.number);
            }
        }
        assert_eq!(n, 0);
        numbers
    }

    /// What the pipeline's server is to be asked first, unless there is nothing.
    fn refusal(&self, calls: &[Call]) -> Result<(), Refusal> {
        let known = self.pipeline.server();
        let metas = calls.iter().filter_map(|call| match call {
            Call::Meta(call) => Some(call.needs()),
            _ => None,
        });
        metas.max().map_or(Ok(()), |needs| allows(known, needs))
    }

    /// What is known of another connection to the server.
    pub fn assume(&mut self, server: Server) {
        self.pipeline.assume(server);
        if self.known == Server::Unknown {
            self.known = server;
        }
    }

    /// Gives it a command, in one of the ways there are.
    pub fn submit(
        &mut self,
        tag: usize,
        call: &Call,
        input: &mut Input<'_>,
    ) -> Result<(), Refusal> {
        let way = input.byte();
        if way & 1 == 1 {
            self.pipeline.close_gaps();
        }
        let before = self.pipeline.unsent_len();
        if let Err(refusal) = self.refusal(std::slice::from_ref(call)) {
            let refused = call.with_command(|command| match way & 1 {
                0 => self.pipeline.submit(tag, command).err(),
                _ => self.pipeline.submit_head(tag, command).err(),
            });
            assert_eq!(refused.map(refusal_of), Some(Some(refusal)));
            return Err(refusal);
        }
        let mut taken = 0;
        let len = call.with_command(|command| {
            if way & 1 == 0 {
                assert_eq!(self.pipeline.submit(tag, command), Ok(()));
                return self.pipeline.unsent_len() - before;
            }
            let value = match self.pipeline.submit_head(tag, command) {
                Ok(value) => value,
                Err(refused) => panic!("{refused}"),
            };
            if value.is_empty() {
                return self.pipeline.unsent_len() - before;
            }
            let mut all = self.pipeline.unsent().to_vec();
            all.extend_from_slice(value);
            all.extend_from_slice(VALUE_END);
            taken = all.len() * usize::from(way >> 1) / 127;
            self.requests.extend_from_slice(&all[..taken]);
            assert!(self.pipeline.sent_with(taken, value));
            all.len() - before
        });
        self.push_in_flight(tag, call, len);
        self.note_sent(taken);
        Ok(())
    }

    /// Gives it several commands of one operation.
    pub fn submit_batch(&mut self, tag: usize, calls: &[Call]) -> Result<(), Refusal> {
        let mut batch = Batch::new();
        let mut lens = Vec::new();
        for call in calls {
            let before = batch.text_len();
            assert_eq!(call.with_command(|command| batch.push(command)), Ok(()));
            lens.push(batch.text_len() - before);
        }
        assert_eq!(batch.len(), calls.len());
        let refusal = self.refusal(calls);
        let refused = self.pipeline.submit_batch(tag, &batch).err();
        assert_eq!(refused.map(refusal_of), refusal.err().map(Some));
        refusal?;
        for (call, len) in calls.iter().zip(lens) {
            self.push_in_flight(tag, call, len);
        }
        Ok(())
    }

    /// The number of an earlier exchange that asks for the same as the last one, of which nothing
    /// was sent, and whose owner may be joined. The last one is taken back then.
    pub fn ask_once(&mut self, joinable: impl Fn(usize) -> bool) -> Option<u64> {
        let newest = self.pipeline.newest()?;
        let last = self.pipeline.single_get(newest)?;
        let same = |flight: &&Flight| {
            flight.sent == 0
                && flight.number < newest
                && joinable(flight.tag)
                && self.pipeline.single_get(flight.number) == Some(last)
        };
        let first = self.flights.iter().find(same)?.number;
        self.take_back();
        Some(first)
    }

    /// Takes the last exchange back, unless some of it was sent.
    pub fn take_back(&mut self) -> Option<usize> {
        self.pipeline.take_back();
        self.flights.back().filter(|flight| flight.sent == 0)?;
        let last = self.flights.pop_back()?;
        self.next = last.number;
        Some(last.tag)
    }

    /// Withdraws an exchange, unless some of it was sent.
    pub fn withdraw(&mut self, number: u64) -> bool {
        let all = self.flights.iter();
        let at = all
            .enumerate()
            .find(|(_, flight)| flight.number == number && flight.sent == 0)
            .map(|(at, _)| at);
        assert_eq!(self.pipeline.withdraw(number), at.is_some());
        at.and_then(|at| self.flights.remove(at)).is_some()
    }

    /// Takes over an exchange of another connection. Its number here. `None`: what this server
    /// makes of a meta command is not known to be the same.
    pub fn adopt(&mut self, tag: usize, other: &Wire, number: u64) -> Option<u64> {
        let flight = other.flights.iter().find(|flight| flight.number == number);
        let flight = flight.expect("it is in flight").clone();
        let adopted = self.pipeline.adopt(tag, &other.pipeline, number);
        if flight.meta && self.pipeline.server() != other.pipeline.server() {
            assert_eq!(adopted, None);
            return None;
        }
        assert_eq!(adopted, Some(self.next));
        self.flights.push_back(Flight {
            tag,
            number: self.next,
            sent: 0,
            ..flight
        });
        self.next += 1;
        Some(self.next - 1)
    }

    /// The socket takes some of what is unsent, but of no exchange from `until` on. The numbers of
    /// the exchanges whose it was.
    pub fn send(&mut self, input: &mut Input<'_>, until: Option<u64>) -> Vec<u64> {
        let all = input.byte();
        if input.flag() {
            self.pipeline.close_gaps();
            assert_eq!(self.pipeline.unsent().len(), self.unsent());
        }
        let unsent = match (all, until) {
            (_, Some(number)) => self.pipeline.unsent_before(number),
            (254, None) => self.pipeline.unsent_commands(usize::from(all)),
            (_, None) => self.pipeline.unsent(),
        };
        let n = match all {
            254 | 255 => unsent.len(),
            _ => usize::from(all).min(unsent.len()),
        };
        self.requests.extend_from_slice(&unsent[..n]);
        self.pipeline.sent(n);
        self.note_sent(n)
    }

    /// The socket takes all of it.
    pub fn send_all(&mut self, until: Option<u64>) -> Vec<u64> {
        self.pipeline.close_gaps();
        let unsent = match until {
            Some(number) => self.pipeline.unsent_before(number),
            None => self.pipeline.unsent(),
        };
        self.requests.extend_from_slice(unsent);
        let n = unsent.len();
        self.pipeline.sent(n);
        self.note_sent(n)
    }

    /// Whether it may get wrong replies.
    pub fn is_faulty(&self) -> bool {
        self.faulty || self.crossed
    }

    /// Whether a reply may be delivered: to its own command, or because of what the server did.
    pub fn may_get(&self, call: &Call, seen: &Seen) -> bool {
        let wanted = call.wanted(self.persona);
        self.faulty
            || *seen == wanted
            || self.crossed && !matches!(call, Call::Meta(call) if !call.may_get(seen))
    }

    /// Receives some bytes. The replies that they complete, and the numbers of their exchanges.
    pub fn receive(&mut self, most: usize) -> Vec<(u64, usize, Reply)> {
        let mut replies = Vec::new();
        let bytes: Vec<u8> = self.replies.iter().copied().take(most).collect();
        let is_over = |pipeline: &Pipeline<usize>| {
            pipeline.is_broken() || pipeline.in_flight() == 0 && !pipeline.buffered().is_empty()
        };
        let mut rest = bytes.as_slice();
        while !rest.is_empty() && !is_over(&self.pipeline) {
            let n = receive(&mut self.pipeline, rest, MOST);
            rest = &rest[n..];
            self.replies.drain(..n);
            loop {
                let number = self.pipeline.oldest();
                let Some((tag, reply)) = self.pipeline.next_reply() else {
                    break;
                };
                assert_eq!(number, self.oldest());
                let flight = self.flights.pop_front().expect("it was in flight");
                assert_eq!(flight.tag, tag);
                // what comes before the question is no answer, unless it says why there is none
                let told = matches!(reply, Reply::Malformed(_)) || reply.is_error();
                assert!(flight.sent > 0 || self.pipeline.is_broken() && told);
                self.early += flight.len - flight.sent;
                if let Some(noop) = flight.asks
                    && !self.is_faulty()
                {
                    self.known = self.persona.told(self.known, noop);
                }
                let dead = matches!(&reply, Reply::Line(line) if line.starts_with(DEAD));
                self.spoiled |= dead && self.pipeline.is_broken();
                assert!(!(dead && flight.list) || self.spoiled, "a list may go on");
                replies.push((number, tag, reply));
            }
            let pipeline = &self.pipeline;
            self.amid = !pipeline.is_broken() && pipeline.is_amid_reply();
        }
        assert!(self.pipeline.next_reply().is_none());
        replies
    }

    /// Whether it is to be closed: it is out of step, or has bytes that nobody waits for.
    pub fn is_over(&self) -> bool {
        let pipeline = &self.pipeline;
        let over =
            pipeline.is_broken() || pipeline.in_flight() == 0 && !pipeline.buffered().is_empty();
        let expected = self.is_faulty() || self.spoiled;
        assert!(!over || expected, "out of step with a good server");
        over
    }

    /// Gives memory back at any time.
    pub fn shrink(&mut self, input: &mut Input<'_>) {
        match input.flag() {
            true => self.pipeline.trim(),
            false => self.pipeline.shrink(),
        }
    }

    pub fn tags(&self) -> Vec<usize> {
        self.flights.iter().map(|flight| flight.tag).collect()
    }
}

/// What has to be done about a refusal, if it is because of the server.
fn refusal_of(refused: Refused) -> Option<Refusal> {
    match refused.answer {
        Answer::VersionUnknown => Some(Refusal::AskVersion),
        Answer::MetaUnknown => Some(Refusal::AskMeta),
        Answer::NotSupported(_) => Some(Refusal::Never),
        _ => None,
    }
}
