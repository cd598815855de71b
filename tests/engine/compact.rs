//! Compact blocks from the Bitcoin node beside the engine; the `bitcoin` crate makes them.

use bitcoin::bip152::HeaderAndShortIds;
use bitcoin::consensus::{deserialize, serialize};
use blocktorrent::merkle::hash;
use blocktorrent::relay::{
    CompactAnswer, CompactBlock, Engine, Event, HeaderJudge, HeaderRefusal, HeaderVerdict,
    SubmitRefusal,
};
use blocktorrent::sim::NodeOptions;
use blocktorrent::time::Time;
use bytes::Bytes;

struct Anything;

impl HeaderJudge for Anything {
    fn accept(&mut self, _: &[u8; 80], _: Time) -> Result<HeaderVerdict, HeaderRefusal> {
        Ok(HeaderVerdict {
            height: 702_861,
            in_window: true,
            segwit_active: true,
        })
    }

    fn tip(&self) -> [u8; 32] {
        [0; 32]
    }
}

const NOW: Time = Time::from_unix_seconds(1_700_000_000);

fn engine() -> Engine {
    Engine::new(
        NodeOptions::default().config,
        Box::new(Anything),
        [1; 32],
        NOW,
    )
}

fn block() -> bitcoin::Block {
    deserialize(bitcoin_test_data::blocks::mainnet_702861()).expect("a real block")
}

/// What `cmpctblock` would carry, the coinbase and the transactions at `prefill` whole.
fn compact(block: &bitcoin::Block, nonce: u64, prefill: &[usize]) -> CompactBlock {
    let theirs = HeaderAndShortIds::from_block(block, nonce, 2, prefill).expect("version 2");
    let mut place = 0;
    let prefilled = theirs.prefilled_txs.iter().map(|it| {
        place += u32::from(it.idx);
        let named = (place, Bytes::from(serialize(&it.tx)));
        place += 1;
        named
    });
    CompactBlock {
        header: serialize(&theirs.header).try_into().expect("80 bytes"),
        nonce,
        prefilled: prefilled.collect(),
        short_ids: theirs
            .short_ids
            .iter()
            .map(|id| {
                let mut word = [0; 8];
                word[..6].copy_from_slice(id.as_ref());
                u64::from_le_bytes(word)
            })
            .collect(),
    }
}

fn fill(engine: &mut Engine, block: &bitcoin::Block, without: &[usize]) {
    for (place, transaction) in block.txdata.iter().enumerate().skip(1) {
        if !without.contains(&place) {
            let bytes = Bytes::from(serialize(transaction));
            engine
                .add_transaction(NOW, bytes)
                .expect("a real transaction");
        }
    }
}

/// The block that the engine gives out.
fn completed(engine: &mut Engine) -> Option<Bytes> {
    std::iter::from_fn(|| engine.poll_event()).find_map(|event| match event {
        Event::BlockComplete { whole, local, .. } => {
            assert!(local);
            Some(whole.bytes.clone())
        }
        _ => None,
    })
}

#[test]
fn a_compact_block_is_whole_at_once_or_with_what_it_lacks() {
    let block = block();
    let whole = bitcoin_test_data::blocks::mainnet_702861();
    for without in [&[][..], &[7, 8, 2_499], &[1]] {
        let mut engine = engine();
        fill(&mut engine, &block, without);
        let mut answer = engine.offer_compact(NOW, compact(&block, 99, &[])).unwrap();
        if !without.is_empty() {
            let CompactAnswer::Lacking(hash, places) = answer else {
                panic!("{answer:?}")
            };
            assert!(
                places
                    .iter()
                    .map(|it| *it as usize)
                    .eq(without.iter().copied())
            );
            let lacking = without
                .iter()
                .map(|it| serialize(&block.txdata[*it]).into());
            answer = engine
                .complete_compact(NOW, &hash, lacking.collect())
                .unwrap();
        }
        assert!(matches!(answer, CompactAnswer::Whole(_)), "{answer:?}");
        assert_eq!(completed(&mut engine).as_deref(), Some(whole));
        let again = engine.offer_compact(NOW, compact(&block, 3, &[])).unwrap();
        assert_eq!(again, CompactAnswer::Known);
    }
}

#[test]
fn a_compact_block_does_not_undo_that_the_block_is_invalid() {
    let block = block();
    let hash = hash::sha256d(&serialize(&block.header));
    // Before it is whole, while it waits for what it lacked, and after.
    for without in [&[][..], &[7]] {
        let mut engine = engine();
        fill(&mut engine, &block, without);
        if !without.is_empty() {
            let answer = engine.offer_compact(NOW, compact(&block, 1, &[])).unwrap();
            assert!(matches!(answer, CompactAnswer::Lacking(..)), "{answer:?}");
        }
        engine.reject_block(NOW, hash, "the node calls it invalid");
        let again = engine.offer_compact(NOW, compact(&block, 2, &[])).unwrap();
        assert_eq!(again, CompactAnswer::Known);
        let lacking = without
            .iter()
            .map(|it| serialize(&block.txdata[*it]).into());
        let completed_now = engine.complete_compact(NOW, &hash, lacking.collect());
        assert_eq!(completed_now, Ok(CompactAnswer::Known));
        assert_eq!(completed(&mut engine), None);
        assert!(engine.jobs().is_empty());
    }
}

#[test]
fn what_is_prefilled_need_not_be_held() {
    let block = block();
    let without = [5, 6, 1_000];
    let mut engine = engine();
    fill(&mut engine, &block, &without);
    let answer = engine
        .offer_compact(NOW, compact(&block, 1, &without))
        .unwrap();
    assert!(matches!(answer, CompactAnswer::Whole(_)), "{answer:?}");
}

#[test]
fn what_does_not_fit_is_fetched_whole_or_refused() {
    let block = block();
    let mut engine = engine();
    fill(&mut engine, &block, &[3]);
    // Another transaction than the one that was lacking, none, and one for a block that was never offered.
    for lacking in [
        vec![Bytes::from(serialize(&block.txdata[4]))],
        vec![],
        vec![Bytes::new()],
    ] {
        let answer = engine.offer_compact(NOW, compact(&block, 9, &[])).unwrap();
        let CompactAnswer::Lacking(hash, _) = answer else {
            panic!("{answer:?}")
        };
        let answer = engine.complete_compact(NOW, &hash, lacking);
        assert_eq!(answer.unwrap(), CompactAnswer::Unfit(hash));
        let answer = engine.complete_compact(NOW, &hash, vec![]);
        assert_eq!(answer.unwrap(), CompactAnswer::Unfit(hash));
    }
    assert_eq!(completed(&mut engine), None);
    let mut huge = compact(&block, 9, &[]);
    huge.short_ids.resize(20_000, 0);
    let refused = engine.offer_compact(NOW, huge);
    assert!(
        matches!(refused, Err(SubmitRefusal::Malformed(_))),
        "{refused:?}"
    );
    let mut beyond = compact(&block, 9, &[]);
    beyond.prefilled[0].0 = 1 << 20;
    let refused = engine.offer_compact(NOW, beyond);
    assert!(
        matches!(refused, Err(SubmitRefusal::Malformed(_))),
        "{refused:?}"
    );
    // Two places that state one short id can't be told apart.
    let mut twins = compact(&block, 9, &[]);
    twins.short_ids[10] = twins.short_ids[11];
    let answer = engine.offer_compact(NOW, twins).unwrap();
    let CompactAnswer::Lacking(_, places) = answer else {
        panic!("{answer:?}")
    };
    assert_eq!(places, [3, 11, 12]);
}
