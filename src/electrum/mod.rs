//! The Electrum server's side: what light clients ask, answered from an index of the blocks.
//!
//! - [`rows`], [`index`]: the rows of the index, and what a block makes of them
//! - [`chain`]: which blocks there are, and which transactions are in which
//! - [`store`]*: the index on disk
//! - [`mempool`]: what is not in a block yet, by script
//! - [`history`]: all of a script's transactions, read in their order
//! - [`script_hash`]: what scripts are called by
//! - [`status`]: one hash over all of a script's history
//! - [`proof`]: merkle branches of transactions and of headers
//! - [`query`]: what is asked and told, apart from how it is written

pub mod chain;
pub mod history;
pub mod index;
pub mod mempool;
pub mod proof;
pub mod query;
pub mod rows;
pub mod script_hash;
pub mod status;
pub mod store;
