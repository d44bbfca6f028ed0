//! The memcached text protocol, sans-io.
//!
//! Bytes go in and out through buffers. Sockets, clocks and Lua are the caller's. The rules are
//! those of memcached's protocol.txt and, where that is silent, what memcached 1.6.18 does.
//!
//! | file | subject |
//! |---|---|
//! | `key` | keys: limits, URI escaping and unescaping |
//! | `number` | decimal text: which integers an argument or a field may hold |
//! | `command` | commands and their arguments |
//! | `check` | what a command must satisfy before a byte of it is written |
//! | `meta` | meta commands: options, flags, lines of replies |
//! | `version` | what a server can do, by its version |
//! | `encode` | commands to bytes |
//! | `quoted` | texts of users in messages |
//! | `refusal` | why a command is not sent, and the answer given in the server's place |
//! | `expect` | what the encoder notes down for the decoder of the reply |
//! | `limits` | how much a server may send |
//! | `reply` | replies as the caller sees them |
//! | `line` | the meaning of single reply lines |
//! | `line_buffer` | received bytes, cut into lines without rescanning |
//! | `decoder` | received bytes to one reply of an expected kind |
//! | `buffers` | the buffers of large values, kept for the next ones |
//! | `pipeline` | one connection: bytes to send, exchanges in flight, replies in order |
//! | `record` | what TLS takes at once |
//! | `batch` | commands collected before there is a connection |
//! | `raw` | reads that bypass the protocol, for users who speak it themselves |
//!
//! Three rules hold everywhere:
//!
//! - What `encode` writes is exactly one command to the server. A text that the server would
//!   refuse, or read as more than that, is refused here, and nothing is written.
//! - A reply fits its command or the pipeline is broken and yields nothing more.
//! - Memory follows what was asked for: lines, values and statistics are bounded, and a length
//!   that a server announces is checked before anything is allocated for it.
#![forbid(unsafe_code)]

pub mod batch;
pub mod buffers;
mod check;
pub mod command;
mod decoder;
mod encode;
pub mod expect;
pub mod key;
pub mod limits;
mod line;
mod line_buffer;
pub mod meta;
pub mod number;
pub mod pipeline;
mod quoted;
pub mod raw;
pub mod record;
pub mod refusal;
pub mod reply;
pub mod version;

pub use batch::{Batch, Bound};
pub use buffers::Buffers;
pub use check::MAX_GAT_KEYS;
pub use command::{Arg, Arith, Command, KeyList, Verb};
pub use encode::encode;
pub use expect::Expect;
pub use key::{Key, MAX_KEY_LEN, escape_into, is_plain, unescape_into};
pub use limits::Limits;
pub use meta::{BadOption, Meta, MetaArith, MetaDelete, MetaGet, MetaOp, MetaSet, OptionValue};
pub use number::Digits;
pub use pipeline::{Exchange, Pipeline, ReadBuf, SMALL_VALUE, VALUE_END};
pub use raw::{RawRead, RawReader};
pub use record::Record;
pub use refusal::{Answer, Argument, Refused};
pub use reply::{Hit, Malformed, MetaItem, Reply, Value, Values};
pub use version::{Server, Unmet, Version};
