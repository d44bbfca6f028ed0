//! A native `resty.memcached` for nginx and ngx_lua.

pub mod protocol;
pub mod upstream;
