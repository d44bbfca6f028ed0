//! A connection with its pipeline, the server at its other end, and a plain model of what should be
//! in flight on it.

use std::collections::VecDeque;

use ngx_http_lua_memcached_module::protocol::{Batch, Buffers, Limits, Pipeline, Reply, VALUE_END};

use crate::decoder::receive;
use crate::input::Input;
use crate::requests::{Read, read};
use crate::server::{Call, answer};

const LIMITS: Limits = Limits {
    max_line: 300,
    max_value: 40_000,
};

/// Most memory of a read buffer in bytes: values of a list, at most four, lie in one.
const MOST: usize = 10 * 40_000;

/// A command in flight, and where it stands in the stream of sent bytes.
#[derive(Clone)]
struct Flight {
    tag: usize,
    begin: usize,
    end: usize,
    get: Option<(String, bool)>,
}

pub struct Wire {
    pub pipeline: Pipeline<usize>,
    flights: VecDeque<Flight>,
    /// Number of the first of them.
    oldest: u64,
    /// Length of the stream, and how much of it was sent.
    written: usize,
    sent: usize,
    /// Sent and not executed.
    requests: Vec<u8>,
    /// Answered and not received.
    replies: VecDeque<u8>,
    /// The server sent what nobody asked for.
    pub faulty: bool,
}

impl Wire {
    pub fn new(buffers: &Buffers) -> Self {
        Wire {
            pipeline: Pipeline::new(LIMITS).with_buffers(buffers.clone()),
            flights: VecDeque::new(),
            oldest: 0,
            written: 0,
            sent: 0,
            requests: Vec::new(),
            replies: VecDeque::new(),
            faulty: false,
        }
    }

    /// The model and the pipeline agree.
    pub fn check(&self) {
        let pipeline = &self.pipeline;
        let flights = &self.flights;
        assert_eq!(pipeline.unsent().len(), self.written - self.sent);
        if pipeline.is_broken() {
            return;
        }
        assert_eq!(pipeline.in_flight(), flights.len());
        assert!(pipeline.tags().eq(flights.iter().map(|flight| flight.tag)));
        assert_eq!(pipeline.oldest(), self.oldest);
        let newest = (self.oldest + flights.len() as u64).checked_sub(1);
        assert_eq!(pipeline.newest(), newest.filter(|_| !flights.is_empty()));
        let mut first_unsent = None;
        for (number, flight) in (self.oldest..).zip(flights) {
            assert_eq!(pipeline.is_sent(number), flight.end <= self.sent);
            assert_eq!(pipeline.has_begun(number), flight.begin < self.sent);
            let get = flight.get.as_ref().map(|(key, cas)| (key.as_bytes(), *cas));
            assert_eq!(pipeline.single_get(number), get);
            if flight.end > self.sent {
                first_unsent = first_unsent.or(Some(number));
            }
        }
        if let Some(first) = first_unsent {
            assert_eq!(pipeline.first_unsent(), first);
        }
        let quiet = flights.is_empty() && self.written == self.sent;
        assert_eq!(pipeline.is_quiet(), quiet && pipeline.buffered().is_empty());
        self.check_records();
    }

    /// What goes into one TLS record is whole commands, as many as fit.
    fn check_records(&self) {
        for most in [20, 100] {
            let len = self.pipeline.unsent_commands(most).len();
            let begins = || self.flights.iter().map(|flight| flight.begin);
            let ends = begins().chain([self.written]);
            let rests = ends
                .filter(|end| *end > self.sent)
                .map(|end| end - self.sent);
            let mut fitting: Vec<usize> = rests.collect();
            fitting.dedup();
            let best = fitting.iter().rev().find(|rest| **rest <= most);
            let best = best.or(fitting.first()).copied().unwrap_or(0);
            assert_eq!(len, best, "of {fitting:?}, at most {most}");
        }
    }

    fn take_off(&mut self, tag: usize, call: &Call, len: usize) {
        let get = match call {
            Call::Get { key, cas } => Some((key.clone(), *cas)),
            _ => None,
        };
        self.flights.push_back(Flight {
            tag,
            begin: self.written,
            end: self.written + len,
            get,
        });
        self.written += len;
    }

    /// Gives it a command, in one of the ways there are.
    pub fn submit(&mut self, tag: usize, call: &Call, input: &mut Input<'_>) {
        let before = self.pipeline.unsent().len();
        let way = input.byte();
        let len = call.with_command(|command| {
            if way & 1 == 0 {
                assert_eq!(self.pipeline.submit(tag, command), Ok(()));
                return self.pipeline.unsent().len() - before;
            }
            let value = match self.pipeline.submit_head(tag, command) {
                Ok(value) => value,
                Err(refused) => panic!("{refused}"),
            };
            if value.is_empty() {
                return self.pipeline.unsent().len() - before;
            }
            let mut all = self.pipeline.unsent().to_vec();
            all.extend_from_slice(value);
            all.extend_from_slice(VALUE_END);
            let taken = all.len() * usize::from(way >> 1) / 127;
            self.requests.extend_from_slice(&all[..taken]);
            assert!(self.pipeline.sent_with(taken, value));
            self.sent += taken;
            all.len() - before
        });
        self.take_off(tag, call, len);
    }

