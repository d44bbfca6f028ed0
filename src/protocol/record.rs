//! TLS records: what OpenSSL is given at once.

use super::pipeline::Pipeline;

/// Maximum length of the data in a TLS record, in bytes (RFC 8446, 5.1).
pub const MAX_RECORD: usize = 16384;

/// The data of the next record, in memory of its own. OpenSSL may accept a record and fail to send
/// it at once. Until it has sent it, it has to be called again with the same bytes at the same
/// address, whatever happens to the pipeline's buffer meanwhile.
#[derive(Default)]
pub struct Record {
    bytes: Vec<u8>,
    /// If this record holds a part of a command, the number of bytes that follow in other records.
    rest: usize,
}

impl Record {
    /// The data to be sent next: as many whole commands as fit, or a part of a longer one. It stays
    /// the same until it is [`taken`](Self::taken). `None`: no memory.
    // not inlined: connections without TLS do not need it
    #[inline(never)]
    pub fn next<T: Copy>(&mut self, pipeline: &Pipeline<T>) -> Option<&[u8]> {
        if self.bytes.is_empty() {
            let unsent = match self.rest {
                // the end of a long command is a record of its own
                1.. => pipeline.unsent().get(..self.rest),
                0 => Some(pipeline.unsent_commands(MAX_RECORD)),
            };
            let unsent = unsent.unwrap_or_else(|| pipeline.unsent());
            let now = unsent.get(..MAX_RECORD).unwrap_or(unsent);
            self.bytes.try_reserve_exact(now.len()).ok()?;
            self.bytes.extend_from_slice(now);
            self.rest = unsent.len() - now.len();
        }
        Some(&self.bytes)
    }

    /// OpenSSL has sent this many bytes of it.
    #[inline(never)]
    pub fn taken(&mut self, n: usize) {
        self.bytes.drain(..n.min(self.bytes.len()));
    }

    /// Frees what an idle connection does not need.
    pub fn shrink(&mut self) {
        self.bytes.shrink_to(0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Arg, Command, Key, Limits, Verb};
    use super::*;
    use proptest::prelude::*;

    fn set<'a>(value: &'a [u8]) -> Command<'a> {
        let key = Key {
            bytes: b"k",
            escape: true,
        };
        Command::Store {
            verb: Verb::Set,
            key,
            flags: b"0",
            exptime: b"0",
            cas_unique: Arg::None,
            value,
        }
    }

    /// A pipeline with a set for each of these lengths of values.
    fn with_values(lens: &[usize]) -> Pipeline<()> {
        let limits = Limits {
            max_line: 64,
            max_value: 1 << 20,
        };
        let mut pipeline = Pipeline::new(limits);
        for (at, len) in lens.iter().enumerate() {
            let value = vec![b'a' + at as u8 % 26; *len];
            assert!(pipeline.submit((), &set(&value)).is_ok());
        }
        pipeline
    }

    /// Bytes of a set with a value of so many.
    fn encoded(len: usize) -> usize {
        format!("set k 0 0 {len}\r\n\r\n").len() + len
    }

    /// Sends all; what every record had.
    fn records(record: &mut Record, pipeline: &mut Pipeline<()>) -> Vec<Vec<u8>> {
        let mut all = Vec::new();
        while !pipeline.unsent().is_empty() {
            let next = record.next(pipeline).unwrap().to_vec();
            record.taken(next.len());
            pipeline.sent(next.len());
            all.push(next);
        }
        all
    }

    fn lengths(lens: &[usize]) -> Vec<usize> {
        let all = records(&mut Record::default(), &mut with_values(lens));
        all.iter().map(Vec::len).collect()
    }

    #[test]
    fn a_record_has_as_many_whole_commands_as_fit() {
        assert_eq!(lengths(&[]), []);
        assert_eq!(lengths(&[10, 10]), [2 * encoded(10)]);
        let all = encoded(6000);
        assert_eq!(lengths(&[6000; 5]), [2 * all, 2 * all, all]);
        // to the byte
        let rest = MAX_RECORD - encoded(6000) - "set k 0 0 10000\r\n\r\n".len();
        assert_eq!(lengths(&[6000, rest]), [MAX_RECORD]);
        assert_eq!(lengths(&[6000, rest + 1]).len(), 2);
    }

    #[test]
    fn a_long_command_has_records_of_its_own() {
        let long = encoded(40_000);
        let rest = long - 2 * MAX_RECORD;
        let small = encoded(10);
        let lens = [small, MAX_RECORD, MAX_RECORD, rest, 2 * small];
        assert_eq!(lengths(&[10, 40_000, 10, 10]), lens);
    }

    #[test]
    fn it_stays_where_and_what_it_is_until_it_was_taken() {
        let (mut record, mut pipeline) = (Record::default(), with_values(&[6000; 20]));
        for _ in 0..9 {
            let len = record.next(&pipeline).unwrap().len();
            record.taken(len);
            pipeline.sent(len);
        }
        let first = record.next(&pipeline).unwrap();
        let (place, bytes) = (first.as_ptr(), first.to_vec());
        // replies come, and text that was sent moves out; more is queued
        let unsent = pipeline.unsent().as_ptr();
        pipeline.read_buf().buf.extend(b"STORED\r\n".repeat(18));
        while pipeline.next_reply().is_some() {}
        assert_ne!(pipeline.unsent().as_ptr(), unsent);
        for _ in 0..100 {
            assert!(pipeline.submit((), &set(b"v")).is_ok());
        }
        let again = record.next(&pipeline).unwrap();
        assert_eq!((again.as_ptr(), again), (place, &bytes[..]));
        assert!(pipeline.unsent().starts_with(again));
    }

    #[test]
    fn what_is_left_of_one_comes_next() {
        let (mut record, pipeline) = (Record::default(), with_values(&[100]));
        let all = record.next(&pipeline).unwrap().to_vec();
        record.taken(10);
        assert_eq!(record.next(&pipeline), Some(&all[10..]));
        record.taken(all.len());
        record.shrink();
        assert_eq!(record.bytes.capacity(), 0);
    }

    proptest! {
        /// All bytes in order, no record too long; none that ends a long command has more.
        #[test]
        fn records_are_the_stream(
            lens in proptest::collection::vec(prop_oneof![0usize..200, 15_000usize..40_000], 0..12),
        ) {
            let mut pipeline = with_values(&lens);
            let stream = pipeline.unsent().to_vec();
            let all = records(&mut Record::default(), &mut pipeline);
            prop_assert_eq!(all.concat(), stream);
            prop_assert!(all.iter().all(|record| (1..=MAX_RECORD).contains(&record.len())));
            let mut ends = Vec::new();
            for record in &all {
                ends.push(ends.last().unwrap_or(&0) + record.len());
            }
            let mut end = 0;
            for len in lens {
                let begin = end;
                end += encoded(len);
                if end - begin > MAX_RECORD {
                    prop_assert!(begin == 0 || ends.contains(&begin));
                    prop_assert!(ends.contains(&end));
                }
            }
        }
    }
}
