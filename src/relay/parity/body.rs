//! Parity of a block's transactions, and how a receiver fills in what it lacks.
//!
//! The string is transactions 1 to n - 1 in block order, with witnesses. To know where those that it has belong, a receiver
//! needs the lengths of those that it lacks: they are coded too, in a code of their own with as many cells of
//! parity, one of which goes with each cell. So whoever lacks transactions gets their lengths from the same datagrams that
//! bring the transactions themselves.
//!
//! Nothing here is trusted. What is decoded is handed out by chunk, and only if it hashes to the chunk's verified node.

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;

use super::Coded;
use super::code::Code;
use crate::mempool::Transaction;
use crate::relay::job::{Job, Leaf};
use crate::relay::parts::Parts;
use crate::wire::Parity;

/// Cells of lengths that go with one cell of parity: enough wherever the transactions that are lacking fill a cell on
/// average, which the shortest usual ones of 192 bytes do.
const LENGTHS: usize = 1;

/// Decodings that may fail in one job: one for each of the peers that may push, and one of all together. Each costs
/// what a block costs to hash, some milliseconds, and names a liar in the end.
const MAX_FAILURES: u32 = 4;

/// The shortest transaction there is, in bytes: no input, no output.
const SHORTEST: u32 = 10;

/// Both codes of a block's transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BodyCode {
    /// Bytes of all transactions but the coinbase.
    pub bytes: u32,
    code: Code,
    lengths: Code,
}

impl BodyCode {
    /// Those of `count` transactions, the coinbase included, with so many bytes without it.
    pub fn new(count: u32, bytes: u32) -> Option<Self> {
        let code = Code::of_transactions(bytes)?;
        let lengths = Code::of_lengths(count.checked_sub(1)?, code.parity * LENGTHS as u32)?;
        Some(Self {
            bytes,
            code,
            lengths,
        })
    }

    /// Cells of parity there are.
    pub const fn parity(&self) -> u32 {
        self.code.parity
    }

    /// Bytes of a cell of parity as it is sent: lengths, then transactions.
    pub const fn symbol_len(&self) -> usize {
        LENGTHS * self.lengths.cell as usize + self.code.cell as usize
    }

    /// Bytes of a symbol that are lengths.
    const fn lengths_len(&self) -> usize {
        LENGTHS * self.lengths.cell as usize
    }

    /// All cells of parity as they are sent.
    pub fn encode(&self, body: &[u8], lengths: &[u32]) -> Option<Vec<u8>> {
        let lengths = lengths.iter().flat_map(|length| length.to_le_bytes());
        let lengths: Vec<u8> = lengths.collect();
        let (of_lengths, of_body) = (self.lengths.encode(&lengths)?, self.code.encode(body)?);
        let pairs = of_lengths.chunks_exact(self.lengths_len());
        let mut symbols = Vec::with_capacity(self.parity() as usize * self.symbol_len());
        for (pair, cell) in pairs.zip(of_body.chunks_exact(self.code.cell as usize)) {
            symbols.extend_from_slice(pair);
            symbols.extend_from_slice(cell);
        }
        Some(symbols)
    }

    /// Cells of the string that these transactions, of which the lengths are known, lie in.
    pub fn cells_of(&self, places: impl Iterator<Item = Range<u32>>) -> Vec<u32> {
        let mut cells: Vec<u32> = Vec::new();
        for place in places.filter(|place| !place.is_empty()) {
            let first = place.start / self.code.cell;
            let next = cells.last().map_or(0, |last| last + 1);
            cells.extend(first.max(next)..=(place.end - 1) / self.code.cell);
        }
        cells
    }
}

/// Parity that one peer has sent.
#[derive(Debug)]
struct Source {
    code: BodyCode,
    symbols: BTreeMap<u32, Box<[u8]>>,
    planned: u32,
    /// What came of it alone was false.
    failed: bool,
}

/// Parity of a job's transactions, by the slots of the peers that sent it.
#[derive(Debug, Default)]
pub(crate) struct BodyParity {
    sources: BTreeMap<u32, Source>,
    failures: u32,
    /// All together were tried, and it came to nothing.
    together_failed: bool,
    /// Where each transaction lies, as far as that was decoded.
    places: Vec<Range<u32>>,
}

