//! Fuzzes targeted fields, and the `Cache-Status` that is written.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| escala_cache::fuzzing::structured_fields(bytes));
