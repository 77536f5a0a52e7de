//! Fuzzes `Vary` and the keys it makes.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| escala_cache::fuzzing::vary(bytes));
