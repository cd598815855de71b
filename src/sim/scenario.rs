//! A study as a file: who is joined to whom by what, which block comes when, and what befalls them.
//!
//! A scenario is TOML. Every key has a default, and the defaults together are the reference link of the targets: two
//! nodes, 50 ms one way, 50 Mbit/s, a block of 2,500 transactions and 1.06 MB, of which the receiver has none. Keys
//! name their unit last. Rates are in Mbit/s (10^6 bits), sizes in bytes, shares from 0 to 1.
//!
//! ```
//! use blocktorrent::sim::scenario::Scenario;
//!
//! let scenario = Scenario::from_toml("ring.toml", "
//!     name = 'ring'
//!     [topology]
//!     kind = 'ring'
//!     nodes = 6
//!     [link]
//!     loss = 0.01
//!     back = { rate_mbit = 10 }   # towards the lower number
//!     [mempool]
//!     overlap = 0.99
//!     [[event]]
//!     at_ms = 40                  # after the first block was handed in
//!     kind = 'crash'
//!     nodes = [2]
//!     [[adversary]]               # in a place that does not cut honest nodes off, drawn from the seed
//!     kind = 'alters-hashes'
//! ")?;
//! assert_eq!(scenario.topology.nodes, 6);
//! # Ok::<(), blocktorrent::sim::scenario::ScenarioError>(())
//! ```
//!
//! Adversaries are of these kinds ([`AdversaryKind`] says what each does): `alters-hashes`, `alters-transactions`,
//! `alters-witnesses`, `false-count`, `false-short-ids`, `spoils-parity`, `valid-work-invalid-block`, `withholds`, `trickles`,
//! `floods`, `replays`, `spoofs`, `opens-jobs-without-end`, `claims-impossible`, `many-identities`.
//!
//! What it is not: resolved. Files are named here and read by who may read files; what is drawn from the seed is
//! drawn by [`super::trial`].

mod check;
mod error;
mod harm;
mod read;
mod spec;
mod whole;

pub use error::ScenarioError;
pub use harm::AdversaryKind;
pub use spec::*;

#[cfg(test)]
mod tests;
