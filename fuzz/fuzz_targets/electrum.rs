//! See `blocktorrent::fuzzing::electrum`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blocktorrent::fuzzing::electrum(data));
