//! The header chain as the engine's thread uses it: it judges for the engine, and answers for RPC.
//!
//! One chain, behind one lock that is held for microseconds, or for a millisecond or two by whoever hands
//! in a whole message of headers: the engine owns its judge, commands look at the same chain between two
//! turns of the engine, and the side towards Bitcoin nodes adds what those announce.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bitcoin::block::Header;
use bitcoin::hashes::Hash as _;
use bitcoin::{BlockHash, CompactTarget, Work};
use tokio::sync::watch;

use super::engine::Hash;
use crate::chain::{Accepted, HeaderRefusal, Headers, Network, StartError, Tip, TrustedStart};
use crate::config;
use crate::relay::{self, HeaderJudge, HeaderVerdict};
use crate::time::Time;

/// Headers from which a median time is taken.
const MEDIAN_SPAN: usize = 11;
/// How far below the tip the work of a block is computed: two retarget periods, some milliseconds.
const MAX_WORK_DEPTH: u32 = 4_032;

/// The header chain, shared by the engine's judge, the commands of its thread, and the Bitcoin side.
#[derive(Clone, Debug)]
pub struct HeaderBook {
    headers: Arc<Mutex<Headers>>,
    tip: watch::Sender<Tip>,
    /// Counts the headers that did not come through the engine's judge.
    news: watch::Sender<u64>,
    /// Counts the headers that the engine could not have judged, for lack of their parents.
    lacks: watch::Sender<u64>,
    /// Whether no header has come since the engine last lacked one.
    is_behind: Arc<AtomicBool>,
}

/// What became of a run of headers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// How many of them are on the chain or beside it now, in order from the first.
    pub accepted: usize,
    /// How many of these were new.
    pub fresh: usize,
    /// Why the next one was refused.
    pub refusal: Option<HeaderRefusal>,
}

/// The chain as a whole, for `getblockchaininfo`.
#[derive(Clone, Debug)]
pub struct ChainView {
    /// Whether peers relay blocks on headers that are not known here, and no header has come since.
    pub is_behind: bool,
    /// Height of the tip.
    pub height: u32,
    /// Hash of the tip.
    pub hash: Hash,
    /// Time of the tip, Unix seconds.
    pub time: u32,
    /// Median time of the tip and the ten before it, Unix seconds.
    pub median_time: u32,
    /// Work of the chain.
    pub work: Work,
    /// The target of the tip, or at a trusted start that of its child.
    pub bits: CompactTarget,
    /// Height at which the chain starts.
    pub start_height: u32,
}

/// One header, for `getblockheader`.
#[derive(Clone, Debug)]
pub struct HeaderView {
    /// The header.
    pub header: Header,
    /// Its height.
    pub height: u32,
    /// Blocks from it to the tip, both counted; -1 off the active chain.
    pub confirmations: i64,
    /// Median time of it and the ten before it, as far as they are known, Unix seconds.
    pub median_time: u32,
    /// Work of the chain up to it, if it is not too deep.
    pub work: Option<Work>,
    /// The next block of the active chain.
    pub next: Option<Hash>,
}

impl HeaderBook {
    /// A chain of `network` that begins at its genesis block, or where the operator says.
    ///
    /// # Errors
    ///
    /// A trusted start that makes no sense.
    pub fn new(network: Network, start: Option<config::TrustedStart>) -> Result<Self, StartError> {
        let headers = match start {
            None => Headers::genesis(network),
            Some(start) => Headers::from_trusted(
                network,
                TrustedStart {
                    height: start.height,
                    hash: BlockHash::from_byte_array(start.hash),
                    time: start.time,
                    child_bits: CompactTarget::from_consensus(start.bits),
                    period_start_time: start.epoch_start_time,
                    earlier_times: Vec::new(),
                    chain_work: Work::from_be_bytes([0; 32]),
                },
            )?,
        };
        let (tip, _) = watch::channel(headers.tip());
        let (news, _) = watch::channel(0);
        let (lacks, _) = watch::channel(0);
        Ok(Self {
            headers: Arc::new(Mutex::new(headers)),
            tip,
            news,
            lacks,
            is_behind: Arc::default(),
        })
    }

    /// Judges a header at `now`, and keeps it if it obeys the rules.
    ///
    /// # Errors
    ///
    /// The rule that it breaks.
    pub fn submit(&self, header: &[u8; 80], now: Time) -> Result<Accepted, HeaderRefusal> {
        let accepted = self.judge(header, now);
        self.tell_news(accepted.iter().filter(|it| !it.known).count());
        accepted
    }

