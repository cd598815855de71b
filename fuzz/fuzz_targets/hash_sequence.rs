//! See `blocktorrent::fuzzing::hash_sequence`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blocktorrent::fuzzing::hash_sequence(data));
