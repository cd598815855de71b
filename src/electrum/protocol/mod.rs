//! The Electrum protocol: which methods each version has, what their parameters are and cost, and how answers are written.
//!
//! [`read`] makes an [`Action`] of a call; what of it is a question to the data is a [`super::query::Query`], and
//! [`mod@write`] makes JSON of its answer. What this is not: it holds no state; that is [`super::session`]'s.
//!
//! Written after the texts at `spesmilo/electrum-protocol`, 1.4 to 1.7. Where the text of 1.7 leaves room, ElectrumX 2.0 is
//! followed: the notification of an outpoint has three parameters.

pub mod info;
mod methods;
mod params;
mod version;
pub mod write;

pub use methods::{Action, METHODS, Method, Outpoint, Shape, price_of_answer, read};
pub use version::{Version, agree};
