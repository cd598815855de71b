//! See `blocktorrent::fuzzing::partial_tree`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blocktorrent::fuzzing::partial_tree(data));
