//! How much a server may send.

/// How much a server may send.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Longest reply line in bytes, without its line end. 2048 is ample.
    pub max_line: usize,
    /// Longest value in bytes, and most bytes of statistics, what holds their lines included.
    pub max_value: usize,
}
