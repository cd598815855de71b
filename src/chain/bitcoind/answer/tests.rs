//! Answers of a real bitcoind, and what none would send.

use proptest::prelude::*;

use super::*;

const HASH: &str = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206";

#[test]
fn real_answers_are_read() {
    let info = format!(
        r#"{{"result":{{"chain":"regtest","blocks":2,"headers":3,"bestblockhash":"{HASH}","bits":"207fffff",
        "target":"7f","difficulty":4.6e-10,"time":1,"mediantime":1,"verificationprogress":1,
        "initialblockdownload":true,"chainwork":"02","size_on_disk":293,"pruned":false,"warnings":[]}},"error":null,"id":7}}"#
    );
    let info: BlockchainInfo = parse(info.as_bytes(), 7).unwrap().unwrap();
    assert_eq!((info.blocks, info.headers, info.prune_height), (2, 3, None));
    assert!(info.initial_block_download && info.chain == "regtest");
    let list = format!(
        r#"{{"jsonrpc":"2.0","result":{{"txids":["{HASH}"],"mempool_sequence":5}},"id":1}}"#
    );
    let list: MempoolList = parse(list.as_bytes(), 1).unwrap().unwrap();
    assert_eq!((list.ids.len(), list.sequence), (1, 5));
    let hex: HexBytes = parse(br#"{"result":"00ff","error":null,"id":1}"#, 1)
        .unwrap()
        .unwrap();
    assert_eq!(&hex.0[..], [0, 0xff]);
    let tips = format!(
        r#"{{"result":[{{"height":1,"hash":"{HASH}","branchlen":0,"status":"active"}}],"id":1}}"#
    );
    let tips: List<ChainTip> = parse(tips.as_bytes(), 1).unwrap().unwrap();
    assert_eq!(tips.0[0].status, "active");
}

#[test]
fn errors_have_their_code_and_one_line() {
    let refused = |body: &str| parse::<u32>(body.as_bytes(), 1).unwrap_err();
    assert_eq!(
        refused(
            r#"{"result":null,"error":{"code":-28,"message":"Loading block index\u2026"},"id":1}"#
        ),
        RpcError::WarmingUp("Loading block index…".into())
    );
    assert_eq!(
        refused(r#"{"result":null,"error":{"code":-8,"message":"a\nb"},"id":1}"#),
        RpcError::Node {
            code: -8,
            message: "a b".into()
        }
    );
    // An error of the request as a whole has no id.
    assert!(matches!(
        refused(r#"{"result":null,"error":{"code":-32700,"message":"Parse error"},"id":null}"#),
        RpcError::Node { code: -32700, .. }
    ));
    for garbage in [
        "",
        "x",
        "<html>",
        "[]",
        "1",
        r#"{"result":1,"id":2}"#,
        r#"{"result":1}"#,
        r#"{"result":"x","id":1}"#,
        r#"{"result":1,"id":1} x"#,
        r#"{"result":1,"id":1"#,
    ] {
        assert!(
            matches!(refused(garbage), RpcError::Garbage(_)),
            "{garbage}"
        );
    }
    let deep = format!(r#"{{"x":{},"result":1,"id":1}}"#, "[".repeat(100_000));
    assert!(matches!(refused(&deep), RpcError::Garbage(_)));
    let odd = parse::<HexBytes>(br#"{"result":"0","id":1}"#, 1);
    assert!(matches!(odd, Err(RpcError::Garbage(_))));
    let long = format!(r#"{{"result":[{}1],"id":1}}"#, "1,".repeat(MAX_LIST));
    let long = parse::<List<u32>>(long.as_bytes(), 1);
    assert!(matches!(long, Err(RpcError::Garbage(_))));
}

#[test]
fn a_batch_is_read_in_the_order_of_its_calls_and_must_be_whole() {
    let one = |id: u64| format!(r#"{{"result":{id},"error":null,"id":{id}}}"#);
    let read =
        |parts: &[String]| parse_batch::<u64>(format!("[{}]", parts.join(",")).as_bytes(), 5, 2);
    let answers = read(&[one(6), one(5)]).unwrap();
    assert_eq!(answers, [Ok(Some(5)), Ok(Some(6))]);
    let failed = r#"{"result":null,"error":{"code":-5,"message":"x"},"id":6}"#.to_owned();
    assert!(read(&[one(5), failed]).unwrap()[1].is_err());
    for wrong in [
        vec![one(5)],
        vec![one(5), one(5)],
        vec![one(5), one(6), one(7)],
        vec![one(4), one(5)],
        vec![one(5), r#"{"result":1}"#.to_owned()],
    ] {
        assert!(
            matches!(read(&wrong), Err(RpcError::Garbage(_))),
            "{wrong:?}"
        );
    }
    let whole = br#" {"result":null,"error":{"code":-28,"message":"x"},"id":null}"#;
    let refused = parse_batch::<u64>(whole, 5, 2);
    assert_eq!(refused, Err(RpcError::WarmingUp("x".into())));
    assert!(matches!(
        parse_batch::<u64>(br#"{"result":1,"id":5}"#, 5, 1),
        Err(RpcError::Garbage(_))
    ));
}

#[test]
fn a_block_is_the_one_that_was_asked_for() {
    let block = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
    let bytes = bitcoin::consensus::serialize(&block);
    assert_eq!(
        check_block(&bytes, block.block_hash()).unwrap(),
        bytes[..80]
    );
    assert!(check_block(&bytes, BlockHash::all_zeros()).is_err());
    assert!(check_block(&bytes[..79], block.block_hash()).is_err());
}

#[test]
fn the_words_of_submitblock_are_told_apart() {
    assert_eq!(SubmitAnswer::read(None), SubmitAnswer::Accepted);
    assert_eq!(
        SubmitAnswer::read(Some("duplicate")),
        SubmitAnswer::Duplicate
    );
    assert_eq!(
        SubmitAnswer::read(Some("inconclusive")),
        SubmitAnswer::Inconclusive
    );
    assert_eq!(
        SubmitAnswer::read(Some("prev-blk-not-found")),
        SubmitAnswer::ParentUnknown
    );
    assert_eq!(
        SubmitAnswer::read(Some("time-too-new")),
        SubmitAnswer::TooEarly
    );
    for word in ["bad-txnmrklroot", "duplicate-invalid", "high-hash"] {
        assert_eq!(
            SubmitAnswer::read(Some(word)),
            SubmitAnswer::Invalid(word.into())
        );
    }
}

proptest! {
    #[test]
    fn no_bytes_make_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse::<BlockchainInfo>(&body, 1);
        let _ = parse_batch::<HexBytes>(&body, 1, 3);
    }
}
