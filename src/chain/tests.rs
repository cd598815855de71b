//! Chains as a whole: the real one from its genesis, and chains mined here.

use std::path::PathBuf;

use bitcoin::block::{Header, Version};
use bitcoin::consensus::deserialize;
use bitcoin::hashes::Hash;
use bitcoin::{BlockHash, TxMerkleNode, Work};

use super::headers::{MAX_FORK_BELOW_OWN, MAX_FORK_DEPTH, MAX_SIDE_HEADERS, RECENT};
use super::*;

/// Far later than every header here.
const NOW: u32 = 2_000_000_000;

/// A header of regtest on this parent; `salt` tells siblings apart.
fn mine(parent: BlockHash, time: u32, salt: u32) -> Header {
    let mut root = [0; 32];
    root[..4].copy_from_slice(&salt.to_le_bytes());
    let mut header = Header {
        version: Version::from_consensus(0x2000_0000),
        prev_blockhash: parent,
        merkle_root: TxMerkleNode::from_byte_array(root),
        time,
        bits: Network::Regtest.pow_limit_bits(),
        nonce: 0,
    };
    while !header.target().is_met_by(header.block_hash()) {
        header.nonce += 1;
    }
    header
}

/// Headers in a row on this parent, the first `seconds` after `time`.
fn mine_row(mut parent: BlockHash, mut time: u32, count: u32, salt: u32) -> Vec<Header> {
    let mut row = Vec::new();
    for _ in 0..count {
        time += 600;
        let header = mine(parent, time, salt);
        parent = header.block_hash();
        row.push(header);
    }
    row
}

/// A regtest chain of the genesis block and `count` more.
fn regtest(count: u32) -> (Headers, Vec<Header>) {
    let mut headers = Headers::genesis(Network::Regtest);
    let tip = headers.tip();
    let row = mine_row(tip.hash, tip.time, count, 0);
    for header in &row {
        let accepted = headers.accept(header, NOW).expect("well mined");
        assert!(accepted.is_tip && !accepted.known && accepted.reorg.is_none());
    }
    (headers, row)
}

/// Whether every question about the chain is answered alike.
fn assert_consistent(headers: &Headers) {
    let tip = headers.tip();
    let mut work = headers.by_height(0).expect("genesis").work();
    for height in 0..=tip.height {
        let hash = headers.hash_at(height).expect("up to the tip");
        let header = headers.by_height(height).expect("up to the tip");
        assert_eq!(header.block_hash(), hash);
        let found = headers.by_hash(hash).expect("known");
        assert!(found.active && found.height == height && found.header == header);
        if height > 0 {
            assert_eq!(headers.hash_at(height - 1), Some(header.prev_blockhash));
            work = work + header.work();
        }
    }
    assert_eq!(tip.chain_work, work);
    assert_eq!(headers.hash_at(tip.height), Some(tip.hash));
    assert_eq!(headers.hash_at(tip.height + 1), None);
    assert_eq!(headers.by_height(tip.height + 1), None);
    let time = headers.by_height(tip.height).map(|header| header.time);
    assert_eq!(time, Some(tip.time));
}

#[test]
fn a_chain_grows_and_is_found() {
    let (headers, row) = regtest(300);
    assert_consistent(&headers);
    assert_eq!(headers.tip().height, 300);
    assert_eq!(headers.side_headers(), 0);
    assert_eq!(headers.median_time(), row[300 - 6].time);
    let locator = headers.locator();
    assert_eq!(locator.first(), Some(&headers.tip().hash));
    assert_eq!(locator.get(9), headers.hash_at(291).as_ref());
    assert_eq!(locator.last(), headers.hash_at(0).as_ref());
    assert!(locator.len() < 20);
}

