use bytes::Bytes;
use serde_json::{Value, json};

use super::*;
use crate::electrum::proof::Branch;
use crate::electrum::query::PackageAnswer;
use crate::electrum::status::Unconfirmed;

fn version(text: &str) -> Version {
    text.parse().unwrap()
}

fn written(at: &str, shape: Shape, told: &Answer) -> Value {
    serde_json::from_slice(&answer(version(at), &shape, told)).unwrap()
}

fn plain(at: &str, told: &Answer) -> Value {
    written(at, Shape::Plain, told)
}

fn hash(first: u8) -> (Hash, String) {
    let mut hash = [0; 32];
    hash[0] = first;
    (hash, format!("{}{first:02x}", "00".repeat(31)))
}

#[test]
fn headers_are_one_text_before_1_6_and_a_list_since() {
    let told = Answer::Headers {
        headers: Bytes::from([[1; 80], [2; 80]].concat()),
        branch: None,
    };
    let (one, two) = ("01".repeat(80), "02".repeat(80));
    let old = json!({"count": 2, "hex": format!("{one}{two}"), "max": 2016});
    for at in ["1.4", "1.4.3", "1.5"] {
        assert_eq!(plain(at, &told), old);
    }
    let new = json!({"count": 2, "headers": [one, two], "max": 2016});
    for at in ["1.6", "1.7"] {
        assert_eq!(plain(at, &told), new);
    }
    let (node, text) = hash(7);
    let branch = Some(Branch {
        nodes: vec![node],
        root: node,
    });
    let told = Answer::Header {
        header: [1; 80],
        branch,
    };
    let expected = json!({"branch": [text], "header": "01".repeat(80), "root": text});
    assert_eq!(plain("1.4", &told), expected);
    let told = Answer::Header {
        header: [1; 80],
        branch: None,
    };
    assert_eq!(plain("1.4", &told), json!("01".repeat(80)));
}

#[test]
fn lists_of_scripts_are_wrapped_in_1_7() {
    let (txid, text) = hash(5);
    let item = |place, fee| HistoryItem { txid, place, fee };
    let told = Answer::History(vec![
        item(Place::Block(200_004), None),
        item(Place::Mempool(Unconfirmed::OnConfirmed), Some(310)),
        item(Place::Mempool(Unconfirmed::OnUnconfirmed), Some(0)),
    ]);
    let expected = json!([
        {"height": 200_004, "tx_hash": text},
        {"height": 0, "tx_hash": text, "fee": 310},
        {"height": -1, "tx_hash": text, "fee": 0},
    ]);
    assert_eq!(plain("1.6", &told), expected);
    assert_eq!(plain("1.7", &told), json!({"history": expected}));
    let told = Answer::Unspent(vec![UnspentItem {
        txid,
        index: 3,
        height: 0,
        value: 21,
    }]);
    let expected = json!([{"tx_hash": text, "tx_pos": 3, "height": 0, "value": 21}]);
    assert_eq!(plain("1.4", &told), expected);
    assert_eq!(plain("1.7", &told), json!({"utxos": expected}));
    let told = Answer::Balance {
        confirmed: 9,
        unconfirmed: -4,
    };
    assert_eq!(
        plain("1.7", &told),
        json!({"confirmed": 9, "unconfirmed": -4})
    );
}

#[test]
fn amounts_are_exact() {
    let text = |satoshis| {
        let told = Answer::EstimateFee(satoshis);
        String::from_utf8(answer(Version::MIN, &Shape::Plain, &told)).unwrap()
    };
    assert_eq!(text(None), "-1");
    assert_eq!(text(Some(101_079)), "0.00101079");
    assert_eq!(text(Some(1)), "0.00000001");
    assert_eq!(text(Some(1_000)), "0.00001000");
    assert_eq!(text(Some(2_100_000_000_000_001)), "21000000.00000001");
    // What Core writes as 0.00001000 and others as 1e-05 is the same number.
    assert_eq!(plain("1.4", &Answer::EstimateFee(Some(1_000))), json!(1e-5));
    let told = Answer::MempoolInfo {
        mempool_min: 1_234,
        relay_min: 100,
        incremental: 1_000,
    };
    let expected = json!({
        "mempoolminfee": 0.00001234, "minrelaytxfee": 0.000001, "incrementalrelayfee": 0.00001,
    });
    assert_eq!(plain("1.6", &told), expected);
    assert_eq!(written("1.4", Shape::RelayFee, &told), json!(0.000001));
    let told = Answer::FeeHistogram(vec![(59.5, 30_324), (1.0, 7)]);
    assert_eq!(plain("1.4", &told), json!([[59.5, 30_324], [1.0, 7]]));
}

