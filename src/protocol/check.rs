//! What a command must satisfy before a byte of it is written.
//!
//! The order is memcached's: arguments are counted first, then the key's length is looked at, then
//! the numbers. Separators and `noreply` are checked between the first two. memcached cannot check
//! them, because they change the count.

use super::command::{Arg, Command, Verb};
use super::key::{Key, MAX_KEY_LEN};
use super::number::{is_signed, is_unsigned};
use super::quoted::Quoted;
use super::refusal::{Answer, Argument, Refused, bad_option};

/// Maximum length of `stats` arguments in bytes; memcached closes the connection at a line of 2048.
const MAX_STATS_ARGS: usize = 1024;

/// Maximum length of a list of keys in bytes, with a space before each. Of a line of 2048 bytes
/// memcached has to see the end at once, unless it is `get` or `gets`.
pub const MAX_GAT_KEYS: usize = 1800;

/// Maximum length of a value in bytes that memcached accepts as a length.
const MAX_VALUE_LEN: usize = i32::MAX as usize - 2;

impl Command<'_> {
    /// Whether the server would read exactly this command and reply to it.
    ///
    /// # Errors
    ///
    /// If not: it must not be sent.
    pub fn check(&self) -> Result<(), Refused> {
        command(self, self.word())
    }
}

/// `Ok` if the server would read exactly this command and reply to it.
pub(super) fn command(command: &Command<'_>, word: &'static str) -> Result<(), Refused> {
    let check = Check { word };
    match *command {
        Command::Get { key, .. } | Command::Delete { key } => {
            check.given(Argument::Key, key.bytes)?;
            check.key_word(key)?;
            check.key_len(key)
        }
        Command::GetMany { keys, .. } => check.keys(keys),
        Command::Store {
            verb,
            key,
            flags,
            exptime,
            cas_unique,
            value,
        } => {
            let cas = (verb == Verb::Cas).then(|| cas_unique.unwrap_or_default());
            check.store(key, flags, exptime, cas)?;
            check.value_len(value.len())
        }
        Command::Arith { key, delta, .. } => {
            let delta = check.key_and(key, Argument::Delta, delta)?;
            let good = is_unsigned(delta, u64::MAX);
            check.number(good, Argument::Delta, delta, Answer::BadDelta)
        }
        Command::Touch { key, exptime } => {
            let exptime = check.key_and(key, Argument::Exptime, exptime)?;
            let good = is_signed(exptime);
            check.number(good, Argument::Exptime, exptime, Answer::BadExptime)
        }
        Command::FlushAll { delay } => match delay {
            None | Some(b"") => Ok(()),
            Some(delay) => {
                check.word(Argument::Time, delay)?;
                let good = is_signed(delay);
                check.number(good, Argument::Time, delay, Answer::BadExptime)
            }
        },
        Command::Stats { args } => check.stats(args.unwrap_or_default()),
        Command::Verbosity { level } => {
            let level = level.unwrap_or_default();
            check.given(Argument::Level, level)?;
            check.word(Argument::Level, level)?;
            let good = is_unsigned(level, u64::MAX);
            check.number(good, Argument::Level, level, Answer::BadFormat)
        }
        Command::Gat { exptime, key, .. } => check.gat(exptime, &[key]),
        Command::GatMany { exptime, keys, .. } => check.gat(exptime, keys),
        Command::Meta(meta) => {
            check.given(Argument::Key, meta.key.bytes)?;
            check.key_word(meta.key)?;
            check.key_len(meta.key)?;
            meta.check().map_err(|bad| bad_option(word, &bad))?;
            check.value_len(meta.value().len())
        }
        Command::Version | Command::MetaNoop | Command::Quit => Ok(()),
    }
}

/// The checks of one command. Messages begin with its name.
struct Check {
    word: &'static str,
}

impl Check {
    fn refused(&self, answer: Answer, why: std::fmt::Arguments<'_>) -> Refused {
        Refused {
            answer,
            why: format!("{}: {why}", self.word),
        }
    }

