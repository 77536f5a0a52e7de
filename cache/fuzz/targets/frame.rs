//! Fuzzes the frames of the shared layer.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| escala_cache::fuzzing::frame(bytes));
