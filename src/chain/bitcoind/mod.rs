//! The operator's own Bitcoin nodes, as seen by RPC and ZMQ: how they are found, asked, heard and chosen among.
//!
//! ```text
//!  NodeSpec ─▶ find ─▶ Rpc ──────────────┐ answers             Nodes (who is live, who is preferred)
//!                      Zmq ── ZmqEvent ──┴─▶ follow ─▶ mempool (what to fetch, add, demote)
//! ```
//!
//! - [`mod@find`]*: fills in what was not said from bitcoind's own defaults, and says what it found and lacks
//! - [`conf`]: `bitcoin.conf`, as far as it concerns us
//! - [`rpc`]*: the JSON-RPC client; [`answer`]: what it takes for an answer
//! - [`zmq`]*: the subscriber; [`zmtp`]: its bytes; [`notice`]: what the notifications say
//! - [`preference`]: which node is asked, with failover and return; [`status`]: what is known of one node
//! - [`mempool`]: keeps a list of the node's transactions in step; [`mod@follow`]*: drives it
//! - [`blockfiles`]*: its block files, read beside it
//! - [`undo`]: what a block spent, as bitcoind keeps it
//! - [`backoff`]: when to try again
//!
//! Files marked * do I/O; the others are told the time and draw no randomness but from a seed.
//!
//! What this is not: Bitcoin's P2P protocol, by which the same nodes are reached as well. And no judge: what a node
//! of the operator's own says is believed, within the bounds of its format.

pub mod answer;
pub mod backoff;
pub mod blockfiles;
pub mod conf;
pub mod error;
pub mod find;
pub mod follow;
pub mod mempool;
pub mod notice;
pub mod preference;
pub mod rpc;
pub mod status;
pub mod undo;
pub mod zmq;
pub mod zmtp;

pub use error::RpcError;
pub use find::{Finding, Found, find};
pub use follow::{FollowInput, FollowOutput, follow};
pub use mempool::{Feed, Mempool, MempoolCommand};
pub use notice::{Notice, SequenceEvent, Topic};
pub use preference::{Nodes, NodesEvent};
pub use rpc::{Credentials, Rpc};
pub use status::{State, Status};
pub use zmq::{Zmq, ZmqEvent};
