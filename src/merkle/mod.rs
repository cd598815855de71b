//! Bitcoin's merkle tree: its geometry, proofs in it, and a tree of which only parts are known yet.
//!
//! - [`Geometry`]: the shape, a pure function of the count of leaves
//! - [`Run`], [`Lap`], [`fold()`]: proofs, and how they are checked
//! - [`hash`]: double SHA-256, of pairs and of rows
//! - [`Partial`]: takes hashes in any order and says which of them are proven
//! - [`mod@reference`]: the same by brute force, for tests and fuzzing only
//!
//! Two trees of a block have the same shape: that of transaction ids, which the header commits to, and
//! that of witness transaction ids, which the coinbase commits to. Nothing here knows which it holds.

mod geometry;
pub mod hash;
mod partial;
pub mod reference;
mod run;
#[cfg(test)]
mod tests;

pub use geometry::{Geometry, MAX_DEPTH, MAX_LEAVES, Node};
pub use partial::{MEMORY_PER_CANDIDATE, MEMORY_PER_LEAF, Offer, Partial};
pub use run::{Direction, FoldError, Lap, MAX_LAP_RUNS, Run, RunNodes, fold};

/// A double SHA-256 hash in the order of its bytes as hashed, which is the reverse of how it is shown.
pub type Hash = [u8; 32];