#[test]
fn what_breaks_a_rule_is_refused() {
    let (mut headers, row) = regtest(20);
    let tip = headers.tip();
    let refusal = |headers: &mut Headers, header: &Header| headers.accept(header, NOW).err();
    let orphan = mine(BlockHash::all_zeros(), tip.time + 600, 0);
    assert_eq!(
        refusal(&mut headers, &orphan),
        Some(HeaderRefusal::UnknownParent)
    );
    let mut wrong = mine(tip.hash, tip.time + 600, 0);
    wrong.bits = bitcoin::CompactTarget::from_consensus(0x207f_fffe);
    let want = Network::Regtest.pow_limit_bits();
    assert_eq!(
        refusal(&mut headers, &wrong),
        Some(HeaderRefusal::WrongBits { want })
    );
    let mut weak = mine(tip.hash, tip.time + 600, 0);
    while weak.target().is_met_by(weak.block_hash()) {
        weak.nonce += 1;
    }
    assert_eq!(refusal(&mut headers, &weak), Some(HeaderRefusal::BadWork));
    let median = row[20 - 6].time;
    let old = mine(tip.hash, median, 0);
    assert_eq!(
        refusal(&mut headers, &old),
        Some(HeaderRefusal::TimeTooOld { median })
    );
    let early = mine(tip.hash, NOW + 7201, 0);
    assert_eq!(
        refusal(&mut headers, &early),
        Some(HeaderRefusal::TooFarInFuture)
    );
    assert_eq!(headers.tip(), tip);
    assert_eq!(headers.side_headers(), 0);
    let just = mine(tip.hash, NOW + 7200, 0);
    assert!(headers.accept(&just, NOW).expect("two hours").is_tip);
}

#[test]
fn a_header_again_changes_nothing() {
    let (mut headers, row) = regtest(10);
    let side = mine(row[7].block_hash(), row[7].time + 1, 1);
    let first = headers.accept(&side, NOW).expect("well mined");
    assert!(!first.is_tip && !first.known && first.height == 9);
    for (header, height) in [(&row[0], 1), (&row[9], 10), (&side, 9)] {
        let again = headers.accept(header, NOW).expect("known");
        assert!(again.known && again.reorg.is_none() && again.height == height);
        assert_eq!(again.is_tip, height == 10);
    }
    assert!(
        headers
            .accept(&Network::Regtest.genesis(), NOW)
            .expect("known")
            .known
    );
    assert_eq!(headers.side_headers(), 1);
}

#[test]
fn more_work_wins_and_equal_work_waits() {
    let (mut headers, row) = regtest(30);
    let fork = &row[19];
    let branch = mine_row(fork.block_hash(), fork.time, 12, 1);
    for header in &branch[..10] {
        let accepted = headers.accept(header, NOW).expect("well mined");
        assert!(!accepted.is_tip && accepted.reorg.is_none());
    }
    assert_consistent(&headers);
    let accepted = headers.accept(&branch[10], NOW).expect("well mined");
    let hashes = |row: &[Header]| row.iter().map(Header::block_hash).collect::<Vec<_>>();
    let mut left = hashes(&row[20..]);
    left.reverse();
    let reorg = accepted.reorg.expect("more work");
    assert!(accepted.is_tip);
    assert_eq!(reorg.fork_height, 20);
    assert_eq!(reorg.disconnected, left);
    assert_eq!(reorg.connected, hashes(&branch[..11]));
    assert_consistent(&headers);
    assert_eq!(headers.side_headers(), 10);
    let found = headers.by_hash(row[25].block_hash()).expect("kept");
    assert!(!found.active && found.height == 26 && found.header == row[25]);
    // And back again, by a branch off the branch that has just left.
    let back = mine_row(row[28].block_hash(), row[28].time, 3, 2);
    let accepted: Vec<Accepted> = back
        .iter()
        .map(|header| headers.accept(header, NOW).expect("well mined"))
        .collect();
    assert!(accepted[0].reorg.is_none() && accepted[1].reorg.is_none());
    let reorg = accepted[2].reorg.as_ref().expect("more work");
    assert_eq!((reorg.fork_height, reorg.connected.len()), (20, 12));
    assert_consistent(&headers);
    let next = headers
        .accept(&branch[11], NOW)
        .expect("its parent is kept");
    assert!(!next.is_tip && next.reorg.is_none());
}

#[test]
fn the_window_is_of_the_last_six() {
    let (headers, _) = regtest(20);
    assert_eq!(RECENT, 6);
    for (height, inside) in [(0, false), (14, false), (15, true), (20, true), (21, true)] {
        assert_eq!(headers.in_window(height), inside);
    }
    assert!(Headers::genesis(Network::Main).in_window(0));
}