/// What decoding came to.
#[derive(Debug, Default)]
pub(crate) struct Decoded {
    /// Transactions of chunks that hash to their node.
    pub found: Vec<(u32, Transaction)>,
    /// Chunks that do not.
    pub false_chunks: Vec<u32>,
}

impl BodyParity {
    /// Takes parity of a peer that may push. False if it does not fit the job, or what came before it.
    pub fn note(&mut self, slot: u32, count: u32, parity: &Parity<'_>) -> bool {
        let Some(code) = BodyCode::new(count, parity.bytes) else {
            return false;
        };
        let source = self.sources.entry(slot).or_insert_with(|| Source {
            code,
            symbols: BTreeMap::new(),
            planned: 0,
            failed: false,
        });
        let fits = source.code == code
            && parity.cell_len() == code.symbol_len()
            && parity.first + u32::from(parity.count) <= code.parity();
        if fits && !source.failed {
            source.planned = parity.planned;
            for (number, symbol) in parity.cells() {
                source
                    .symbols
                    .entry(number)
                    .or_insert_with(|| symbol.into());
            }
        }
        fits
    }

    /// Whether there is any.
    pub fn is_empty(&self) -> bool {
        self.sources.is_empty()
    }

    /// Bytes that the peer with most of it has here.
    pub fn most_bytes(&self) -> usize {
        let bytes = |source: &Source| source.symbols.len() * source.code.symbol_len();
        self.sources.values().map(bytes).max().unwrap_or(0)
    }

    /// Cells that are still to come, as their senders plan; and those that are here.
    pub fn expected(&self) -> (u32, u32) {
        let sources = self.sources.values().filter(|source| !source.failed);
        sources.fold((0, 0), |(coming, here), source| {
            let have = source.symbols.len() as u32;
            (coming + source.planned.saturating_sub(have), here + have)
        })
    }

    /// Whether something of it was false.
    pub const fn has_failed(&self) -> bool {
        self.failures > 0
    }

    /// The end of the transactions which so many cells make good, if they are lacking. `None` before it is known where
    /// they lie.
    pub fn covered_by(&self, job: &Job, cells: u32) -> Option<u32> {
        let code = self.sources.values().next()?.code;
        if !fits(job, &code, &self.places) {
            return None;
        }
        let (mut next, mut left) = (0, cells);
        for leaf in lacking_leaves(job) {
            let place = self.places.get(leaf as usize - 1)?;
            let (first, end) = (
                place.start / code.code.cell,
                place.end.div_ceil(code.code.cell),
            );
            let more = end - first.max(next).min(end);
            if more > left {
                return Some(leaf);
            }
            left -= more;
            next = end;
        }
        Some(job.geometry.count())
    }

    /// The peers whose parity is not the block's own.
    pub fn liars(&self, truth: &Coded) -> Vec<u32> {
        let lies = |source: &Source| {
            let other = source.code.bytes != truth.bytes;
            let mut symbols = source.symbols.iter();
            other || symbols.any(|(number, symbol)| truth.cells(*number, 1) != &**symbol)
        };
        let liars = self.sources.iter().filter(|(_, source)| lies(source));
        liars.map(|(slot, _)| *slot).collect()
    }

    /// A peer is gone: what it sent is not asked about any longer.
    pub fn forget(&mut self, slot: u32) {
        self.sources.remove(&slot);
    }

    /// Tries to make good what the job lacks: from the source that has most, or from all together if that is not enough.
    /// `None` while there is too little, or when what there is has failed.
    pub fn decode(&mut self, job: &Job, parts: &Parts) -> Option<Decoded> {
        let knows_chunks = || (0..job.chunks.len() as u32).all(|chunk| job.knows_chunk(chunk));
        if self.failures >= MAX_FAILURES || !job.is_anchored() || !knows_chunks() {
            return None;
        }
        let usable = self.sources.iter().filter(|(_, source)| !source.failed);
        let (best, source) = usable.max_by_key(|(_, source)| source.symbols.len())?;
        let (best, code) = (*best, source.code);
        let have = Have {
            job,
            parts,
            slot: best,
        };
        let alone = self.attempt(&have, &code, |slot, _| slot == best);
        if let Some(decoded) = alone {
            if !decoded.false_chunks.is_empty() {
                self.fail(Some(best));
            }
            return Some(decoded);
        }
        let several = self.sources.len() > 1 && !self.together_failed;
        let together = several.then(|| {
            self.attempt(&have, &code, |_, source| {
                !source.failed && source.code == code
            })
        });
        let decoded = together.flatten()?;
        if !decoded.false_chunks.is_empty() {
            self.fail(None);
        }
        Some(decoded)
    }

