//! See `blocktorrent::fuzzing::transaction`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blocktorrent::fuzzing::transaction(data));
