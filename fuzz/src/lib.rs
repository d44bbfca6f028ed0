//! What the fuzz targets do with their input.
//!
//! | file | subject |
//! |---|---|
//! | `decoder` | target: any bytes as replies, in any reads, against `replies` |
//! | `encoder` | target: any keys and arguments, read back by `requests` |
//! | `parts` | target: a pipeline divided among servers, put together again |
//! | `php` | target: any bytes as values of PHP |
//! | `pipeline` | target: operations on shared and pooled connections, in any order of events |
//! | `shared` | ... on connections that all share |
//! | `pooled` | ... on connections of their own, out of a pool |
//! | `wire` | one connection, and a plain model of what is in flight on it |
//! | `metacalls` | meta commands and answers that tell whose they are |
//! | `meta` | options, flags and replies of meta commands |
//! | `replies` | a parser of replies that has all bytes at once: no states, no buffers |
//! | `requests` | commands as memcached reads them |
//! | `server` | answers to commands, each of which tells whose it is |
//! | `values` | values, each of which tells whose it is |
//! | `input` | fuzz input to numbers and texts |
//!
//! `meta`, `metacalls`, `replies`, `requests` and `server` follow memcached's protocol.txt and share no code
//! with the module.

pub mod decoder;
pub mod encoder;
pub mod input;
pub mod meta;
pub mod metacalls;
pub mod parts;
pub mod php;
pub mod pipeline;
pub mod pooled;
pub mod replies;
pub mod requests;
pub mod server;
pub mod shared;
pub mod values;
pub mod wire;
