//! The first flight as one string, and what of it a receiver has.
//!
//! ```text
//! branch of leaf 0 | first row of W | what proves the count | row of the chunks | short ids of all leaves | coinbase
//! ```
//!
//! Where each part lies follows from the count of transactions alone, but for the coinbase, which ends the string. The
//! receiver fills in what came from one peer, whichever frames brought it, and when parity makes the rest good, takes it as if
//! that peer had sent it: every byte of it is that peer's, and so is the blame.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::code::Code;
use crate::merkle::{Geometry, Hash, Lap, Node};
use crate::relay::peer::Set;
use crate::wire::{Parity, ParityKind};

/// Bytes of a short id in the string.
const SHORT: usize = 6;

/// Bytes of a hash.
const HASH: usize = 32;

/// The longest coinbase that is coded with its flight: a hundred kilobytes, as some pools have paid their miners by.
const MAX_COINBASE: u32 = 100_000;

/// Where the parts of a first flight lie in its string.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    geometry: Geometry,
    row_level: u8,
    chunk_level: u8,
    branch: Range<usize>,
    row: Range<usize>,
    count: Range<usize>,
    chunks: Range<usize>,
    short_ids: Range<usize>,
}

/// A part of a first flight that was made good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Found {
    /// The branch of leaf 0.
    Branch(Vec<Hash>),
    /// A lap of W.
    Lap(Lap, Vec<Hash>),
    /// Short ids of a chunk.
    ShortIds(u32, Vec<u64>),
    /// The coinbase.
    Coinbase(Bytes),
}

impl Layout {
    /// The layout for a block of this shape. `None` for a block of one transaction, whose flight is its coinbase.
    pub fn new(
        geometry: Geometry,
        row_level: u8,
        chunk_level: u8,
        kind: ParityKind,
    ) -> Option<Self> {
        if geometry.count() < 2 {
            return None;
        }
        let mut layout = Self {
            geometry,
            row_level,
            chunk_level,
            branch: 0..HASH * geometry.branch_of_first().count as usize,
            row: 0..0,
            count: 0..0,
            chunks: 0..0,
            short_ids: 0..0,
        };
        let after = |range: &Range<usize>, bytes: usize| range.end..range.end + bytes;
        layout.row = after(&layout.branch, HASH * geometry.width(row_level) as usize);
        let proof = layout.count_lap().map_or(0, |lap| lap.len() as usize);
        layout.count = after(&layout.row, HASH * proof);
        let width = match row_level < chunk_level {
            true => geometry.width(chunk_level) as usize,
            false => 0,
        };
        layout.chunks = after(&layout.count, HASH * width);
        let leaves = match kind {
            ParityKind::Flight => geometry.count() as usize,
            ParityKind::Anchor | ParityKind::Transactions => 0,
        };
        layout.short_ids = after(&layout.chunks, SHORT * leaves);
        Some(layout)
    }

    /// Bytes before the coinbase.
    pub fn fixed_len(&self) -> usize {
        self.short_ids.end
    }

    /// The lap that proves the count, if the row is above the leaves.
    pub fn count_lap(&self) -> Option<Lap> {
        let depth = self.geometry.depth();
        if self.row_level >= depth {
            return None;
        }
        let last = self.geometry.count() - 1;
        let leaf = self.geometry.leaf(last)?;
        let above = self.geometry.ancestor(leaf, self.row_level)?;
        self.geometry.lap(above, depth, last..last + 1)
    }

    /// The lap that is the first row.
    pub fn row_lap(&self) -> Option<Lap> {
        let width = self.geometry.width(self.row_level);
        self.geometry
            .lap(self.geometry.root(), self.row_level, 0..width)
    }

    /// The laps that are the row of the chunks, if that is another.
    pub fn chunk_laps(&self) -> impl Iterator<Item = Lap> + use<> {
        let Self {
            geometry,
            row_level,
            chunk_level,
            ..
        } = *self;
        let width = match row_level < chunk_level {
            true => geometry.width(row_level),
            false => 0,
        };
        (0..width).filter_map(move |index| {
            let above = geometry.node(row_level, index)?;
            geometry.lap(above, chunk_level, geometry.descendants(above, chunk_level))
        })
    }

