//! The server at the other end.

use super::Wire;
use crate::input::Input;
use crate::metacalls;
use crate::requests::{Read, Request, read};
use crate::server::answer;

impl Wire {
    /// The server executes the next command, if it has one.
    pub fn serve(&mut self) -> bool {
        match read(&self.requests) {
            Read::Request(request, len) => {
                self.replies.extend(answer(&request, self.persona));
                self.requests.drain(..len);
                true
            }
            Read::Incomplete => false,
            other => panic!("the server finds {other:?}"),
        }
    }

    /// The server makes a mistake at the next command, if that is a meta command.
    pub fn serve_wrongly(&mut self, input: &mut Input<'_>) {
        let Read::Request(request, len) = read(&self.requests) else {
            return;
        };
        let is_meta =
            |request: &Request| matches!(request.words[0][..], [b'm', b'g' | b's' | b'd' | b'a']);
        if !is_meta(&request) {
            return;
        }
        let rest = &self.requests[len..];
        let good = answer(&request, self.persona);
        let mistake = match input.below(6) {
            // with the next one's answer, if that is a meta command as well
            0 => match read(rest) {
                Read::Request(next, next_len) if is_meta(&next) => {
                    let swapped = [answer(&next, self.persona), good].concat();
                    self.requests.drain(..len + next_len);
                    self.crossed = true;
                    return self.replies.extend(swapped);
                }
                _ => return,
            },
            1 => Vec::new(),
            2 => [good.clone(), good].concat(),
            3 => metacalls::answer(&request, Some("deadbeef")),
            4 => {
                // another status
                let other = [&b"HD"[..], b"EN", b"VA", b"NF", b"EX"][input.below(5)];
                [other, good.get(2..).unwrap_or_default()].concat()
            }
            _ => {
                // what is behind may make something else of it
                self.faulty = true;
                good[..input.size() % good.len()].to_vec()
            }
        };
        self.requests.drain(..len);
        self.crossed = true;
        self.replies.extend(mistake);
    }

    /// The server sends what nobody asked for.
    pub fn babble(&mut self, bytes: &[u8]) {
        self.replies.extend(bytes);
        self.faulty |= !bytes.is_empty();
    }
}
