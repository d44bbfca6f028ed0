//! A pipeline that is divided among servers: each gets its commands, in order, as memcached reads them,
//! and together they are the whole. Where values may live for a limited time only, every expiry that a
//! command sets is bounded, and nothing else is changed.
//!
//! Input: a byte for the number of servers; for each whether it bounds, and by what; the number of
//! commands; for each its server, and the command as for `encoder`.

use ngx_http_lua_memcached_module::protocol::{Batch, Pipeline, Server, Version};

use crate::encoder::{Call, LIMITS};
use crate::input::Input;
use crate::requests::{Read, Request, read, signed};

/// What a server makes of an expiry.
#[derive(Clone, Copy)]
enum Bound {
    No,
    /// As a group does it: what lives longer, or for ever, lives so long.
    Most(i64),
    /// Any number for any number.
    Always(i64),
}

impl Bound {
    fn read(input: &mut Input<'_>) -> Bound {
        match input.below(4) {
            0 => Bound::No,
            1 => Bound::Always((i64::from(input.byte()) - 128) << (8 * input.below(8))),
            _ => Bound::Most(1 + i64::from(input.byte())),
        }
    }

    fn of(self, exptime: i64) -> i64 {
        match self {
            Bound::Most(most) if exptime == 0 || exptime > most => most,
            Bound::No | Bound::Most(_) => exptime,
            Bound::Always(always) => always,
        }
    }

    /// A number that stays the same stays as it is written.
    fn word(self, word: &[u8]) -> Vec<u8> {
        match signed(word).map(|number| (number, self.of(number))) {
            Some((number, bounded)) if number != bounded => bounded.to_string().into(),
            _ => word.to_vec(),
        }
    }

    /// What is meant by a command for this server.
    fn request(self, mut request: Request) -> Request {
        if let Bound::No = self {
            return request;
        }
        let words = &mut request.words;
        let name = words[0].clone();
        let exptime = match name.as_slice() {
            b"gat" | b"gats" => 1,
            b"touch" => 2,
            b"set" | b"add" | b"replace" | b"append" | b"prepend" | b"cas" => 3,
            b"mg" | b"ms" | b"md" | b"ma" => {
                // they live for ever if nothing is said; append and prepend change no expiry
                let says = |word: &Vec<u8>| word[0] == b'T' || word == b"MA" || word == b"MP";
                if name == b"ms" && !words[2..].iter().any(says) {
                    words.push(b"T0".to_vec());
                }
                for word in &mut words[2..] {
                    if let [letter @ (b'T' | b'N'), number @ ..] = word.as_slice() {
                        *word = [&[*letter][..], &self.word(number)].concat();
                    }
                }
                words[2..].sort();
                return request;
            }
            _ => return request,
        };
        words[exptime] = self.word(&words[exptime]);
        request
    }
}

/// Whose key decides: that of a list is its first one.
fn key(request: &Request) -> Option<&[u8]> {
    let at = match request.words[0].as_slice() {
        b"gat" | b"gats" => 2,
        b"flush_all" | b"stats" | b"verbosity" | b"version" => return None,
        _ => 1,
    };
    request.words.get(at).map(Vec::as_slice)
}

/// What a server reads, which is no more and no less than commands.
fn requests(batch: &Batch) -> Vec<Request> {
    let mut pipeline = Pipeline::new(LIMITS);
    pipeline.assume(Server::Memcached(Version::new(1, 6, 45)));
    assert!(pipeline.submit_batch(0, batch).is_ok());
    assert_eq!(pipeline.in_flight(), batch.len());
    let mut rest = pipeline.unsent();
    assert_eq!(rest.len(), batch.text_len());
    let mut all = Vec::new();
    while !rest.is_empty() {
        match read(rest) {
            Read::Request(mut request, len) => {
                if request.words[0].starts_with(b"m") {
                    // flags may be in any order
                    request.words[2..].sort();
                }
                all.push(request);
                rest = &rest[len..];
            }
            other => panic!("{other:?} instead of a command"),
        }
    }
    all
}

pub fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let bounds: Vec<_> = (0..1 + input.below(4))
        .map(|_| Bound::read(&mut input))
        .collect();
    let mut batch = Batch::new();
    let mut meant: Vec<(usize, Request)> = Vec::new();
    for _ in 0..1 + input.below(12) {
        let server = input.below(bounds.len());
        let call = Call::read(&mut input);
        let keys = call.keys();
        let meta = call.meta.as_ref().map(|meta| meta.meta(keys[0]));
        let request = call.meant();
        // it has no reply, and is never in a pipeline
        let quits = request.words[0] == b"quit";
        if !quits && batch.push(&call.command(&keys, meta.as_ref())).is_ok() {
            meant.push((server, request));
        }
    }
    assert_eq!(batch.len(), meant.len());
    let keys: Vec<_> = meant.iter().map(|(_, request)| key(request)).collect();
    assert_eq!(batch.keys().collect::<Vec<_>>(), keys);

    let places: Vec<_> = (0..meant.len()).collect();
    let whole = batch.part(&places, None).unwrap();
    assert_eq!(requests(&whole), requests(&batch));

    let mut together: Vec<Option<Request>> = vec![None; meant.len()];
    for (server, bound) in bounds.iter().copied().enumerate() {
        let mine = |place: &usize| meant[*place].0 == server;
        let places: Vec<_> = places.iter().copied().filter(mine).collect();
        let bounded = |exptime| bound.of(exptime);
        let part = match bound {
            Bound::No => batch.part(&places, None),
            _ => batch.part(&places, Some(&bounded)),
        };
        let part = part.unwrap();
        assert_eq!(part.len(), places.len());
        let all = places.iter().map(|place| &meant[*place].1);
        let is = |names: &[&[u8]]| {
            all.clone()
                .any(|request| names.contains(&&*request.words[0]))
        };
        assert_eq!(part.is_gated(), is(&[b"mg", b"ms", b"md", b"ma"]));
        assert_eq!(
            part.can_share(),
            !is(&[b"flush_all", b"stats", b"verbosity"])
        );
        let keys: Vec<_> = all.clone().map(key).collect();
        assert_eq!(part.keys().collect::<Vec<_>>(), keys);
        let read = requests(&part);
        assert_eq!(read.len(), places.len());
        for (place, request) in places.iter().zip(read) {
            together[*place] = Some(request);
        }
    }
    for ((server, request), got) in meant.into_iter().zip(together) {
        assert_eq!(got, Some(bounds[server].request(request)));
    }
}
