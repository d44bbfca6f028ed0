//! A native `resty.memcached` for nginx and ngx_lua.
//!
//! Lua calls `lua`, `lua` calls `transport`, and that has [`protocol`] write commands and read
//! replies. ARCHITECTURE.md has the map, and says who may use whom.
//!
//! | module | what is in it |
//! |---|---|
//! | `module` | what nginx sees: the module, its hooks and directives |
//! | `lua` | what Lua sees: methods, arguments, results |
//! | `transport` | connections on nginx's event loop, sessions, pools |
//! | `conf` | the configuration of locations |
//! | `ngx_lua` | the ABI of ngx_lua, which nothing else knows |
//! | [`distribution`] | which server has a key, pure |
//! | [`group`] | servers used as one, failover, pure |
//! | [`protocol`] | memcached's text protocol, pure: bytes in, replies out |
//! | [`codec`] | values that other languages wrote, pure |
//! | [`upstream`] | policy for pools, queues and deadlines, pure |
//! | `nginx` | what nginx has, for Rust: requests, logs, timers |
//! | `contain` | panics, which must not end the worker |
//! | `reserve` | lack of memory, which must not end it either |
//! | `fault` | places where tests have the code fail |
//! | `version` | which version this is, and for which nginx |
//!
//! The pure modules hold no `unsafe` and know neither nginx nor Lua; they are all there is without
//! the feature `nginx`, and what `cargo test` tests. The others run inside nginx only, and the
//! suites in `t/` test them there.

#![cfg_attr(not(test), deny(clippy::string_slice))]
// what only TLS uses
#![cfg_attr(
    all(feature = "nginx", not(ngx_feature = "http_ssl")),
    allow(dead_code)
)]

pub mod codec;
pub mod distribution;
pub mod group;
pub mod protocol;
pub mod upstream;

// a test binary has no nginx and no Lua to link with
#[cfg(all(feature = "nginx", not(test)))]
mod conf;
#[cfg(all(feature = "nginx", not(test)))]
mod contain;
#[cfg(all(feature = "nginx", not(test)))]
mod fault;
#[cfg(all(feature = "nginx", not(test)))]
mod lua;
#[cfg(all(feature = "nginx", not(test)))]
mod module;
#[cfg(all(feature = "nginx", not(test)))]
mod nginx;
#[cfg(all(feature = "nginx", not(test)))]
mod ngx_lua;
#[cfg(any(feature = "nginx", test))]
mod reserve;
#[cfg(all(feature = "nginx", not(test)))]
mod transport;
#[cfg(all(feature = "nginx", not(test)))]
mod version;
