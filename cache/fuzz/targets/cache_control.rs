//! Fuzzes `Cache-Control` of requests and responses.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| escala_cache::fuzzing::cache_control(bytes));
