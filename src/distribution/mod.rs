//! Which server of several has a key: the distributions that clients of memcached agree on, each to
//! the byte. Pure: keys, names and weights in, the index of a server out.
//!
//! | file | subject |
//! |---|---|
//! | `method` | the methods, and how a configuration names them |
//! | `hash` | hash functions of keys |
//! | `name` | what of a server's name is hashed |
//! | `ring` | points on a ring: nginx's `hash … consistent`, ketama |
//! | `wheel` | hash modulo weights: nginx's `hash`, modula |
//! | `table` | one of these for a list of servers |
#![forbid(unsafe_code)]

mod hash;
mod method;
mod name;
mod ring;
mod table;
mod wheel;

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod golden_tests;
#[cfg(test)]
mod property_tests;

pub use hash::KeyHash;
pub use method::{Method, MethodError, Scheme};
pub use name::{NGINX_PORT, Parts, has_port, ketama_name, parts};
pub use table::{BuildError, MAX_CONSISTENT_WEIGHT, MAX_MEMBERS, Member, Table};
