//! Texts of users in messages.

use std::fmt;

/// A user's text for a log line: cut to 64 bytes, with everything escaped except printable ASCII.
/// Brackets are escaped as well, because log searches look for `[error]`.
pub(super) struct Quoted<'a>(pub &'a [u8]);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MAX: usize = 64;
        f.write_str("\"")?;
        for &byte in self.0.iter().take(MAX) {
            match byte {
                b'[' | b']' => write!(f, "\\x{byte:02x}")?,
                _ => write!(f, "{}", byte.escape_ascii())?,
            }
        }
        f.write_str(if self.0.len() > MAX { "\"..." } else { "\"" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quoting() {
        assert_eq!(
            Quoted(b"a\r\n[error] \"\xff").to_string(),
            r#""a\r\n\x5berror\x5d \"\xff""#
        );
        assert_eq!(
            Quoted(&[b'x'; 65]).to_string(),
            format!("\"{}\"...", "x".repeat(64))
        );
    }

    #[test]
    fn a_quoted_text_has_64_bytes() {
        let whole = "x".repeat(64);
        assert_eq!(Quoted(whole.as_bytes()).to_string(), format!("\"{whole}\""));
    }
}
