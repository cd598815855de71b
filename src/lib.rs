//! Blocktorrent: a Bitcoin block-propagation relay.
//!
//! A block header commits, through its merkle root, to every transaction of its block. Any aligned
//! subtree of that tree is therefore a *chunk that proves itself*: a node that has checked a header's
//! proof of work can verify one chunk alone, take different chunks from peers that it does not trust,
//! and pass each of them on before it holds the whole block.
//!
//! ```text
//!            net (udp, control)                 relay (the engine, no I/O)
//!   peers ──── datagrams ───▶ filter ─▶ session ─▶ job: merkle offer ─▶ block
//!     ▲                                                 │ verified          │
//!     └────── datagrams ◀── poll_transmit ◀─ schedule ◀─┘                   ▼
//!                                                             Event::BlockComplete
//!   node: threads, router, RPC, storage        chain: headers and their work
//! ```
//!
//! # Where things are
//!
//! In order of dependency; `tests/tidy.rs` holds who may import whom.
//!
//! - [`time`]: points in time, handed in by whoever drives the code
//! - [`merkle`]: the geometry of Bitcoin's merkle tree, proofs in it, and a tree that is still partial
//! - [`wire`]: every structure and message of the protocol, as bytes
//! - [`mempool`]: transactions already held, found by short id
//! - [`relay`]: the engine: sessions, jobs, scheduling, serving, blame
//! - [`chain`]: headers, the work they must show, and the parameters of each network
//! - [`electrum`]: what light clients ask, answered from an index of the blocks
//! - [`net`]: the sockets, UDP in batches and TCP
//! - [`node`]: the composition root: engine thread, router, the side towards Bitcoin, peers found, RPC, datadir
//! - [`sim`]: engines joined by links with virtual time; scenarios, limits, what came of runs
//! - [`study`]: the simulator at the command line: files, threads, tables
//! - [`lab`]: node processes in network namespaces, joined by the simulator's links on a real clock
//! - [`config`], [`cli`]: what an operator can say
//! - [`fuzzing`]: what the fuzzers call
//!
//! # What holds throughout
//!
//! - No module below `net` performs I/O, reads a clock, spawns, locks or draws global randomness.
//! - Nothing unverified is forwarded, served or stored for longer than its bound.
//! - Nothing a peer says sets the size of an allocation or the length of a loop before it was checked
//!   against a bound that stands in one place.
//! - No datagram is answered with more bytes than it had before its path is proven.
//! - No panic is reachable from bytes that come from outside.

pub mod chain;
pub mod cli;
pub mod config;
pub mod electrum;
pub mod fuzzing;
pub mod lab;
pub mod mempool;
pub mod merkle;
pub mod net;
pub mod node;
pub mod relay;
pub mod sim;
pub mod study;
pub mod time;
pub mod wire;
