//! Sizes in bytes.

/// A number of bytes as in nginx's directives, with `k`, `m` or `g` for others.
pub fn parse(text: &[u8]) -> Option<usize> {
    let (digits, unit) = match text {
        [digits @ .., b'k' | b'K'] => (digits, 1 << 10),
        [digits @ .., b'm' | b'M'] => (digits, 1 << 20),
        [digits @ .., b'g' | b'G'] => (digits, 1 << 30),
        digits => (digits, 1),
    };
    // a sign would be parsed, too
    let only_digits = digits.iter().all(u8::is_ascii_digit);
    let number: usize = str::from_utf8(digits)
        .ok()
        .filter(|_| only_digits)?
        .parse()
        .ok()?;
    let size = number.checked_mul(unit)?;
    (size <= isize::MAX as usize).then_some(size)
}
