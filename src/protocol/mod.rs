//! memcached text protocol, sans-io.
#![forbid(unsafe_code)]
