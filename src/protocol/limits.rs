//! How much a server may send.

/// How much a server may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Maximum length of a reply line in bytes, without its line end. 2048 is ample.
    pub max_line: usize,
    /// Maximum length of a value in bytes, and maximum size of statistics, which includes the
    /// memory for each of their lines.
    pub max_value: usize,
}