#[test]
fn transactions_and_their_fate() {
    let (txid, text) = hash(9);
    let told = Answer::Merkle {
        height: 4,
        position: 2,
        nodes: vec![txid],
    };
    let expected = json!({"block_height": 4, "pos": 2, "merkle": [text]});
    assert_eq!(plain("1.4", &told), expected);
    assert_eq!(
        plain("1.4", &Answer::IdAt { txid, nodes: None }),
        json!(text)
    );
    let told = Answer::IdAt {
        txid,
        nodes: Some(vec![]),
    };
    assert_eq!(plain("1.4", &told), json!({"tx_hash": text, "merkle": []}));
    assert_eq!(
        plain("1.4", &Answer::Transaction(Bytes::from_static(&[0, 255]))),
        json!("00ff")
    );
    let mut told = PackageAnswer {
        success: true,
        errors: vec![],
        verbose: json!({"package_msg": "success"}),
    };
    let shape = |verbose| Shape::Package { verbose };
    let all = Answer::Package(told.clone());
    assert_eq!(written("1.6", shape(false), &all), json!({"success": true}));
    assert_eq!(
        written("1.6", shape(true), &all),
        json!({"package_msg": "success"})
    );
    told.success = false;
    told.errors.push((txid, "say \"no\"".into()));
    let expected = json!({"success": false, "errors": [{"txid": text, "error": "say \"no\""}]});
    assert_eq!(
        written("1.6", shape(false), &Answer::Package(told)),
        expected
    );
    let one = |allowed, reason| TestAccepted {
        txid,
        wtxid: txid,
        allowed,
        reason,
    };
    let told = Answer::TestAccept(vec![one(Some(false), Some("bad".into())), one(None, None)]);
    let expected = json!([
        {"txid": text, "wtxid": text, "allowed": false, "reason": "bad"},
        {"txid": text, "wtxid": text},
    ]);
    assert_eq!(plain("1.7", &told), expected);
    let told = Answer::Recent(vec![RecentItem {
        txid,
        fee: 7,
        vsize: 110,
    }]);
    assert_eq!(
        plain("1.7", &told),
        json!([{"txid": text, "fee": 7, "vsize": 110}])
    );
}

#[test]
fn an_output_has_nothing_one_or_three_members() {
    let (txid, text) = hash(9);
    let told = |funder, spender| plain("1.7", &Answer::Outpoint { funder, spender });
    assert_eq!(told(None, None), json!({}));
    assert_eq!(
        told(Some(Place::Block(6)), None),
        json!({"funder_height": 6})
    );
    let spender = Some((txid, Place::Mempool(Unconfirmed::OnConfirmed)));
    let expected = json!({"funder_height": 6, "spender_txhash": text, "spender_height": 0});
    assert_eq!(told(Some(Place::Block(6)), spender), expected);
    let params = outpoint_changed(&(txid, 1), None, None);
    assert_eq!(params, format!("\"{text}\",1,{{}}").into_bytes());
    let script: ScriptHash = text.parse().unwrap();
    let params = script_changed(&script, Some(&[1; 32]));
    assert_eq!(
        params,
        format!("\"{text}\",\"{}\"", "01".repeat(32)).into_bytes()
    );
    assert_eq!(
        script_changed(&script, None),
        format!("\"{text}\",null").into_bytes()
    );
}

#[test]
fn refusals_have_their_codes() {
    let said = |at, shape, told| {
        let failure = refusal(version(at), &shape, &told);
        (failure.code, failure.message)
    };
    let node = || Refusal::Node {
        code: -26,
        message: "min relay fee not met".into(),
    };
    let (code, message) = said("1.4", Shape::Broadcast(Bytes::from_static(&[0xab])), node());
    assert_eq!(code, 1);
    assert_eq!(
        message,
        "the transaction was rejected by network rules.\n\nmin relay fee not met\n[ab]"
    );
    let (code, message) = said("1.6", Shape::Package { verbose: false }, node());
    assert_eq!(code, 1);
    assert_eq!(
        message,
        "the tx package was rejected by network rules.\n\nmin relay fee not met."
    );
    assert_eq!(said("1.4", Shape::Plain, node()).0, 2);
    assert_eq!(said("1.6", Shape::Plain, Refusal::HistoryTooLarge).0, 1);
    assert_eq!(
        said("1.7", Shape::Plain, Refusal::HistoryTooLarge).0,
        10_001
    );
    assert_eq!(
        said("1.4", Shape::Plain, Refusal::Bad("x".into())),
        (1, "x".into())
    );
    assert_eq!(
        said("1.4", Shape::Plain, Refusal::Unavailable("x".into())).0,
        -100
    );
    assert_eq!(said("1.4", Shape::Plain, Refusal::Busy).0, -102);
    assert_eq!(said("1.4", Shape::Plain, Refusal::Internal).0, -32_603);
}
