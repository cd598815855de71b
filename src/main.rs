//! The `blocktorrent` program.
fn main() {}
