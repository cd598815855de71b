//! See `blocktorrent::fuzzing::datagram`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| blocktorrent::fuzzing::datagram(data));