#[test]
fn branches_are_bounded_in_depth_and_number() {
    let (headers, row) = regtest(MAX_FORK_DEPTH + 50);
    let mut headers = headers.believed_from(Network::Regtest.genesis().work());
    let deep = mine(row[48].block_hash(), row[48].time + 1, 1);
    assert_eq!(headers.accept(&deep, NOW), Err(HeaderRefusal::TooDeep));
    let least = mine(row[49].block_hash(), row[49].time + 1, 1);
    headers.accept(&least, NOW).expect("just within");
    let parent = &row[row.len() - 2];
    for salt in 1..MAX_SIDE_HEADERS as u32 + 20 {
        let side = mine(parent.block_hash(), parent.time + 1, salt);
        headers.accept(&side, NOW).expect("well mined");
        assert!(headers.by_hash(side.block_hash()).is_some());
        assert!(headers.side_headers() <= MAX_SIDE_HEADERS);
    }
    // The one with the least work has gone, and a branch can still take over.
    assert!(headers.by_hash(least.block_hash()).is_none());
    let branch = mine_row(parent.block_hash(), parent.time, 2, u32::MAX);
    headers.accept(&branch[0], NOW).expect("well mined");
    assert!(
        headers
            .accept(&branch[1], NOW)
            .expect("well mined")
            .reorg
            .is_some()
    );
    assert!(headers.side_headers() <= MAX_SIDE_HEADERS);
}

#[test]
fn a_row_made_up_first_locks_nobody_out() {
    // More than a branch may be deep, and yet the chain of more work takes over.
    let (mut headers, _) = regtest(MAX_FORK_DEPTH + 10);
    let genesis = Network::Regtest.genesis();
    let real = mine_row(genesis.block_hash(), genesis.time, MAX_FORK_DEPTH + 12, 7);
    for header in &real {
        headers.accept(header, NOW).expect("well mined");
    }
    assert_eq!(headers.tip().hash, real.last().expect("some").block_hash());
    assert_consistent(&headers);
    // What was left so deep is not kept, and can't hold anything.
    assert_eq!(headers.side_headers(), 0);
    for height in [0, 1, 1023, 1024] {
        let header = headers.by_height(height.min(headers.tip().height));
        assert!(header.is_some());
    }
}

#[test]
fn the_own_nodes_chain_is_followed_against_more_work() {
    let (mut headers, _) = regtest(1200);
    let headers = &mut headers;
    let genesis = Network::Regtest.genesis();
    let own = mine_row(genesis.block_hash(), genesis.time, 400, 7);
    let below = MAX_FORK_BELOW_OWN as usize;
    let (first, rest) = own.split_at(RECENT as usize + 1);
    for (header, is_tip) in first.iter().zip([[false; 6].as_slice(), &[true]].concat()) {
        // A few blocks may be of a node that was cut off; more are the own node's first word.
        assert_eq!(
            headers.accept_own(header, NOW).expect("well mined").is_tip,
            is_tip
        );
        assert!(headers.in_window(headers.by_hash(header.block_hash()).expect("kept").height));
    }
    for header in rest {
        assert!(headers.accept_own(header, NOW).expect("well mined").is_tip);
    }
    assert_consistent(headers);
    // A stranger's longer row does not lead away from it, neither from the start nor from just too deep.
    for (fork, is_followed) in [(0, false), (400 - below - 1, false), (400 - below, true)] {
        let parent = headers.by_height(fork as u32).expect("there");
        let row = mine_row(parent.block_hash(), parent.time, 800, 8);
        let refused = row
            .iter()
            .find_map(|header| headers.accept(header, NOW).err());
        let refusal = (!is_followed).then_some(HeaderRefusal::TooDeep);
        assert_eq!(refused, refusal, "from {fork}");
        assert_eq!(headers.tip().height > 400, is_followed, "from {fork}");
        assert_consistent(headers);
    }
    // What is recent to the own node stays recent, and its next block leads back.
    assert_eq!(headers.tip().height, 400 - MAX_FORK_BELOW_OWN + 800);
    assert!(headers.in_window(401) && headers.in_window(395));
    assert!(!headers.in_window(394) && !headers.in_window(407));
    let last = own.last().expect("some");
    let next = mine(last.block_hash(), last.time + 600, 9);
    assert!(headers.accept_own(&next, NOW).expect("well mined").is_tip);
    assert_consistent(headers);
}

#[test]
fn a_row_that_is_too_long_to_keep_loses_its_least_work() {
    let (headers, row) = regtest(40);
    let mut headers = headers.believed_from(Network::Regtest.genesis().work());
    let own = mine_row(row[19].block_hash(), row[19].time, 3, 3);
    for header in &own {
        headers.accept_own(header, NOW).expect("well mined");
    }
    for salt in 1..=MAX_SIDE_HEADERS as u32 + 1 {
        let side = mine(row[30].block_hash(), row[30].time + 1, salt);
        headers.accept(&side, NOW).expect("well mined");
    }
    assert!(headers.side_headers() <= MAX_SIDE_HEADERS);
    // Less work than any of them, but of the own node.
    for header in &own {
        assert!(headers.by_hash(header.block_hash()).is_some());
    }
}

