//! What users would pick instead, in the same world.

pub mod tcp;