    fn given(&self, name: Argument, text: &[u8]) -> Result<(), Refused> {
        if text.is_empty() {
            return Err(self.refused(Answer::Error, format_args!("{name} is missing or empty")));
        }
        Ok(())
    }

    fn separators(&self, name: Argument, text: &[u8]) -> Result<(), Refused> {
        if text.iter().any(|&byte| splits(byte)) {
            return Err(self.refused(
                Answer::NotOneWord(name),
                format_args!(
                    "{name} {} contains whitespace or control characters",
                    Quoted(text)
                ),
            ));
        }
        Ok(())
    }

    fn noreply(&self, name: Argument, text: &[u8]) -> Result<(), Refused> {
        if text == b"noreply" {
            return Err(self.refused(
                Answer::Noreply(name),
                format_args!("{name} is noreply, which is not supported"),
            ));
        }
        Ok(())
    }

    fn word(&self, name: Argument, text: &[u8]) -> Result<(), Refused> {
        self.separators(name, text)?;
        self.noreply(name, text)
    }

    /// A key may be `noreply`: memcached looks for the word only after the key, or else in the last
    /// place, where no key is then.
    fn key_word(&self, key: Key<'_>) -> Result<(), Refused> {
        if key.escape {
            return Ok(());
        }
        self.separators(Argument::Key, key.bytes)
    }

    fn key_len(&self, key: Key<'_>) -> Result<(), Refused> {
        // Shortcuts: escaping never shortens a key, and at most triples its length.
        if key.bytes.len() <= MAX_KEY_LEN / 3 {
            return Ok(());
        }
        let (len, when) = match key.escape {
            true if key.bytes.len() > MAX_KEY_LEN => (key.bytes.len(), " before escaping"),
            true => (key.sent_len(), " after escaping"),
            false => (key.bytes.len(), ""),
        };
        if len > MAX_KEY_LEN {
            return Err(self.refused(
                Answer::BadFormat,
                format_args!("key is {len} bytes long{when}, at most {MAX_KEY_LEN} are allowed"),
            ));
        }
        Ok(())
    }

    fn number(
        &self,
        good: bool,
        name: Argument,
        text: &[u8],
        answer: Answer,
    ) -> Result<(), Refused> {
        if !good {
            return Err(self.refused(
                answer,
                format_args!("{name} {} is not an integer in range", Quoted(text)),
            ));
        }
        Ok(())
    }

    /// Checks a key and that the one argument after it is present.
    fn key_and<'a>(&self, key: Key<'_>, name: Argument, arg: Arg<'a>) -> Result<&'a [u8], Refused> {
        let text = arg.unwrap_or_default();
        self.given(Argument::Key, key.bytes)?;
        self.given(name, text)?;
        self.key_word(key)?;
        self.word(name, text)?;
        self.key_len(key)?;
        Ok(text)
    }

    #[inline(always)]
    fn keys(&self, keys: &[Key<'_>]) -> Result<(), Refused> {
        if keys.iter().all(|key| key.bytes.is_empty()) {
            return Err(self.refused(Answer::Error, format_args!("every key is empty")));
        }
        for key in keys {
            self.key_word(*key)?;
        }
        for key in keys {
            self.key_len(*key)?;
        }
        Ok(())
    }

    /// memcached reads the expiry before the keys.
    fn gat(&self, exptime: Arg<'_>, keys: &[Key<'_>]) -> Result<(), Refused> {
        let exptime = exptime.unwrap_or_default();
        self.word(Argument::Exptime, exptime)?;
        let good = is_signed(exptime);
        self.number(good, Argument::Exptime, exptime, Answer::BadExptime)?;
        self.keys(keys)?;
        let sent = keys.iter().filter(|key| !key.bytes.is_empty());
        let len = sent.map(|key| key.sent_len() + 1).sum::<usize>();
        if len > MAX_GAT_KEYS {
            return Err(self.refused(
                Answer::TooLong(Argument::Keys),
                format_args!("keys are {len} bytes long, at most {MAX_GAT_KEYS} are allowed"),
            ));
        }
        Ok(())
    }

