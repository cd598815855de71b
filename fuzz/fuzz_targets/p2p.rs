//! See `blocktorrent::fuzzing::p2p`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blocktorrent::fuzzing::p2p(data));