    fn fail(&mut self, slot: Option<u32>) {
        self.failures += 1;
        self.places.clear();
        match slot.and_then(|slot| self.sources.get_mut(&slot)) {
            Some(source) => source.failed = true,
            None => self.together_failed = true,
        }
    }

    /// Decodes from the symbols of those sources that `which` names. `None` if they are too few; everything false if
    /// they contradict themselves.
    fn attempt(
        &mut self,
        have: &Have<'_>,
        code: &BodyCode,
        which: impl Fn(u32, &Source) -> bool,
    ) -> Option<Decoded> {
        let sources = self.sources.iter();
        let chosen = sources.filter(|(slot, source)| which(**slot, source));
        let mut symbols: BTreeMap<u32, &[u8]> = BTreeMap::new();
        for (number, symbol) in chosen.flat_map(|(_, source)| &source.symbols) {
            symbols.entry(*number).or_insert(symbol);
        }
        let job = have.job;
        let lacking: Vec<u32> = lacking_leaves(job).collect();
        if lacking.is_empty() {
            return None;
        }
        if !fits(job, code, &self.places) {
            self.places.clear();
        }
        if self.places.is_empty() && symbols.len() * LENGTHS < have.unknown_lengths(code).len() {
            return None;
        }
        let all_false = || Decoded {
            found: Vec::new(),
            false_chunks: chunks_of(job, &lacking),
        };
        if self.places.is_empty() {
            match have.places(code, &symbols) {
                Some(places) => self.places = places,
                None => return Some(all_false()),
            }
        }
        let places = &self.places;
        let missing = code.cells_of(have.gaps(places));
        if missing.len() > symbols.len() {
            return None;
        }
        let mut body = have.body(places, code.code.padded_len());
        let cut = code.lengths_len();
        let cells = symbols.iter().map(|(number, symbol)| {
            let (_, cell) = symbol.split_at_checked(cut).unwrap_or_default();
            (*number, cell)
        });
        if !code.code.decode(&mut body, &missing, cells) {
            return Some(all_false());
        }
        let body = Bytes::from(body);
        let found = lacking.iter().filter_map(|leaf| {
            let place = places.get(*leaf as usize - 1)?;
            // A copy of its own: one of a few must not hold on to the whole string.
            let bytes = body.get(place.start as usize..place.end as usize)?;
            let transaction = Transaction::parse(Bytes::copy_from_slice(bytes)).ok()?;
            Some((*leaf, transaction))
        });
        Some(sort_by_truth(job, &lacking, found.collect()))
    }
}

/// The transaction of a leaf that is held or verified.
fn known(job: &Job, leaf: u32) -> Option<&Transaction> {
    match job.leaf(leaf) {
        Leaf::Held(transaction, _) | Leaf::Verified(transaction) => Some(transaction),
        Leaf::Missing => None,
    }
}

fn lacking_leaves(job: &Job) -> impl Iterator<Item = u32> + '_ {
    (1..job.geometry.count()).filter(|leaf| matches!(job.leaf(*leaf), Leaf::Missing))
}

/// Whether these places, of which there may be none, are those of what is known.
fn fits(job: &Job, code: &BodyCode, places: &[Range<u32>]) -> bool {
    let ends_well = places.last().is_some_and(|last| last.end == code.bytes);
    ends_well
        && (1..)
            .zip(places)
            .all(|(leaf, place)| known(job, leaf).is_none_or(|known| known.len() == place.len()))
}

fn chunks_of(job: &Job, leaves: &[u32]) -> Vec<u32> {
    let mut chunks: Vec<u32> = leaves.iter().map(|leaf| job.chunk_of(*leaf)).collect();
    chunks.dedup();
    chunks
}

/// What is here of a string: transactions, and parts of them from one peer.
struct Have<'a> {
    job: &'a Job,
    parts: &'a Parts,
    slot: u32,
}