    fn judge(&self, header: &[u8; 80], now: Time) -> Result<Accepted, HeaderRefusal> {
        let accepted = self.lock().accept_bytes(header, unix_seconds(now));
        self.tell_tip();
        accepted
    }

    /// Judges headers of a stranger at `now`, one after the other until one is refused.
    pub fn submit_all(&self, headers: &[Header], now: Time) -> Batch {
        self.submit_by(headers, now, Headers::accept)
    }

    /// Judges headers that a node of the operator has told, whose chain is followed, until one is refused.
    pub fn submit_own(&self, headers: &[Header], now: Time) -> Batch {
        self.submit_by(headers, now, Headers::accept_own)
    }

    /// Judges headers in whatever order they come, each after its parent. How many of them are known then.
    pub fn submit_linked(&self, headers: &[[u8; 80]], now: Time) -> usize {
        let mut children: BTreeMap<BlockHash, Vec<&[u8; 80]>> = BTreeMap::new();
        for header in headers {
            let [_, _, _, _, parent @ .., _, _, _, _] =
                header.first_chunk::<40>().expect("80 bytes");
            let parent = BlockHash::from_byte_array(*parent);
            children.entry(parent).or_default().push(header);
        }
        let known = children.keys().filter(|hash| self.place(**hash).is_some());
        let mut ready: Vec<BlockHash> = known.copied().collect();
        let mut linked = 0;
        while let Some(parent) = ready.pop() {
            for header in children.remove(&parent).unwrap_or_default() {
                if let Ok(accepted) = self.submit(header, now) {
                    linked += 1;
                    ready.push(accepted.hash);
                }
            }
        }
        linked
    }

    /// A node of the operator holds this block as its best, if it is known here.
    pub fn vouch(&self, hash: BlockHash) {
        let reorg = self.lock().vouch(hash);
        self.tell_tip();
        if let Ok(Some(reorg)) = reorg {
            self.tell_news(reorg.connected.len());
        }
    }

    /// Whether a block at this height is recent: to the chain, or to the own node.
    pub fn in_window(&self, height: u32) -> bool {
        self.lock().in_window(height)
    }

    fn submit_by(
        &self,
        headers: &[Header],
        now: Time,
        accept: fn(&mut Headers, &Header, u32) -> Result<Accepted, HeaderRefusal>,
    ) -> Batch {
        let now = unix_seconds(now);
        let mut batch = Batch::default();
        {
            let mut chain = self.lock();
            for header in headers {
                match accept(&mut chain, header, now) {
                    Ok(accepted) => {
                        batch.accepted += 1;
                        batch.fresh += usize::from(!accepted.known);
                    }
                    Err(refusal) => {
                        batch.refusal = Some(refusal);
                        break;
                    }
                }
            }
        }
        self.tell_tip();
        self.tell_news(batch.fresh);
        batch
    }

    fn tell_news(&self, fresh: usize) {
        if fresh > 0 {
            self.is_behind.store(false, Ordering::Relaxed);
            self.news.send_modify(|count| *count += fresh as u64);
        }
    }

    /// The tip, and whenever it becomes another one.
    pub fn watch_tip(&self) -> watch::Receiver<Tip> {
        self.tip.subscribe()
    }

    /// Changes whenever headers came that the engine has not judged itself.
    pub fn watch_news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Changes whenever the engine has met a header whose parent is not known: headers should be asked for.
    pub fn watch_lacks(&self) -> watch::Receiver<u64> {
        self.lacks.subscribe()
    }

    /// As [`ChainView::is_behind`].
    fn is_behind(&self) -> bool {
        self.is_behind.load(Ordering::Relaxed)
    }

    /// Where the chain begins.
    pub fn start(&self) -> Tip {
        self.lock().start()
    }

    /// The hash at a height of the active chain.
    pub fn hash_at(&self, height: u32) -> Option<BlockHash> {
        self.lock().hash_at(height)
    }

    /// Height of a block, and whether it is on the active chain.
    pub fn place(&self, hash: BlockHash) -> Option<(u32, bool)> {
        self.lock().place_of(hash)
    }

