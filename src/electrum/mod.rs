//! The Electrum server's side: what light clients ask, answered from an index of the blocks.
//!
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

pub mod cost;
pub mod jsonrpc;
pub mod peers;
pub mod proof;
pub mod protocol;
pub mod query;
pub mod script_hash;
pub mod server;
pub mod session;
pub mod status;
pub mod subscriptions;
