//! See `module_fuzz::decoder`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| module_fuzz::decoder::run(data));