    /// The parent of a block that is known; of the start none is.
    pub fn parent(&self, hash: BlockHash) -> Option<BlockHash> {
        let found = self.lock().by_hash(hash)?;
        Some(found.header.prev_blockhash)
    }

    /// What `getheaders` of the Bitcoin P2P protocol asks with.
    pub fn locator(&self) -> Vec<BlockHash> {
        self.lock().locator()
    }

    /// A locator that begins at a height of the active chain: further and further apart, down to the start.
    pub fn locator_at(&self, height: u32) -> Vec<BlockHash> {
        let headers = self.lock();
        let start = headers.start_height();
        let mut heights = vec![height.clamp(start, headers.tip().height)];
        let mut step = 1;
        while let Some(last) = heights.last().filter(|last| **last > start) {
            heights.push(last.saturating_sub(step).max(start));
            step *= 2;
        }
        let hashes = heights.into_iter().map(|height| headers.hash_at(height));
        hashes.flatten().collect()
    }

    /// Headers of the active chain from `height` on, at most `count`, below the start none.
    pub fn from_height(&self, height: u32, count: usize) -> Vec<Header> {
        let headers = self.lock();
        let heights = height.max(headers.start_height())..=headers.tip().height;
        heights
            .take(count)
            .map_while(|height| headers.by_height(height))
            .collect()
    }

    /// What answers `getheaders`: headers of the active chain after the first block of `locator` that is on
    /// it, at most `count`, none after `stop` and none above height `newest`.
    pub fn after_locator(
        &self,
        locator: &[BlockHash],
        stop: Option<BlockHash>,
        newest: u32,
        count: usize,
    ) -> Vec<Header> {
        let headers = self.lock();
        let shared = locator.iter().find_map(|hash| {
            let (height, active) = headers.place_of(*hash)?;
            active.then_some(height)
        });
        let first = shared.unwrap_or(headers.start_height()) + 1;
        let mut found = Vec::new();
        for height in (first..=headers.tip().height.min(newest)).take(count) {
            let Some(header) = headers.by_height(height) else {
                break;
            };
            found.push(header);
            if headers.hash_at(height) == stop && stop.is_some() {
                break;
            }
        }
        found
    }

    fn tell_tip(&self) {
        let tip = self.lock().tip();
        self.tip.send_if_modified(|told| {
            let changed = *told != tip;
            *told = tip;
            changed
        });
    }

    /// The chain as a whole.
    pub fn chain(&self) -> ChainView {
        let headers = self.lock();
        let tip = headers.tip();
        let bits = headers.by_height(tip.height).map(|header| header.bits);
        let bits = bits.or_else(|| headers.next_bits(tip.time).ok());
        ChainView {
            is_behind: self.is_behind(),
            height: tip.height,
            hash: tip.hash.to_byte_array(),
            time: tip.time,
            median_time: headers.median_time(),
            work: tip.chain_work,
            bits: bits.unwrap_or_default(),
            start_height: headers.start_height(),
        }
    }

