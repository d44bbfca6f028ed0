//! The options of meta commands by their names. What is not understood is an error that names the
//! option and shows what was given.

use super::option::{BadOption, OptionValue, Ttl};
use super::{Meta, MetaOp, Mode};

/// Up to this many seconds memcached takes a number as a time span, and beyond as a Unix time.
const MAX_SPAN: Ttl = 60 * 60 * 24 * 30;

/// An option that is being read.
struct Given<'a> {
    name: &'static str,
    value: OptionValue<'a>,
    /// Unix time in seconds.
    now: i64,
}

impl Given<'_> {
    fn bad(&self, expected: &'static str) -> BadOption {
        BadOption::Value {
            name: self.name,
            expected,
            seen: self.value.to_string(),
        }
    }

    fn boolean(&self) -> Result<bool, BadOption> {
        match self.value {
            OptionValue::Boolean(value) => Ok(value),
            _ => Err(self.bad("a boolean")),
        }
    }

    /// An integer: a number that has no fraction, or decimal digits, which may have a sign.
    fn integer(&self) -> Option<i128> {
        match self.value {
            // beyond 2^64 nothing is in range
            OptionValue::Number(number) if number.fract() == 0.0 && number.abs() <= 2e19 => {
                Some(number as i128)
            }
            OptionValue::Text(text) if text.len() <= 20 => {
                let digits = text.strip_prefix(b"-").unwrap_or(text);
                let plain = digits.iter().all(u8::is_ascii_digit);
                let text = std::str::from_utf8(text).ok()?;
                plain.then(|| text.parse().ok())?
            }
            _ => None,
        }
    }

    /// An unsigned integer of this many bits.
    fn unsigned<T: TryFrom<i128>>(&self, expected: &'static str) -> Result<Option<T>, BadOption> {
        let integer = self.integer().and_then(|number| number.try_into().ok());
        integer.map_or_else(|| Err(self.bad(expected)), |number| Ok(Some(number)))
    }

    fn u64(&self) -> Result<Option<u64>, BadOption> {
        self.unsigned("an integer from 0 to 2^64-1")
    }

    fn u32(&self) -> Result<Option<u32>, BadOption> {
        self.unsigned("an integer from 0 to 2^32-1")
    }

    /// A time span, at least `least`, or a Unix time in the future.
    fn ttl(&self, least: Ttl) -> Result<Option<Ttl>, BadOption> {
        let expected = match least {
            0 => "a number of seconds, at least 0",
            _ => "a number of seconds",
        };
        let seconds = self.integer().and_then(|number| Ttl::try_from(number).ok());
        let seconds = seconds.filter(|seconds| *seconds >= least);
        let seconds = seconds.ok_or_else(|| self.bad(expected))?;
        if seconds > MAX_SPAN && i64::from(seconds) <= self.now {
            return Err(BadOption::LongAgo {
                name: self.name,
                seen: seconds,
            });
        }
        Ok(Some(seconds))
    }

    fn mode(&self) -> Result<Mode, BadOption> {
        match self.value {
            OptionValue::Text(b"set") => Ok(Mode::Set),
            OptionValue::Text(b"add") => Ok(Mode::Add),
            OptionValue::Text(b"replace") => Ok(Mode::Replace),
            OptionValue::Text(b"append") => Ok(Mode::Append),
            OptionValue::Text(b"prepend") => Ok(Mode::Prepend),
            _ => Err(self.bad("set, add, replace, append or prepend")),
        }
    }
}

impl Meta<'_> {
    /// Sets an option. `now`: Unix time in seconds. The first error is kept in [`bad`](Self::bad).
    pub fn set_option(&mut self, name: &[u8], value: OptionValue<'_>, now: i64) {
        if let Err(bad) = self.option(name, value, now) {
            self.bad.get_or_insert(bad);
        }
    }

    fn option(&mut self, name: &[u8], value: OptionValue<'_>, now: i64) -> Result<(), BadOption> {
        let given = |name| Given { name, value, now };
        match &mut self.op {
            MetaOp::Get(get) => match name {
                b"value" => get.value = given("value").boolean()?,
                b"flags" => get.flags = given("flags").boolean()?,
                b"cas" => get.cas = given("cas").boolean()?,
                b"ttl" => get.ttl = given("ttl").boolean()?,
                b"size" => get.size = given("size").boolean()?,
                b"hit" => get.hit = given("hit").boolean()?,
                b"last_access" => get.last_access = given("last_access").boolean()?,
                b"no_bump" => get.no_bump = given("no_bump").boolean()?,
                b"touch" => get.touch = given("touch").ttl(Ttl::MIN)?,
                b"vivify" => get.vivify = given("vivify").ttl(0)?,
                b"recache" => get.recache = given("recache").ttl(0)?,
                b"if_changed" => get.if_changed = given("if_changed").u64()?,
                _ => return Err(BadOption::unknown(OptionValue::Text(name))),
            },
            MetaOp::Set(set) => match name {
                b"ttl" => set.ttl = given("ttl").ttl(Ttl::MIN)?,
                b"flags" => set.flags = given("flags").u32()?,
                b"cas" => set.cas = given("cas").u64()?,
                b"mode" => set.mode = given("mode").mode()?,
                b"vivify" => set.vivify = given("vivify").ttl(0)?,
                b"new_cas" => set.new_cas = given("new_cas").u64()?,
                b"return_cas" => set.return_cas = given("return_cas").boolean()?,
                b"return_size" => set.return_size = given("return_size").boolean()?,
                _ => return Err(BadOption::unknown(OptionValue::Text(name))),
            },
            MetaOp::Delete(delete) => match name {
                b"cas" => delete.cas = given("cas").u64()?,
                b"stale" => delete.stale = given("stale").boolean()?,
                b"ttl" => delete.ttl = given("ttl").ttl(Ttl::MIN)?,
                b"drop_value" => delete.drop_value = given("drop_value").boolean()?,
                b"new_cas" => delete.new_cas = given("new_cas").u64()?,
                _ => return Err(BadOption::unknown(OptionValue::Text(name))),
            },
            MetaOp::Arith(arith) => match name {
                b"delta" => arith.delta = given("delta").u64()?,
                b"decr" => arith.decr = given("decr").boolean()?,
                b"initial" => arith.initial = given("initial").u64()?,
                b"vivify" => arith.vivify = given("vivify").ttl(0)?,
                b"ttl" => arith.ttl = given("ttl").ttl(Ttl::MIN)?,
                b"cas" => arith.cas = given("cas").u64()?,
                b"return_ttl" => arith.return_ttl = given("return_ttl").boolean()?,
                _ => return Err(BadOption::unknown(OptionValue::Text(name))),
            },
        }
        Ok(())
    }
}
