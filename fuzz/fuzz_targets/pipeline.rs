//! See `module_fuzz::pipeline`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| module_fuzz::pipeline::run(data));
