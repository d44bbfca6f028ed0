//! See `module_fuzz::php`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| module_fuzz::php::run(data));
