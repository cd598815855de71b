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
//! - [`jsonrpc`]: calls in, results out
//! - [`protocol`]: methods, parameters, prices, answers as JSON, by version
//! - [`session`]: one client: messages in, questions and frames out
//! - [`subscriptions`]: who wants to be told of what, and was told what
//! - [`server`]: the sockets
//! - [`peers`]: other servers, and which of them clients are told of
//! - [`cost`]: what clients cost; who is slowed and who is cut

pub mod chain;
pub mod cost;
pub mod history;
pub mod index;
pub mod jsonrpc;
pub mod mempool;
pub mod peers;
pub mod proof;
pub mod protocol;
pub mod query;
pub mod rows;
pub mod script_hash;
pub mod server;
pub mod session;
pub mod status;
pub mod store;
pub mod subscriptions;
