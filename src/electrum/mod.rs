//! The Electrum server's side: what light clients ask, answered from an index of the blocks.
//!
//! - [`script_hash`]: what scripts are called by
//! - [`status`]: one hash over all of a script's history
//! - [`proof`]: merkle branches of transactions and of headers

pub mod proof;
pub mod script_hash;
pub mod status;
