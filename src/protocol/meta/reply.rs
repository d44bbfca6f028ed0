//! The lines of meta commands' replies.

use super::{Asked, FIELDS, Word};
use crate::protocol::number::Digits;
use crate::protocol::reply::{Malformed, MetaItem, Reply};

/// What a reply's line says.
#[derive(PartialEq, Eq, Debug)]
pub(in crate::protocol) enum Head {
    /// All there is.
    Whole(Reply),
    /// An item whose value follows. Its length in digits.
    Value(Digits, MetaItem),
    /// The length has more digits than a number of 64 bits.
    Endless,
}

/// The statuses that are no success, in the words of other commands.
fn failure(verb: Word, status: &[u8]) -> Option<Reply> {
    let line = |text: &str| Some(Reply::Line(text.into()));
    match (verb, status) {
        (Word::Get, b"EN") => Some(Reply::Miss),
        (Word::Set | Word::Arith, b"NS") => line("NOT_STORED"),
        (Word::Set | Word::Delete | Word::Arith, b"EX") => line("EXISTS"),
        (Word::Set | Word::Delete | Word::Arith, b"NF") => line("NOT_FOUND"),
        _ => None,
    }
}

/// The meaning of a line that is no error line. `sent`: what was sent, from the key to the opaque.
pub(in crate::protocol) fn head(line: &[u8], asked: Asked, sent: &[u8]) -> Result<Head, Malformed> {
    // up to 1.6.17 there are doubled and trailing spaces
    let mut words = line.split(|&byte| byte == b' ').filter(|w| !w.is_empty());
    let status = words.next().unwrap_or_default();
    if line.first() == Some(&b' ') {
        return Err(Malformed::UnexpectedLine);
    }
    let opaque = sent.rsplit(|&byte| byte == b' ').next().unwrap_or_default();
    if let Some(reply) = failure(asked.verb, status) {
        let mut words = words.peekable();
        // an old server may say no more than the status
        if words.peek().is_some() {
            fields(words, asked, opaque)?;
        }
        return Ok(Head::Whole(reply));
    }
    let len = match (status, asked.value) {
        (b"VA", true) => Some(words.next().unwrap_or_default()),
        (b"HD", false) => None,
        // the value is the one that is known
        (b"HD", true) if asked.if_changed => None,
        _ => return Err(Malformed::UnexpectedLine),
    };
    let (item, found) = fields(words, asked, opaque)?;
    if found != asked.fields {
        return Err(Malformed::UnexpectedFlags);
    }
    match len {
        None => Ok(Head::Whole(Reply::Meta(Box::new(item)))),
        Some(len) => match Digits::parse(len) {
            Some(len) => Ok(Head::Value(len, item)),
            None if !len.is_empty() && len.iter().all(u8::is_ascii_digit) => Ok(Head::Endless),
            None => Err(Malformed::UnexpectedLine),
        },
    }
}

/// What the flags of a reply say, and which of [`FIELDS`] are there.
fn fields<'a>(
    words: impl Iterator<Item = &'a [u8]>,
    asked: Asked,
    opaque: &[u8],
) -> Result<(MetaItem, u8), Malformed> {
    let mut item = MetaItem::default();
    let (mut found, mut repeated) = (0, false);
    for word in words {
        let Some((&letter, text)) = word.split_first() else {
            continue;
        };
        let won = match letter {
            b'O' if word == opaque && !repeated => {
                repeated = true;
                continue;
            }
            b'O' => return Err(Malformed::UnexpectedOpaque),
            b'W' => Some(&mut item.won),
            b'X' => Some(&mut item.stale),
            b'Z' => Some(&mut item.lost),
            _ => None,
        };
        if let Some(won) = won {
            if *won || !text.is_empty() || asked.verb != Word::Get {
                return Err(Malformed::UnexpectedFlags);
            }
            *won = true;
            continue;
        }
        let bit = FIELDS.iter().position(|field| *field == letter);
        let bit = bit.map_or(0, |bit| 1 << bit);
        if asked.fields & bit == 0 || found & bit != 0 || !item.set(letter, text) {
            return Err(Malformed::UnexpectedFlags);
        }
        found |= bit;
    }
    match repeated {
        true => Ok((item, found)),
        false => Err(Malformed::UnexpectedOpaque),
    }
}

impl MetaItem {
    /// Takes a field over. False if that is no text for it.
    fn set(&mut self, letter: u8, text: &[u8]) -> bool {
        let digits = Digits::parse(text);
        let number = digits.and_then(|digits| digits.number());
        match letter {
            b'f' => self.flags = digits,
            b'c' => self.cas = digits,
            b't' if text == b"-1" => {
                self.ttl = Some(-1);
                return true;
            }
            // what has expired is a negative number that was printed as an unsigned one
            b't' => {
                let seconds = number.and_then(|number| u32::try_from(number).ok());
                self.ttl = seconds.map(|seconds| i32::try_from(seconds).unwrap_or(0));
                return seconds.is_some();
            }
            b's' => self.size = number,
            b'l' => self.last_access = number,
            _ => {
                self.hit = match text {
                    b"0" => Some(false),
                    b"1" => Some(true),
                    _ => None,
                };
                return self.hit.is_some();
            }
        }
        number.is_some()
    }
}
