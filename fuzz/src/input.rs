//! Fuzz input to numbers and texts.

/// Input that is read from the front. At its end every number is 0 and every text is empty.
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    pub fn new(data: &'a [u8]) -> Self {
        Input(data)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((first, rest)) => {
                self.0 = rest;
                *first
            }
            None => 0,
        }
    }

    /// A number below `n`, which is at most 256.
    pub fn below(&mut self, n: usize) -> usize {
        usize::from(self.byte()) % n
    }

    pub fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// Small numbers are more likely; at most 28 KiB.
    pub fn size(&mut self) -> usize {
        match usize::from(self.byte()) {
            small @ 0..32 => small,
            medium @ 32..128 => (medium - 31) * 16,
            large => (large - 127) * 223,
        }
    }

    fn take(&mut self, n: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(n.min(self.0.len()));
        self.0 = rest;
        taken
    }

    /// A length and the bytes of a text. Lengths from 224 on mean a run of one byte, of 0 to 8191.
    pub fn text(&mut self) -> Vec<u8> {
        match self.byte() {
            len @ 0..224 => self.take(len.into()).to_vec(),
            len => {
                let run = usize::from(len - 224) * 256 + usize::from(self.byte());
                vec![self.byte(); run]
            }
        }
    }

    /// All that is left. The byte 0x1f and a number behind it, unless it is 0, mean 64 times that
    /// many `x`, so that large values do not need large inputs.
    pub fn stream(self) -> Vec<u8> {
        let mut stream = Vec::new();
        let mut rest = self.0.iter();
        while let Some(&byte) = rest.next() {
            match (byte, rest.as_slice()) {
                (0x1f, [times, ..]) if *times > 0 => {
                    rest.next();
                    stream.resize(stream.len() + 64 * usize::from(*times), b'x');
                }
                _ => stream.push(byte),
            }
        }
        stream
    }
}

/// A number as Lua writes it, which is C's `%.14g`.
pub fn lua_number(number: f64) -> String {
    if number.is_nan() {
        return "nan".into();
    }
    if number.is_infinite() {
        return if number > 0.0 { "inf" } else { "-inf" }.into();
    }
    let scientific = format!("{number:.13e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..14).contains(&exponent) {
        return trimmed(&format!("{number:.*}", (13 - exponent) as usize));
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{}e{sign}{:02}", trimmed(digits), exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::lua_number;

    #[test]
    fn numbers_as_lua_writes_them() {
        for (number, text) in [
            (0.0, "0"),
            (-0.0, "-0"),
            (1.5, "1.5"),
            (3600.0, "3600"),
            (-1.0, "-1"),
            (1e13, "10000000000000"),
            (99999999999999.0, "99999999999999"),
            (1e14, "1e+14"),
            (4294967296.0, "4294967296"),
            (1e-4, "0.0001"),
            (1e-5, "1e-05"),
            (0.1, "0.1"),
            (2f64.powi(64), "1.844674407371e+19"),
            (f64::MAX, "1.7976931348623e+308"),
            (f64::NAN, "nan"),
            (f64::NEG_INFINITY, "-inf"),
        ] {
            assert_eq!(lua_number(number), text);
        }
    }
}