#[test]
fn the_least_work_is_that_of_core() {
    let least = Network::Main.minimum_work().expect("stated");
    assert!(least.log2() > 96.0 && least.log2() < 96.2);
    assert_eq!(Network::Regtest.minimum_work(), None);
}

/// A trusted start at a block of a chain, as an operator would describe it.
fn start_at(headers: &Headers, height: u32) -> TrustedStart {
    let header = headers.by_height(height).expect("there");
    let child = headers.by_height(height + 1).expect("there");
    let period = (height + 1) / 2016 * 2016;
    let time = |height| headers.by_height(height).map(|header| header.time);
    TrustedStart {
        height,
        hash: header.block_hash(),
        time: header.time,
        child_bits: child.bits,
        period_start_time: time(period).filter(|_| period <= height),
        earlier_times: (1..=10)
            .filter_map(|back| time(height.checked_sub(back)?))
            .collect(),
        chain_work: Work::from_be_bytes([0; 32]),
    }
}

#[test]
fn a_trusted_start_goes_on_like_the_whole_chain() {
    let (whole, row) = regtest(60);
    let mut headers =
        Headers::from_trusted(Network::Regtest, start_at(&whole, 30)).expect("sensible");
    assert_eq!(headers.start_height(), 30);
    assert_eq!(headers.tip().hash, row[29].block_hash());
    for header in &row[30..] {
        assert!(headers.accept(header, NOW).expect("well mined").is_tip);
    }
    assert_eq!(headers.tip().hash, whole.tip().hash);
    assert_eq!(headers.median_time(), whole.median_time());
    assert_eq!(headers.hash_at(30), Some(row[29].block_hash()));
    assert_eq!(headers.hash_at(29), None);
    assert_eq!(headers.by_height(30), None);
    assert_eq!(headers.by_height(31), Some(row[30]));
    assert_eq!(headers.by_hash(row[29].block_hash()), None);
    assert_eq!(headers.locator().last(), Some(&row[29].block_hash()));
    // The start itself is known; what lies before it is not.
    let again = headers.accept(&row[29], NOW).expect("known");
    assert!(again.known && again.height == 30);
    assert_eq!(
        headers.accept(&row[28], NOW),
        Err(HeaderRefusal::UnknownParent)
    );
    // A branch that leaves at the start can take over.
    let branch = mine_row(row[29].block_hash(), row[29].time, 31, 1);
    let last = branch
        .iter()
        .map(|header| headers.accept(header, NOW))
        .last();
    let reorg = last.expect("31 of them").expect("well mined").reorg;
    assert_eq!(reorg.expect("more work").fork_height, 30);
    assert_eq!(headers.tip().height, 61);
}

#[test]
fn the_median_rule_holds_from_a_start_on() {
    let (whole, row) = regtest(60);
    let mut start = start_at(&whole, 30);
    let old = mine(start.hash, row[24].time, 1);
    let mut strict = Headers::from_trusted(Network::Regtest, start.clone()).expect("sensible");
    let median = row[24].time;
    assert_eq!(
        strict.accept(&old, NOW),
        Err(HeaderRefusal::TimeTooOld { median })
    );
    start.earlier_times.clear();
    let mut lax = Headers::from_trusted(Network::Regtest, start).expect("sensible");
    assert!(lax.accept(&old, NOW).is_ok());
}

#[test]
fn a_start_that_makes_no_sense_is_refused() {
    let (whole, _) = regtest(20);
    let start = start_at(&whole, 10);
    let refusal = |network, change: fn(&mut TrustedStart)| {
        let mut start = start.clone();
        change(&mut start);
        Headers::from_trusted(network, start).err()
    };
    assert_eq!(refusal(Network::Regtest, |_| ()), None);
    assert_eq!(refusal(Network::Main, |_| ()), Some(StartError::Bits));
    for bits in [
        0,
        0x2100_ffff,
        0xff7f_ffff,
        0x1d80_0000,
        0x1d00_0001,
        0x0100_0000,
    ] {
        let mut start = start.clone();
        start.child_bits = bitcoin::CompactTarget::from_consensus(bits);
        let refused = Headers::from_trusted(Network::Regtest, start).err();
        assert_eq!(refused, Some(StartError::Bits), "{bits:x}");
    }
    let many = refusal(Network::Regtest, |start| start.earlier_times = vec![1; 11]);
    assert_eq!(many, Some(StartError::EarlierTimes));
    let high = refusal(Network::Regtest, |start| start.height = u32::MAX);
    assert_eq!(high, Some(StartError::Height));
    let work = refusal(Network::Regtest, |start| {
        start.chain_work = Work::from_be_bytes([0xff; 32]);
    });
    assert_eq!(work, Some(StartError::Work));
}

