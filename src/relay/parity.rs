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

use body::BodyCode;
use code::Code;

use super::job::chunk_level;
use super::schedule::first_row_level;
use crate::merkle::Geometry;
use crate::wire::ParityKind;

/// All parity of one string.
#[derive(Clone, Debug)]
pub(crate) struct Coded {
    /// Bytes of the string.
    pub bytes: u32,
    /// Bytes of a cell as it is sent.
    pub cell_len: usize,
    cells: Vec<u8>,
}

impl Coded {
    /// Parity of a first flight. `None` if it has no code.
    pub fn of_flight(string: &[u8]) -> Option<Self> {
        let bytes = u32::try_from(string.len()).ok()?;
        let code = Code::of_flight(bytes)?;
        Some(Self {
            bytes,
            cell_len: code.cell as usize,
            cells: code.encode(string)?,
        })
    }

    /// Parity of a block's transactions but the coinbase, of these lengths. `None` if they have no code.
    pub fn of_transactions(body: &[u8], lengths: &[u32]) -> Option<Self> {
        let bytes = u32::try_from(body.len()).ok()?;
        let code = BodyCode::new(lengths.len() as u32 + 1, bytes)?;
        Some(Self {
            bytes,
            cell_len: code.symbol_len(),
            cells: code.encode(body, lengths)?,
        })
    }

    /// How many cells there are.
    pub fn count(&self) -> u32 {
        (self.cells.len() / self.cell_len.max(1)) as u32
    }

    /// So many cells from one on, or as many as there are up to the last.
    pub fn cells(&self, first: u32, count: u32) -> &[u8] {
        let end = first.saturating_add(count).min(self.count()) as usize;
        let start = first as usize * self.cell_len;
        let cells = self.cells.get(start..end * self.cell_len);
        cells.unwrap_or_default()
    }
}

/// Parity on its way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ParityPush {
    /// Over which string.
    pub kind: ParityKind,
    /// The next cell; after the last comes the first.
    pub next: u32,
    /// Bytes that may still be sent.
    pub left: u64,
    /// Cells in all, once the first are written.
    pub planned: u32,
}

impl ParityPush {
    /// So many bytes of parity, from a cell on that is drawn: others send others.
    pub fn new(kind: ParityKind, draw: u32, bytes: u64) -> Self {
        Self {
            kind,
            next: draw,
            left: bytes,
            planned: 0,
        }
    }
}

/// The levels of the rows of W in a first flight: the one that goes with the anchor, and the chunks'.
pub(crate) fn flight_levels(geometry: &Geometry) -> (u8, u8) {
    (first_row_level(geometry), chunk_level(geometry))
}
