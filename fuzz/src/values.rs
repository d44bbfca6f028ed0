//! Values, each of which tells whose it is.

/// The value of a key that ends with its size.
pub fn value_of(key: &str) -> Vec<u8> {
    let size = key.rsplit('.').next().and_then(|size| size.parse().ok());
    pattern(key, size.unwrap_or(0))
}

/// Bytes that look like replies and commands, and belong to a key.
pub fn pattern(key: &str, size: usize) -> Vec<u8> {
    let unit = format!("{key}\r\nEND\r\nVALUE ");
    unit.bytes().cycle().take(size).collect()
}
