//! See `module_fuzz::encoder`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| module_fuzz::encoder::run(data));