    /// One header, if it is known.
    pub fn header(&self, hash: &Hash) -> Option<HeaderView> {
        let headers = self.lock();
        let found = headers.by_hash(BlockHash::from_byte_array(*hash))?;
        let tip = headers.tip();
        let next = found
            .active
            .then(|| headers.hash_at(found.height + 1))
            .flatten();
        let confirmations = match found.active {
            true => i64::from(tip.height - found.height) + 1,
            false => -1,
        };
        Some(HeaderView {
            header: found.header,
            height: found.height,
            confirmations,
            median_time: median_time(&headers, found.header),
            work: found
                .active
                .then(|| work_at(&headers, found.height))
                .flatten(),
            next: next.map(|next| next.to_byte_array()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Headers> {
        // The chain is consistent after every call, whatever panicked elsewhere.
        self.headers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn unix_seconds(time: Time) -> u32 {
    u32::try_from(time.as_unix_seconds()).unwrap_or(u32::MAX)
}

impl HeaderJudge for HeaderBook {
    fn accept(
        &mut self,
        header: &[u8; 80],
        now: Time,
    ) -> Result<HeaderVerdict, relay::HeaderRefusal> {
        let accepted = self.judge(header, now).inspect_err(|refusal| {
            if *refusal == HeaderRefusal::UnknownParent {
                self.is_behind.store(true, Ordering::Relaxed);
                self.lacks.send_modify(|count| *count += 1);
            }
        });
        let accepted = accepted.map_err(judge)?;
        if !accepted.known {
            self.is_behind.store(false, Ordering::Relaxed);
        }
        // One guard for both: two in one expression would wait for each other.
        let headers = self.lock();
        Ok(HeaderVerdict {
            height: accepted.height,
            in_window: headers.in_window(accepted.height),
            segwit_active: accepted.height >= headers.network().segwit_height(),
        })
    }

    fn tip(&self) -> Hash {
        self.lock().tip().hash.to_byte_array()
    }
}

/// What a refusal means for whoever sent the header.
fn judge(refusal: HeaderRefusal) -> relay::HeaderRefusal {
    match refusal {
        HeaderRefusal::UnknownParent => relay::HeaderRefusal::UnknownParent,
        HeaderRefusal::TooFarInFuture => relay::HeaderRefusal::TooEarly,
        fault if fault.is_fault() => relay::HeaderRefusal::Invalid(fault.reason()),
        _ => relay::HeaderRefusal::TooOld,
    }
}

/// The median time of a header and the ten before it, as far as they are known.
fn median_time(headers: &Headers, header: Header) -> u32 {
    let parents = std::iter::successors(Some(header), |header| {
        headers
            .by_hash(header.prev_blockhash)
            .map(|found| found.header)
    });
    let mut times: Vec<u32> = parents
        .take(MEDIAN_SPAN)
        .map(|header| header.time)
        .collect();
    times.sort_unstable();
    times.get(times.len() / 2).copied().unwrap_or(header.time)
}

/// The work up to a height of the active chain: that of the tip, less that of the blocks above.
fn work_at(headers: &Headers, height: u32) -> Option<Work> {
    let tip = headers.tip();
    if tip.height - height > MAX_WORK_DEPTH {
        return None;
    }
    (height + 1..=tip.height).try_fold(tip.chain_work, |work, above| {
        Some(work - headers.by_height(above)?.work())
    })
}

#[cfg(test)]
pub(in crate::node) mod tests {
    use super::*;

    /// A header of regtest on top of `parent` that shows its little work.
    pub fn mine(parent: BlockHash, time: u32) -> Header {
        let mut header = Network::Regtest.genesis();
        header.prev_blockhash = parent;
        header.time = time;
        header.version = bitcoin::block::Version::from_consensus(0x2000_0000);
        while header.validate_pow(header.target()).is_err() {
            header.nonce += 1;
        }
        header
    }

    pub fn bytes(header: &Header) -> [u8; 80] {
        bitcoin::consensus::serialize(header).try_into().unwrap()
    }

    #[test]
    fn headers_are_judged_and_found_again() {
        let mut book = HeaderBook::new(Network::Regtest, None).unwrap();
        let genesis = Network::Regtest.genesis();
        let now = Time::from_unix_seconds(u64::from(genesis.time) + 100_000);
        let mut parent = genesis;
        for height in 1..=15 {
            let header = mine(parent.block_hash(), parent.time + 600);
            let verdict = HeaderJudge::accept(&mut book, &bytes(&header), now).unwrap();
            assert_eq!(verdict.height, height);
            assert!(verdict.in_window);
            parent = header;
        }
        assert_eq!(book.tip(), parent.block_hash().to_byte_array());
        let chain = book.chain();
        assert_eq!((chain.height, chain.start_height), (15, 0));
        assert_eq!(chain.bits, genesis.bits);
        let view = book.header(&parent.prev_blockhash.to_byte_array()).unwrap();
        assert_eq!((view.height, view.confirmations), (14, 2));
        assert_eq!(view.next, Some(chain.hash));
        assert_eq!(view.work.unwrap() + parent.work(), chain.work);
        assert_eq!(
            book.header(&chain.hash).unwrap().median_time,
            chain.median_time
        );
        assert_eq!(book.header(&[9; 32]).map(|view| view.height), None);
    }

    #[test]
    fn headers_in_any_order_are_linked_by_their_parents() {
        let book = HeaderBook::new(Network::Regtest, None).unwrap();
        let mut parent = Network::Regtest.genesis();
        let now = Time::from_unix_seconds(u64::from(parent.time) + 100_000);
        let mut headers = Vec::new();
        for _ in 0..9 {
            parent = mine(parent.block_hash(), parent.time + 600);
            headers.push(bytes(&parent));
        }
        let lost = bytes(&mine(BlockHash::from_byte_array([3; 32]), parent.time));
        headers.reverse();
        headers.insert(4, lost);
        assert_eq!(book.submit_linked(&headers, now), 9);
        assert_eq!(book.chain().height, 9);
    }

    #[test]
    fn a_locator_reaches_from_its_height_to_the_start() {
        let book = HeaderBook::new(Network::Regtest, None).unwrap();
        let mut parent = Network::Regtest.genesis();
        let now = Time::from_unix_seconds(u64::from(parent.time) + 100_000);
        for _ in 0..40 {
            let header = mine(parent.block_hash(), parent.time + 600);
            book.submit(&bytes(&header), now).unwrap();
            parent = header;
        }
        let heights = |from: u32| -> Vec<u32> {
            let place = |hash: &BlockHash| book.place(*hash).unwrap().0;
            book.locator_at(from).iter().map(place).collect()
        };
        assert_eq!(heights(0), [0]);
        assert_eq!(heights(1), [1, 0]);
        assert_eq!(heights(39), [39, 38, 36, 32, 24, 8, 0]);
        assert_eq!(heights(99)[0], 40);
    }

    #[test]
    fn only_headers_from_elsewhere_are_news_to_the_engine() {
        let mut book = HeaderBook::new(Network::Regtest, None).unwrap();
        let news = book.watch_news();
        let genesis = Network::Regtest.genesis();
        let now = Time::from_unix_seconds(u64::from(genesis.time) + 100_000);
        let own = mine(genesis.block_hash(), genesis.time + 600);
        HeaderJudge::accept(&mut book, &bytes(&own), now).unwrap();
        assert!(!news.has_changed().unwrap());
        // Known by now.
        assert_eq!(book.submit_all(&[own], now).fresh, 0);
        assert!(!news.has_changed().unwrap());
        let other = mine(own.block_hash(), own.time + 600);
        assert_eq!(book.submit_all(&[own, other], now).fresh, 1);
        assert!(news.has_changed().unwrap());
        // What the engine lacks is another matter.
        let lacks = book.watch_lacks();
        let orphan = mine(BlockHash::from_byte_array([3; 32]), genesis.time + 1);
        book.submit_all(&[orphan], now);
        assert!(!lacks.has_changed().unwrap());
        assert!(!book.is_behind());
        HeaderJudge::accept(&mut book, &bytes(&orphan), now).unwrap_err();
        assert!(lacks.has_changed().unwrap() && book.is_behind());
        let next = mine(other.block_hash(), other.time + 600);
        assert_eq!(book.submit_all(&[other], now).fresh, 0);
        assert!(book.is_behind());
        assert_eq!(book.submit_all(&[next], now).fresh, 1);
        assert!(!book.is_behind());
    }

    #[test]
    fn refusals_tell_fault_from_lack() {
        let mut book = HeaderBook::new(Network::Regtest, None).unwrap();
        let genesis = Network::Regtest.genesis();
        let now = Time::from_unix_seconds(u64::from(genesis.time));
        let orphan = mine(BlockHash::from_byte_array([3; 32]), genesis.time + 1);
        assert_eq!(
            HeaderJudge::accept(&mut book, &bytes(&orphan), now),
            Err(relay::HeaderRefusal::UnknownParent)
        );
        let early = mine(genesis.block_hash(), genesis.time + 100_000);
        assert_eq!(
            HeaderJudge::accept(&mut book, &bytes(&early), now),
            Err(relay::HeaderRefusal::TooEarly)
        );
        let old = mine(genesis.block_hash(), genesis.time - 1);
        assert_eq!(
            HeaderJudge::accept(&mut book, &bytes(&old), now),
            Err(relay::HeaderRefusal::Invalid("time-too-old"))
        );
    }

    #[test]
    fn a_trusted_start_is_the_tip_until_its_child_comes() {
        let start: config::TrustedStart =
            format!("100,{},207fffff", "ab".repeat(32)).parse().unwrap();
        let book = HeaderBook::new(Network::Regtest, Some(start)).unwrap();
        let chain = book.chain();
        assert_eq!((chain.height, chain.start_height), (100, 100));
        assert_eq!(chain.bits.to_consensus(), 0x207f_ffff);
        let child = mine(BlockHash::from_byte_array(start.hash), 1_700_000_000);
        let now = Time::from_unix_seconds(1_700_000_000);
        assert_eq!(book.submit(&bytes(&child), now).unwrap().height, 101);
    }
}