    /// The string of a block: `hash` gives the hashes of W, `short_id` makes short ids of them. `None` while one of them
    /// is not known, or when the coinbase is too long to be coded.
    pub fn string(
        &self,
        branch: &[Hash],
        hash: impl Fn(Node) -> Option<Hash>,
        short_id: impl Fn(&Hash) -> u64,
        coinbase: &[u8],
    ) -> Option<Vec<u8>> {
        if coinbase.len() > MAX_COINBASE as usize {
            return None;
        }
        let mut string = Vec::with_capacity(self.fixed_len() + coinbase.len());
        string.extend_from_slice(branch.as_flattened());
        let laps = self.row_lap().into_iter().chain(self.count_lap());
        for lap in laps.chain(self.chunk_laps()) {
            for node in lap.nodes(&self.geometry)? {
                string.extend_from_slice(&hash(node)?);
            }
        }
        if !self.short_ids.is_empty() {
            for leaf in 0..self.geometry.count() {
                let id = short_id(&hash(self.geometry.leaf(leaf)?)?);
                string.extend_from_slice(id.to_le_bytes().get(..SHORT)?);
            }
        }
        debug_assert_eq!(string.len(), self.fixed_len());
        string.extend_from_slice(coinbase);
        Some(string)
    }

    /// Where the hashes of a lap of W lie, if it is a part of a first flight.
    fn place_of(&self, lap: &Lap) -> Option<Range<usize>> {
        let flat = lap.flat()?;
        let depth = self.geometry.depth();
        let (level, _) = lap.ancestor;
        let bytes = HASH * lap.len() as usize;
        if lap.runs.len() == 1 && level == 0 && flat.level == self.row_level {
            let whole = flat.start == 0 && flat.count == self.geometry.width(self.row_level);
            return whole.then(|| self.row.clone());
        }
        let last = flat.start + 1 == self.geometry.count() && flat.count == 1;
        if level == self.row_level && flat.level == depth && last && !self.count.is_empty() {
            return (bytes == self.count.len()).then(|| self.count.clone());
        }
        let in_row = lap.runs.len() == 1 && level == self.row_level;
        if in_row && flat.level == self.chunk_level && !self.chunks.is_empty() {
            let start = self.chunks.start + HASH * flat.start as usize;
            return (start + bytes <= self.chunks.end).then_some(start..start + bytes);
        }
        None
    }
}

/// What one peer has sent of its first flight, and parity of it.
#[derive(Debug)]
pub(crate) struct Flight {
    layout: Layout,
    kind: ParityKind,
    bytes: Vec<u8>,
    have: Set,
    /// Bytes of the coinbase, once parity has told or it is here.
    coinbase: Option<u32>,
    parity: BTreeMap<u32, Box<[u8]>>,
    done: bool,
}

impl Flight {
    /// Nothing is here yet.
    pub fn new(layout: Layout, kind: ParityKind) -> Self {
        let fixed = layout.fixed_len();
        Self {
            layout,
            kind,
            bytes: vec![0; fixed],
            have: Set::repeat(false, fixed),
            coinbase: None,
            parity: BTreeMap::new(),
            done: false,
        }
    }

    /// Bytes that it holds.
    pub fn held_bytes(&self) -> usize {
        let cell = self.parity.values().next().map_or(0, |cell| cell.len());
        self.bytes.len() + self.have.len() / 8 + self.parity.len() * cell
    }

    fn fill(&mut self, start: usize, bytes: &[u8]) {
        let range = start..start + bytes.len();
        if let (Some(to), Some(bits)) =
            (self.bytes.get_mut(range.clone()), self.have.get_mut(range))
        {
            to.copy_from_slice(bytes);
            bits.fill(true);
        }
    }

    /// The branch of leaf 0 came.
    pub fn note_branch(&mut self, hashes: &[Hash]) {
        if HASH * hashes.len() == self.layout.branch.len() {
            self.fill(self.layout.branch.start, hashes.as_flattened());
        }
    }

