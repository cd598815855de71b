//! See `blocktorrent::fuzzing::control_stream`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blocktorrent::fuzzing::control_stream(data));