    fn store(
        &self,
        key: Key<'_>,
        flags: &[u8],
        exptime: &[u8],
        cas: Option<&[u8]>,
    ) -> Result<(), Refused> {
        self.given(Argument::Key, key.bytes)?;
        self.given(Argument::Flags, flags)?;
        self.given(Argument::Exptime, exptime)?;
        if let Some(cas) = cas {
            self.given(Argument::CasUnique, cas)?;
        }
        self.key_word(key)?;
        self.word(Argument::Flags, flags)?;
        self.word(Argument::Exptime, exptime)?;
        if let Some(cas) = cas {
            self.word(Argument::CasUnique, cas)?;
        }
        self.key_len(key)?;

        let number = |good, name, text| self.number(good, name, text, Answer::BadFormat);
        let good = is_unsigned(flags, u32::MAX.into());
        number(good, Argument::Flags, flags)?;
        number(is_signed(exptime), Argument::Exptime, exptime)?;
        if let Some(cas) = cas {
            number(is_unsigned(cas, u64::MAX), Argument::CasUnique, cas)?;
        }
        Ok(())
    }

    fn value_len(&self, len: usize) -> Result<(), Refused> {
        if len > MAX_VALUE_LEN {
            return Err(self.refused(
                Answer::BadFormat,
                format_args!("value is {len} bytes long, at most {MAX_VALUE_LEN} are allowed"),
            ));
        }
        Ok(())
    }

    fn stats(&self, args: &[u8]) -> Result<(), Refused> {
        if args.is_empty() {
            return Ok(());
        }
        let name = Argument::Args;
        for word in args.split(|&byte| byte == b' ') {
            if word.is_empty() || word.iter().any(|&byte| splits(byte)) {
                return Err(self.refused(
                    Answer::NotOneWord(name),
                    format_args!("args {} are not words with single spaces", Quoted(args)),
                ));
            }
            self.noreply(name, word)?;
        }
        if args.len() > MAX_STATS_ARGS {
            return Err(self.refused(
                Answer::TooLong(name),
                format_args!(
                    "args are {} bytes long, at most {MAX_STATS_ARGS} are allowed",
                    args.len()
                ),
            ));
        }
        Ok(())
    }
}

/// Whether some server takes the byte as a separator or as the end of a text.
fn splits(byte: u8) -> bool {
    byte <= 0x20 || byte == 0x7f
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_is_checked_without_being_written() {
        let touch = |exptime: &'static [u8]| {
            let escape = true;
            let key = Key {
                bytes: b"k",
                escape,
            };
            let exptime = Some(exptime);
            Command::Touch { key, exptime }.check()
        };
        assert_eq!(touch(b"10"), Ok(()));
        let refused = touch(b"x").unwrap_err();
        assert_eq!(refused.answer, Answer::BadExptime);
        assert!(refused.why.starts_with("touch: "));
    }

    #[test]
    fn values_that_memcached_cannot_count_are_refused() {
        let check = Check { word: "set" };
        assert_eq!(check.value_len(2_147_483_645), Ok(()));
        assert_eq!(
            check.value_len(2_147_483_646).unwrap_err().answer,
            Answer::BadFormat
        );
    }

    #[test]
    fn a_key_of_the_full_length_has_no_byte_to_escape() {
        let check = Check { word: "get" };
        let plain = [b'k'; MAX_KEY_LEN];
        let mut spaced = plain;
        spaced[0] = b' ';
        let key_len = |bytes: &[u8]| {
            let escape = true;
            check.key_len(Key { bytes, escape })
        };
        assert_eq!(key_len(&plain), Ok(()));
        let refused = key_len(&spaced).unwrap_err();
        assert!(refused.why.contains("252 bytes long after escaping"));
        let refused = key_len(&[b'k'; MAX_KEY_LEN + 1]).unwrap_err();
        assert!(refused.why.contains("251 bytes long before escaping"));
    }

    #[test]
    fn arguments_of_stats_have_at_most_1024_bytes() {
        let check = Check { word: "stats" };
        assert_eq!(check.stats(&[b'a'; 1024]), Ok(()));
        let refused = check.stats(&[b'a'; 1025]).unwrap_err();
        assert_eq!(refused.answer, Answer::TooLong(Argument::Args));
    }
}
