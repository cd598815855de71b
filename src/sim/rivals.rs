//! What users would pick instead, in the same world: models of rivals over the links, blocks and mempools of a trial.
//!
//! - [`p2p`]: Bitcoin's own protocol, whole blocks and BIP152, over [`tcp`];
//! - [`fibre`]: FIBRE's design, over UDP.
//!
//! Each says in its documentation where it is from and what was simplified. Where a model errs, it errs in the rival's
//! favour. Each was put beside measurements of the real thing on the same links, in its tests.
//!
//! # Beside the real thing
//!
//! 50 ms one way, 50 Mbit/s, a block of 2,501 transactions and 1.06 MB; milliseconds until the block is whole, measured,
//! and in brackets what the model gives. Bitcoin Core's are medians over the blocks of one connection, which depend on
//! what was lost early on it; so the model's are the least and the greatest median of ten connections of eleven blocks
//! (cubic, cold, 1%: three of three; 4 hops: five of five). `cargo test --lib figures_ -- --nocapture` prints them.
//!
//! | bip152-hb | warm 100% | warm 99% | warm 95% | cold |
//! | --- | --- | --- | --- | --- |
//! | 0, bbr | 84 (82) | 204 (193) | 208 (207) | 346 (330) |
//! | 1%, bbr | 84 (82) | 203 (193 to 206) | 213 (210 to 328) | 437 (417 to 444) |
//! | 3%, bbr | 159 (82 to 161) | 206 (199 to 328) | 359 (278 to 423) | 534 (438 to 565) |
//! | 5%, bbr | 168 (82 to 181) | 465 (199 to 416) | 387 (284 to 469) | 615 (527 to 727) |
//! | 0, cubic | 153 (150) | 256 (252) | 359 (354) | 790 (779) |
//! | 1%, cubic | 153 (150 to 151) | 258 (252 to 352) | 459 (354 to 654) | 6,324 (1,968 to 5,570) |
//! | 4 hops, 1%, bbr | 359 (327 to 406) | | | 2,191 (1,749 to 2,187) |
//!
//! | FIBRE, hops, loss | warm 100% | warm 99% | warm 95% | cold |
//! | --- | --- | --- | --- | --- |
//! | trusted, 1, 0 | 56 (54) | 66 (63) | 92 (88) | 251 (237) |
//! | trusted, 1, 1% | 56 (54) | 67 (63) | 93 (88) | 253 (238) |
//! | trusted, 1, 5% | 55 (54) | 66 (64) | 94 (89) | 260 (246) |
//! | trusted, 4, 1% | 214 (204) | | | 541 (410) |
//! | untrusted, 4, 1% | 270 (214) | | | 1,026 (955) |
//!
//! Where a model is more than 15% off, it is off in the rival's favour: over four hops FIBRE also computes, and drops
//! what comes meanwhile.
//!
//! What they are not: programs that could relay a block. No bytes are in them, only lengths and times.

pub mod fibre;
mod network;
pub mod p2p;
mod stage;
pub mod tcp;

use fibre::Fibre;
use p2p::{Mode, PeerToPeer, REHEARSALS};
use tcp::Control;

/// BIP152 in high-bandwidth mode.
pub const BIP152_HIGH_BANDWIDTH: PeerToPeer = PeerToPeer {
    mode: Mode::HighBandwidth,
    control: Control::Bbr,
    rehearsals: REHEARSALS,
};
/// BIP152 in low-bandwidth mode.
pub const BIP152_LOW_BANDWIDTH: PeerToPeer = PeerToPeer {
    mode: Mode::LowBandwidth,
    control: Control::Bbr,
    rehearsals: REHEARSALS,
};
/// Whole blocks.
pub const WHOLE_BLOCKS: PeerToPeer = PeerToPeer {
    mode: Mode::Block,
    control: Control::Bbr,
    rehearsals: REHEARSALS,
};
/// FIBRE between nodes that trust each other.
pub const FIBRE_TRUSTED: Fibre = Fibre { trusted: true };
/// FIBRE between nodes that do not.
pub const FIBRE_UNTRUSTED: Fibre = Fibre { trusted: false };
/// The protocols over TCP with CUBIC.
pub const OVER_CUBIC: [PeerToPeer; 3] = [
    PeerToPeer {
        control: Control::Cubic,
        ..BIP152_HIGH_BANDWIDTH
    },
    PeerToPeer {
        control: Control::Cubic,
        ..BIP152_LOW_BANDWIDTH
    },
    PeerToPeer {
        control: Control::Cubic,
        ..WHOLE_BLOCKS
    },
];

#[cfg(test)]
mod tests;