    /// Gives it several commands of one operation.
    pub fn submit_batch(&mut self, tag: usize, calls: &[Call]) {
        let mut batch = Batch::new();
        let mut lens = Vec::new();
        for call in calls {
            let before = batch.text_len();
            assert_eq!(call.with_command(|command| batch.push(command)), Ok(()));
            lens.push(batch.text_len() - before);
        }
        assert_eq!(batch.len(), calls.len());
        assert!(self.pipeline.submit_batch(tag, &batch));
        for (call, len) in calls.iter().zip(lens) {
            self.take_off(tag, call, len);
        }
    }

    /// The number of an earlier exchange that asks for the same as the last one and of which
    /// nothing was sent. The last one is taken back then.
    pub fn ask_once(&mut self) -> Option<u64> {
        let newest = self.pipeline.newest()?;
        let last = self.pipeline.single_get(newest)?;
        let same = |number: &u64| {
            !self.pipeline.has_begun(*number) && self.pipeline.single_get(*number) == Some(last)
        };
        let first = (self.oldest..newest).find(same)?;
        self.withdraw();
        Some(first)
    }

    /// Takes the last exchange back, unless some of it was sent.
    pub fn withdraw(&mut self) -> Option<usize> {
        self.pipeline.withdraw();
        self.flights
            .back()
            .filter(|flight| flight.begin >= self.sent)?;
        let last = self.flights.pop_back()?;
        self.written = last.begin;
        Some(last.tag)
    }

    /// The socket takes some of what is unsent.
    pub fn send(&mut self, input: &mut Input<'_>) {
        let all = input.byte();
        let unsent = match all {
            255 => self.pipeline.unsent(),
            254 => self.pipeline.unsent_commands(usize::from(all)),
            _ => {
                let unsent = self.pipeline.unsent();
                &unsent[..usize::from(all).min(unsent.len())]
            }
        };
        self.requests.extend_from_slice(unsent);
        let n = unsent.len();
        self.pipeline.sent(n);
        self.sent += n;
    }

    /// The socket takes all of it.
    pub fn send_all(&mut self) {
        let unsent = self.pipeline.unsent();
        self.requests.extend_from_slice(unsent);
        let n = unsent.len();
        self.pipeline.sent(n);
        self.sent += n;
    }

    /// The server executes the next command, if it has one.
    pub fn serve(&mut self) -> bool {
        match read(&self.requests) {
            Read::Request(request, len) => {
                self.replies.extend(answer(&request));
                self.requests.drain(..len);
                true
            }
            Read::Incomplete => false,
            other => panic!("the server finds {other:?}"),
        }
    }

    /// The server sends what nobody asked for.
    pub fn babble(&mut self, bytes: &[u8]) {
        self.replies.extend(bytes);
        self.faulty |= !bytes.is_empty();
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
                let flight = self.flights.pop_front();
                assert_eq!(flight.as_ref().map(|flight| flight.tag), Some(tag));
                assert_eq!(number, self.oldest);
                // what comes before the question is no answer, unless it says why there is none
                let asked = flight.is_some_and(|flight| flight.begin < self.sent);
                let broken = self.pipeline.is_broken();
                let told = broken && (matches!(reply, Reply::Malformed(_)) || reply.is_error());
                assert!(asked || told);
                self.oldest += 1;
                replies.push((number, tag, reply));
            }
        }
        assert!(self.pipeline.next_reply().is_none());
        replies
    }

    /// Whether it is to be closed: it is out of step, or has bytes that nobody waits for.
    pub fn is_over(&self) -> bool {
        let pipeline = &self.pipeline;
        let over =
            pipeline.is_broken() || pipeline.in_flight() == 0 && !pipeline.buffered().is_empty();
        assert!(!over || self.faulty, "out of step with a good server");
        over
    }

    /// The exchanges of which nothing was sent, for another connection.
    pub fn split_unsent(&mut self) -> Wire {
        let pipeline = self.pipeline.split_unsent().expect("memory");
        let kept = self
            .flights
            .iter()
            .take_while(|flight| flight.begin < self.sent);
        let kept = kept.count();
        let mut flights = self.flights.split_off(kept);
        let from = flights.front().map_or(self.written, |flight| flight.begin);
        for flight in &mut flights {
            flight.begin -= from;
            flight.end -= from;
        }
        let written = self.written - from;
        self.written = from;
        Wire {
            pipeline,
            oldest: self.oldest + kept as u64,
            flights,
            written,
            sent: 0,
            requests: Vec::new(),
            replies: VecDeque::new(),
            faulty: false,
        }
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
