//! Parity: an erasure code over what is pushed, so that loss and a mempool that differs cost no round trip.
//!
//! A string is cut into cells. Whoever lacks some of them, whichever they are and for whatever reason, gets them back
//! from as many cells of parity. Two strings are coded: the first flight ([`flight`]) and the transactions of the block
//! ([`body`]), of which a receiver has most in its cache. Parity proves nothing by itself: what was decoded counts only
//! once it is verified in the block's trees like everything else, and it is decoded from one source's cells at a time,
//! unless no source has sent enough. How much of it is sent: [`amount`].

pub(super) mod amount;
pub(super) mod body;
pub(super) mod code;
pub(super) mod flight;
