//! Fuzzes the reading along of a connection.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| escala_pool::fuzzing::tap(bytes));
