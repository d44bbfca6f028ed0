//! Meta commands on the wire. The order of flags matters: what changes the item comes first, so
//! that what is returned is how the item is then; and memcached compares `R` with the time that
//! remains before a `T` changes it only if it comes before.

use super::{Asked, Meta, MetaOp, Mode, Word};
use crate::protocol::number::Digits;

/// What a command line is written to.
pub(in crate::protocol) trait Words {
    /// A word of a letter and a text.
    fn flag(&mut self, letter: u8, text: &[u8]);
}

fn number(words: &mut impl Words, letter: u8, number: Option<u64>) {
    if let Some(number) = number {
        words.flag(letter, Digits::from(number).as_bytes());
    }
}

fn ttl(words: &mut impl Words, letter: u8, seconds: Option<i32>) {
    let Some(seconds) = seconds else { return };
    let digits = Digits::from(u64::from(seconds.unsigned_abs()));
    match seconds < 0 {
        false => words.flag(letter, digits.as_bytes()),
        true => words.flag(letter, &[b"-", digits.as_bytes()].concat()),
    }
}

fn plain(words: &mut impl Words, letter: u8, set: bool) {
    if set {
        words.flag(letter, b"");
    }
}

impl Meta<'_> {
    /// Writes the flags behind the opaque. Returns what the reply has to have.
    pub(in crate::protocol) fn write_flags(&self, words: &mut impl Words) -> Asked {
        let mut asked = Asked {
            verb: Word::Get,
            value: false,
            if_changed: false,
            fields: 0,
        };
        // in the order of FIELDS
        let mut fields = [false; 6];
        match &self.op {
            MetaOp::Get(get) => {
                ttl(words, b'R', get.recache);
                ttl(words, b'N', get.vivify);
                ttl(words, b'T', get.touch);
                number(words, b'C', get.if_changed);
                plain(words, b'u', get.no_bump);
                plain(words, b'v', get.value);
                asked.value = get.value;
                asked.if_changed = get.if_changed.is_some();
                fields = [
                    get.flags,
                    get.cas,
                    get.ttl,
                    get.size,
                    get.hit,
                    get.last_access,
                ];
            }
            MetaOp::Set(set) => {
                asked.verb = Word::Set;
                ttl(words, b'T', set.ttl);
                number(words, b'F', set.flags.map(u64::from));
                number(words, b'C', set.cas);
                number(words, b'E', set.new_cas);
                match set.mode {
                    Mode::Set => {}
                    Mode::Add => words.flag(b'M', b"E"),
                    Mode::Replace => words.flag(b'M', b"R"),
                    Mode::Append => words.flag(b'M', b"A"),
                    Mode::Prepend => words.flag(b'M', b"P"),
                }
                ttl(words, b'N', set.vivify);
                fields[1] = set.return_cas;
                fields[3] = set.return_size;
            }
            MetaOp::Delete(delete) => {
                asked.verb = Word::Delete;
                number(words, b'C', delete.cas);
                number(words, b'E', delete.new_cas);
                plain(words, b'I', delete.stale);
                ttl(words, b'T', delete.ttl);
                plain(words, b'x', delete.drop_value);
            }
            MetaOp::Arith(arith) => {
                asked.verb = Word::Arith;
                ttl(words, b'N', arith.vivify);
                number(words, b'J', arith.initial);
                number(words, b'D', arith.delta);
                if arith.decr {
                    words.flag(b'M', b"D");
                }
                ttl(words, b'T', arith.ttl);
                number(words, b'C', arith.cas);
                plain(words, b'v', true);
                asked.value = true;
                fields[2] = arith.return_ttl;
            }
        }
        for (bit, (letter, wanted)) in super::FIELDS.iter().zip(fields).enumerate() {
            plain(words, *letter, wanted);
            asked.fields |= u8::from(wanted) << bit;
        }
        asked
    }
}