impl Have<'_> {
    /// The length of a transaction, if it is here or a part of it has told.
    fn length(&self, leaf: u32) -> Option<u32> {
        let whole = known(self.job, leaf).map(|known| known.len() as u32);
        whole.or_else(|| {
            let (bytes, _) = self.parts.of_leaf(leaf, self.slot)?;
            Some(bytes.len() as u32)
        })
    }

    /// Cells of lengths that are lacking, ascending.
    fn unknown_lengths(&self, code: &BodyCode) -> Vec<u32> {
        let group = code.lengths.cell / 4;
        let unknown = lacking_leaves(self.job).filter(|leaf| self.length(*leaf).is_none());
        let mut cells: Vec<u32> = unknown.map(|leaf| (leaf - 1) / group).collect();
        cells.dedup();
        cells
    }

    /// Where each transaction lies in the string. `None` if the lengths that were decoded cannot be.
    fn places(&self, code: &BodyCode, symbols: &BTreeMap<u32, &[u8]>) -> Option<Vec<Range<u32>>> {
        let leaves = 1..self.job.geometry.count();
        let lengths = leaves.clone().map(|leaf| self.length(leaf));
        let mut string: Vec<u8> = lengths
            .flat_map(|length| length.unwrap_or(0).to_le_bytes())
            .collect();
        string.resize(code.lengths.padded_len(), 0);
        let missing = self.unknown_lengths(code);
        let cells = symbols.iter().flat_map(|(number, symbol)| {
            let (cells, _) = symbol
                .split_at_checked(code.lengths_len())
                .unwrap_or_default();
            let first = number * LENGTHS as u32;
            (first..).zip(cells.chunks_exact(code.lengths.cell as usize))
        });
        if !code.lengths.decode(&mut string, &missing, cells) {
            return None;
        }
        let mut at = 0u32;
        let mut places = Vec::with_capacity(leaves.len());
        for (leaf, length) in leaves.zip(string.as_chunks().0) {
            let length = u32::from_le_bytes(*length);
            let right = match self.length(leaf) {
                Some(known) => known == length,
                None => length >= SHORTEST,
            };
            let end = at.checked_add(length);
            let end = end.filter(|end| right && *end <= code.bytes)?;
            places.push(at..end);
            at = end;
        }
        (at == code.bytes).then_some(places)
    }

    /// The stretches of the string that are not here, ascending.
    fn gaps(&self, places: &[Range<u32>]) -> impl Iterator<Item = Range<u32>> {
        lacking_leaves(self.job).flat_map(|leaf| {
            let place = places.get(leaf as usize - 1).cloned().unwrap_or(0..0);
            match self.parts.of_leaf(leaf, self.slot) {
                Some((bytes, gaps)) if bytes.len() == place.len() => gaps
                    .into_iter()
                    .map(|gap| place.start + gap.start..place.start + gap.end)
                    .collect(),
                _ => vec![place],
            }
        })
    }

    /// The string as far as it is here, zeros where it is not.
    fn body(&self, places: &[Range<u32>], padded_len: usize) -> Vec<u8> {
        let mut body = vec![0; padded_len];
        for (leaf, place) in (1..).zip(places) {
            let bytes = match known(self.job, leaf) {
                Some(known) => Some(&known.bytes()[..]),
                None => self.parts.of_leaf(leaf, self.slot).map(|(bytes, _)| bytes),
            };
            let room = body.get_mut(place.start as usize..place.end as usize);
            if let (Some(bytes), Some(room)) = (bytes, room)
                && bytes.len() == room.len()
            {
                room.copy_from_slice(bytes);
            }
        }
        body
    }
}

/// Keeps what was decoded for those chunks that it makes hash to their verified node.
fn sort_by_truth(job: &Job, lacking: &[u32], found: BTreeMap<u32, Transaction>) -> Decoded {
    let mut decoded = Decoded::default();
    for chunk in chunks_of(job, lacking) {
        let leaves = job.chunk_leaves(chunk);
        if job.would_verify(chunk, |leaf| found.get(&leaf)) {
            let range = found.range(leaves);
            decoded
                .found
                .extend(range.map(|(leaf, transaction)| (*leaf, transaction.clone())));
        } else {
            decoded.false_chunks.push(chunk);
        }
    }
    decoded
}
