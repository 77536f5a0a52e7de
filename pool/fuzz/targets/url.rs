//! Fuzzes the reading of connection strings.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| escala_pool::fuzzing::url(bytes));
