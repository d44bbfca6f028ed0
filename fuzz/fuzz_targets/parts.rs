//! See `module_fuzz::parts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| module_fuzz::parts::run(data));
