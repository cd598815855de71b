//! The Electrum server's side: what light clients ask, answered from an index of the blocks.
//!
//! - [`script_hash`]: what scripts are called by
//! - [`status`]: one hash over all of a script's history
//! - [`proof`]: merkle branches of transactions and of headers
//! - [`query`]: what is asked and told, apart from how it is written

pub mod proof;
pub mod query;
pub mod script_hash;
pub mod status;
