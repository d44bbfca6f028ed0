//! Values that other languages wrote.
//!
//! | file | subject |
//! |---|---|
//! | `php` | values and flags as the PHP extension memcached has them |
#![forbid(unsafe_code)]

pub mod php;