    /// A lap of W came.
    pub fn note_lap(&mut self, lap: &Lap, hashes: &[Hash]) {
        if let Some(place) = self.layout.place_of(lap)
            && place.len() == HASH * hashes.len()
        {
            self.fill(place.start, hashes.as_flattened());
        }
    }

    /// Short ids of leaves came.
    pub fn note_short_ids(&mut self, first: u32, ids: impl Iterator<Item = u64>) {
        if self.layout.short_ids.is_empty() {
            return;
        }
        let start = self.layout.short_ids.start + SHORT * first as usize;
        for (position, id) in ids.enumerate() {
            let at = start + SHORT * position;
            if at + SHORT <= self.layout.short_ids.end
                && let Some(bytes) = id.to_le_bytes().get(..SHORT)
            {
                self.fill(at, bytes);
            }
        }
    }

    /// Bytes of the coinbase came: from `offset` on, of `total`.
    pub fn note_coinbase(&mut self, total: u32, offset: u64, bytes: &[u8]) {
        let end = offset + bytes.len() as u64;
        if end <= u64::from(total) && self.set_coinbase_len(total) {
            self.fill(self.layout.fixed_len() + offset as usize, bytes);
        }
    }

    /// Whether the coinbase has this length, as far as is known.
    fn set_coinbase_len(&mut self, len: u32) -> bool {
        if self.coinbase.is_none() && (1..=MAX_COINBASE).contains(&len) {
            let whole = self.layout.fixed_len() + len as usize;
            self.coinbase = Some(len);
            self.bytes.resize(whole, 0);
            self.have.resize(whole, false);
        }
        self.coinbase == Some(len)
    }

    /// Parity came. False if it does not fit what came before it.
    pub fn note_parity(&mut self, parity: &Parity<'_>) -> bool {
        let len = parity.bytes.checked_sub(self.layout.fixed_len() as u32);
        let Some(code) = Code::of_flight(parity.bytes) else {
            return false;
        };
        let fits = len.is_some_and(|len| self.set_coinbase_len(len))
            && parity.cell_len() == code.cell as usize
            && parity.first + u32::from(parity.count) <= code.parity;
        if !fits || self.done {
            return fits;
        }
        for (number, cell) in parity.cells() {
            self.parity.entry(number).or_insert_with(|| cell.into());
        }
        true
    }

    /// What of the flight had not come and is known now. Nothing while there is too little parity.
    pub fn make_good(&mut self) -> Vec<Found> {
        let whole = self.bytes.len() as u32;
        let Some(code) = Code::of_flight(whole).filter(|_| !self.parity.is_empty() && !self.done)
        else {
            return Vec::new();
        };
        let cell = code.cell as usize;
        let missing: Vec<u32> = (0..code.data)
            .filter(|number| {
                let start = *number as usize * cell;
                let bits = self.have.get(start..(start + cell).min(self.have.len()));
                bits.is_some_and(|bits| !bits.all())
            })
            .collect();
        if missing.len() > self.parity.len() {
            return Vec::new();
        }
        let mut string = self.bytes.clone();
        string.resize(code.padded_len(), 0);
        let parity = self.parity.iter().map(|(number, cell)| (*number, &**cell));
        self.done = true;
        if !code.decode(&mut string, &missing, parity) {
            return Vec::new();
        }
        self.parity.clear();
        self.bytes
            .copy_from_slice(string.get(..whole as usize).unwrap_or_default());
        let found = self.found();
        self.have.fill(true);
        found
    }