/// A file of the folder `BLOCKTORRENT_BLOCKS`, if that is set.
fn block_file(name: &str) -> Option<Vec<u8>> {
    let Some(folder) = std::env::var_os("BLOCKTORRENT_BLOCKS").map(PathBuf::from) else {
        eprintln!("SKIPPED {name}: BLOCKTORRENT_BLOCKS is not set");
        return None;
    };
    Some(std::fs::read(folder.join(name)).expect("BLOCKTORRENT_BLOCKS has this file"))
}

/// The headers of a block file of bitcoind: magic, length, block, again and again.
fn headers_in(mut file: &[u8]) -> Vec<Header> {
    let mut headers = Vec::new();
    while let Some((front, rest)) = file.split_first_chunk::<8>() {
        assert_eq!(front[..4], Network::Main.magic());
        let length = u32::from_le_bytes(front[4..].try_into().expect("four bytes"));
        let (block, rest) = rest.split_at(length as usize);
        headers.push(deserialize(&block[..80]).expect("a header"));
        file = rest;
    }
    headers
}

#[test]
fn mainnet_from_its_genesis() {
    let Some(file) = block_file("mainnet_chain_from_genesis.blk") else {
        return;
    };
    let row = headers_in(&file);
    assert_eq!(row.len(), 4_522);
    let mut headers = Headers::genesis(Network::Main);
    for header in &row {
        headers.accept(header, NOW).expect("a real header");
    }
    assert_eq!(headers.tip().height, 4_521);
    assert_consistent(&headers);
    assert!(headers.memory() < 2 * (80 + 16) * row.len());
    // From starts in the middle: the ends of periods, their beginnings, and elsewhere.
    for height in [
        0, 1, 2_013, 2_014, 2_015, 2_016, 2_017, 3_000, 4_030, 4_031, 4_032, 4_520,
    ] {
        let start = start_at(&headers, height);
        let mut later = Headers::from_trusted(Network::Main, start).expect("sensible");
        for header in &row[height as usize + 1..] {
            assert!(later.accept(header, NOW).expect("a real header").is_tip);
        }
        assert_eq!(later.tip().hash, headers.tip().hash);
        assert_eq!(later.median_time(), headers.median_time());
        assert_eq!(later.next_bits(NOW), headers.next_bits(NOW));
    }
    // A start that does not tell its period's first time ends before the next period.
    let mut start = start_at(&headers, 3_000);
    start.period_start_time = None;
    let mut later = Headers::from_trusted(Network::Main, start).expect("sensible");
    let refused = row[3_001..]
        .iter()
        .find_map(|header| later.accept(header, NOW).err());
    assert_eq!(refused, Some(HeaderRefusal::NoContext));
    assert_eq!(later.tip().height, 4_031);
}

#[test]
fn real_blocks_follow_a_start_at_their_parent() {
    let mut all = vec![bitcoin_test_data::blocks::mainnet_702861()[..80].to_vec()];
    let mut network = vec![(Network::Main, 702_861)];
    for (name, net, height) in [
        ("413567.raw", Network::Main, 413_567),
        ("574200.raw", Network::Main, 574_200),
        ("testnet3_928848.raw", Network::Testnet3, 928_848),
    ] {
        let Some(block) = block_file(name) else {
            break;
        };
        all.push(block[..80].to_vec());
        network.push((net, height));
    }
    for (bytes, (network, height)) in all.iter().zip(network) {
        let bytes = bytes.first_chunk::<80>().expect("a header");
        let header: Header = deserialize(bytes).expect("a header");
        let start = TrustedStart {
            height: height - 1,
            hash: header.prev_blockhash,
            time: header.time - 600,
            child_bits: header.bits,
            period_start_time: None,
            earlier_times: Vec::new(),
            chain_work: Work::from_be_bytes([0; 32]),
        };
        let mut headers = Headers::from_trusted(network, start).expect("sensible");
        let accepted = headers
            .accept_bytes(bytes, header.time)
            .expect("a real header");
        assert!(accepted.is_tip && accepted.height == height);
    }
}