    /// The parts of which something had not come.
    fn found(&self) -> Vec<Found> {
        let layout = &self.layout;
        let lacked = |range: &Range<usize>| {
            let bits = self.have.get(range.clone());
            bits.is_some_and(|bits| !bits.all())
        };
        let hashes = |range: Range<usize>| -> Vec<Hash> {
            let bytes = self.bytes.get(range).unwrap_or_default();
            bytes.as_chunks().0.to_vec()
        };
        let mut found = Vec::new();
        if lacked(&layout.branch) {
            found.push(Found::Branch(hashes(layout.branch.clone())));
        }
        let laps = layout.row_lap().into_iter().chain(layout.count_lap());
        for lap in laps.chain(layout.chunk_laps()) {
            if let Some(place) = layout.place_of(&lap).filter(&lacked) {
                found.push(Found::Lap(lap, hashes(place)));
            }
        }
        let coinbase = layout.fixed_len()..self.bytes.len();
        if lacked(&coinbase) {
            let bytes = self.bytes.get(coinbase).unwrap_or_default();
            found.push(Found::Coinbase(Bytes::copy_from_slice(bytes)));
        }
        if self.kind == ParityKind::Flight {
            found.extend(self.found_short_ids(lacked));
        }
        found
    }

    fn found_short_ids(&self, lacked: impl Fn(&Range<usize>) -> bool) -> Vec<Found> {
        let (geometry, level) = (self.layout.geometry, self.layout.chunk_level);
        let nodes = (0..geometry.width(level)).filter_map(|index| geometry.node(level, index));
        let ids = |node: Node| {
            let leaves = geometry.leaves(node);
            let at = |leaf: u32| self.layout.short_ids.start + SHORT * leaf as usize;
            let place = at(leaves.start)..at(leaves.end);
            if !lacked(&place) {
                return None;
            }
            let ids = self.bytes.get(place)?.chunks_exact(SHORT).map(|bytes| {
                let mut wide = [0; 8];
                wide[..SHORT].copy_from_slice(bytes);
                u64::from_le_bytes(wide)
            });
            Some(Found::ShortIds(node.index(), ids.collect()))
        };
        nodes.filter_map(ids).collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::rngs::StdRng;
    use rand::{RngExt, SeedableRng};

    use super::*;
    use crate::merkle::hash;
    use crate::relay::parity::{Coded, flight_levels};
    use crate::wire::JobRef;

    /// What a flight consists of, in the frames in which it is sent.
    struct Sent {
        layout: Layout,
        branch: Vec<Hash>,
        laps: Vec<(Lap, Vec<Hash>)>,
        ids: Vec<u64>,
        coinbase: Vec<u8>,
        coded: Coded,
    }

    fn rows(leaves: Vec<Hash>) -> Vec<Vec<Hash>> {
        let mut rows = vec![leaves];
        while rows.last().unwrap().len() > 1 {
            let mut above = Vec::new();
            hash::row_up(rows.last().unwrap(), &mut above);
            rows.push(above);
        }
        rows.reverse();
        rows
    }

    impl Sent {
        fn new(count: u32, coinbase: usize, random: &mut StdRng) -> Self {
            let geometry = Geometry::new(count).unwrap();
            let (row, chunks) = flight_levels(&geometry);
            let layout = Layout::new(geometry, row, chunks, ParityKind::Flight).unwrap();
            let rows = rows((0..count).map(|_| random.random()).collect());
            let at = |node: Node| rows[usize::from(node.level())][node.index() as usize];
            let nodes = geometry.branch_of_first().nodes(&geometry).unwrap();
            let branch: Vec<Hash> = nodes.map(at).collect();
            let short = |hash: &Hash| u64::from_le_bytes(hash[..8].try_into().unwrap()) >> 16;
            let coinbase: Vec<u8> = (0..coinbase).map(|_| random.random()).collect();
            let string = layout
                .string(&branch, |node| Some(at(node)), short, &coinbase)
                .unwrap();
            assert_eq!(string.len(), layout.fixed_len() + coinbase.len());
            let laps = layout.row_lap().into_iter().chain(layout.count_lap());
            let laps = laps.chain(layout.chunk_laps());
            let laps = laps.map(|lap| {
                let hashes = lap.nodes(&geometry).unwrap().map(at).collect();
                (lap, hashes)
            });
            Self {
                branch,
                laps: laps.collect(),
                ids: rows[usize::from(geometry.depth())]
                    .iter()
                    .map(short)
                    .collect(),
                coded: Coded::of_flight(&string).unwrap(),
                coinbase,
                layout,
            }
        }

        fn parity(&self, first: u32, count: u32) -> Parity<'_> {
            Parity {
                job: JobRef::of_sender(1),
                kind: ParityKind::Flight,
                bytes: self.coded.bytes,
                planned: count,
                first,
                count: count as u8,
                cells: self.coded.cells(first, count),
            }
        }

        /// The parts that come whole, and those that are to be found.
        fn deliver(&self, flight: &mut Flight, random: &mut StdRng, loss: f64) -> Vec<Found> {
            let mut lost = Vec::new();
            let mut comes = || !random.random_bool(loss);
            match comes() {
                true => flight.note_branch(&self.branch),
                false => lost.push(Found::Branch(self.branch.clone())),
            }
            for (lap, hashes) in &self.laps {
                match comes() {
                    true => flight.note_lap(lap, hashes),
                    false => lost.push(Found::Lap(lap.clone(), hashes.clone())),
                }
            }
            match comes() {
                true => flight.note_coinbase(self.coinbase.len() as u32, 0, &self.coinbase),
                false => lost.push(Found::Coinbase(self.coinbase.clone().into())),
            }
            let geometry = self.layout.geometry;
            let level = self.layout.chunk_level;
            for chunk in 0..geometry.width(level) {
                let leaves = geometry.leaves(geometry.node(level, chunk).unwrap());
                let ids = self.ids[leaves.start as usize..leaves.end as usize].to_vec();
                match comes() {
                    true => flight.note_short_ids(leaves.start, ids.into_iter()),
                    false => lost.push(Found::ShortIds(chunk, ids)),
                }
            }
            lost
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn what_is_lost_of_a_flight_comes_back(
            count in 2u32..3_000,
            coinbase in 1usize..400,
            loss in 0.0f64..0.4,
            seed: u64,
        ) {
            let mut random = StdRng::seed_from_u64(seed);
            let sent = Sent::new(count, coinbase, &mut random);
            let mut flight = Flight::new(sent.layout.clone(), ParityKind::Flight);
            let lost = sent.deliver(&mut flight, &mut random, loss);
            let mut found = Vec::new();
            for first in (0..sent.coded.count()).step_by(16) {
                prop_assert!(flight.note_parity(&sent.parity(first, 16)));
                found = flight.make_good();
                if !found.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(found, lost);
            prop_assert!(flight.make_good().is_empty());
        }
    }

    #[test]
    fn parity_that_does_not_fit_is_refused() {
        let mut random = StdRng::seed_from_u64(4);
        let sent = Sent::new(300, 200, &mut random);
        let mut flight = Flight::new(sent.layout.clone(), ParityKind::Flight);
        let right = sent.parity(0, 4);
        assert!(flight.note_parity(&right));
        let other = |bytes| Parity { bytes, ..right };
        // Shorter than its fixed parts, with another coinbase than before, or one that is too long.
        assert!(!flight.note_parity(&other(100)));
        assert!(!flight.note_parity(&other(right.bytes + 1)));
        let mut fresh = Flight::new(sent.layout.clone(), ParityKind::Flight);
        assert!(!fresh.note_parity(&other(sent.layout.fixed_len() as u32)));
        assert!(!fresh.note_parity(&other(sent.layout.fixed_len() as u32 + MAX_COINBASE + 1)));
        // Cells of another size, or beyond the code.
        assert!(!flight.note_parity(&Parity { count: 2, ..right }));
        let beyond = sent.coded.count() - 2;
        assert!(!flight.note_parity(&Parity {
            first: beyond,
            ..right
        }));
        // False cells come to something false, once, and to nothing more.
        let mut flight = Flight::new(sent.layout.clone(), ParityKind::Flight);
        let _ = sent.deliver(&mut flight, &mut random, 0.0);
        flight.have.set(0, false);
        flight.bytes[0] ^= 1;
        let lies = [7; 64 * 4];
        assert!(flight.note_parity(&Parity {
            cells: &lies,
            ..right
        }));
        assert!(
            matches!(flight.make_good().as_slice(), [Found::Branch(branch)] if *branch != sent.branch)
        );
        assert!(flight.note_parity(&right) && flight.make_good().is_empty());
    }
}
