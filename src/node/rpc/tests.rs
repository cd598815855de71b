//! Calls over real HTTP on loopback, against a task that answers in the engine's place.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bitcoin::hashes::Hash as _;
use hex::DisplayHex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;

use super::auth::Credentials;
use super::http::{MAX_BATCH, MAX_BODY_BYTES, serve};
use super::listener::MAX_CONNECTIONS;
use super::{Context, methods};
use crate::chain::Network;
use crate::net::{Clock, ControlHub, HubOptions};
use crate::node::bitcoin::BitcoinHandle;
use crate::node::engine::{Command, Counters, EngineHandle, PeerName};
use crate::node::headers::HeaderBook;
use crate::node::headers::tests::{bytes, mine};
use crate::node::stop::Stop;
use crate::node::store::BlockStore;
use crate::relay::SubmitRefusal;
use crate::time::Time;

const SECRET: &str = "c0ffee";

/// A server, and what stands behind it.
struct Bench {
    address: SocketAddr,
    stop: Stop,
    server: tokio::task::JoinHandle<std::io::Result<()>>,
    _folder: tempfile::TempDir,
}

impl Bench {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (engine, commands) = EngineHandle::channel();
        tokio::spawn(stand_in(commands));
        let (hub, _control) = ControlHub::new(HubOptions::new(Clock::start()));
        let stop = Stop::default();
        let context = Context {
            bitcoin: BitcoinHandle::without_nodes(),
            engine,
            store: Arc::new(BlockStore::open(folder.path(), 10_000_000).unwrap()),
            hub,
            private: None,
            electrum: None,
            named: Vec::new(),
            network: Network::Regtest,
            agent: "/blocktorrent:0.0.0/".into(),
            control: address,
            data: address,
            started: Instant::now(),
            stop: stop.clone(),
        };
        let login = ("alice".to_owned(), "secret".to_owned());
        let credentials = Credentials::new(SECRET, Some(&login));
        let server = tokio::spawn(serve(listener, context, credentials));
        Self {
            address,
            stop,
            server,
            _folder: folder,
        }
    }

    /// Sends a whole request as it stands and gives status and body of the answer.
    async fn raw(&self, head: String, body: Vec<u8>) -> (u16, String) {
        let address = self.address;
        spawn_blocking(move || {
            let mut stream = TcpStream::connect(address).unwrap();
            stream
                .set_read_timeout(Some(Duration::from_secs(60)))
                .unwrap();
            stream.write_all(head.as_bytes()).unwrap();
            // A server that refuses by the head alone may close before it has read the body.
            let _ = stream.write_all(&body);
            let mut answer = Vec::new();
            let _ = stream.read_to_end(&mut answer);
            let answer = String::from_utf8(answer).unwrap();
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
            let status = head.split(' ').nth(1).unwrap_or("0").parse().unwrap();
            (status, body.to_owned())
        })
        .await
        .unwrap()
    }

    async fn post(&self, login: Option<&str>, body: impl Into<Vec<u8>>) -> (u16, String) {
        let body = body.into();
        let login = login.map_or_else(String::new, |login| {
            let encoded = BASE64_STANDARD.encode(login);
            format!("Authorization: Basic {encoded}\r\n")
        });
        let length = body.len();
        let head = format!(
            "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n{login}\r\n"
        );
        self.raw(head, body).await
    }

    async fn send(&self, request: Value) -> (u16, Value) {
        let login = format!("__cookie__:{SECRET}");
        let (status, body) = self.post(Some(&login), request.to_string()).await;
        (status, serde_json::from_str(&body).unwrap_or(Value::Null))
    }

    async fn call(&self, method: &str, params: Value) -> Value {
        let request = json!({"jsonrpc": "2.0", "id": 7, "method": method, "params": params});
        let (status, response) = self.send(request).await;
        assert_eq!((status, &response["id"]), (200, &json!(7)), "{response}");
        assert!(response.get("result").is_some() != response.get("error").is_some());
        response
    }

    /// The code of the refusal of a call, and its message.
    async fn refusal(&self, method: &str, params: Value) -> (i64, String) {
        let response = self.call(method, params).await;
        let error = &response["error"];
        (
            error["code"].as_i64().expect("must be refused"),
            error["message"].as_str().unwrap().to_owned(),
        )
    }

    async fn result(&self, method: &str, params: Value) -> Value {
        let mut response = self.call(method, params).await;
        assert_eq!(response.get("error"), None, "{response}");
        response["result"].take()
    }
}

/// Answers as an engine of regtest without peers would.
async fn stand_in(mut commands: mpsc::Receiver<Command>) {
    let book = HeaderBook::new(Network::Regtest, None).unwrap();
    let now = Clock::start().now();
    while let Some(command) = commands.recv().await {
        match command {
            Command::SubmitBlock { block, reply } => {
                let outcome = submit(&book, &block, now);
                reply.send(outcome).unwrap();
            }
            Command::AddTransaction { transaction, reply } => {
                let outcome = match transaction.len() {
                    0..60 => Err("it is too short"),
                    _ => Ok([0x11; 32]),
                };
                reply.send(outcome).unwrap();
            }
            Command::SubmitHeader { header, reply } => {
                reply.send(book.submit(&header, now)).unwrap();
            }
            Command::Chain(reply) => reply.send(book.chain()).unwrap(),
            Command::HashAt { height, reply } => {
                let hash = book.hash_at(height).map(|hash| hash.to_byte_array());
                reply.send(hash).unwrap();
            }
            Command::Header { hash, reply } => reply.send(book.header(&hash)).unwrap(),
            Command::Block { reply, .. } => reply.send(None).unwrap(),
            Command::Peers(reply) => reply.send(Vec::new()).unwrap(),
            Command::Jobs(reply) => reply.send(Vec::new()).unwrap(),
            Command::Counters(reply) => reply.send(Counters::default()).unwrap(),
            Command::AddTransactions(_)
            | Command::AskAddresses(_)
            | Command::SendAddresses(..)
            | Command::DemoteTransactions(_)
            | Command::OfferCompact { .. }
            | Command::CompleteCompact { .. }
            | Command::RejectBlock(_) => panic!("RPC asks for none of these"),
            Command::Disconnect { peer, reply } => {
                reply.send(peer == PeerName::Number(5)).unwrap();
            }
        }
    }
}

fn submit(book: &HeaderBook, block: &[u8], now: Time) -> Result<[u8; 32], SubmitRefusal> {
    let parsed: bitcoin::Block = bitcoin::consensus::deserialize(block)
        .map_err(|_| SubmitRefusal::Malformed("short".into()))?;
    let mut header = [0; 80];
    header.copy_from_slice(&block[..80]);
    match book.submit(&header, now) {
        Ok(accepted) if accepted.known => Err(SubmitRefusal::Duplicate),
        Ok(accepted) => Ok(accepted.hash.to_byte_array()),
        Err(_) => {
            let _ = parsed;
            Err(SubmitRefusal::Header(
                crate::relay::HeaderRefusal::UnknownParent,
            ))
        }
    }
}

/// A block of regtest with the genesis coinbase, on top of `parent`.
fn block_on(parent: bitcoin::BlockHash, time: u32) -> (String, Vec<u8>) {
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest);
    let block = bitcoin::Block {
        header: mine(parent, time),
        txdata: genesis.txdata,
    };
    let bytes = bitcoin::consensus::serialize(&block);
    (block.block_hash().to_string(), bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn only_those_who_show_a_credential_are_served() {
    let bench = Bench::start().await;
    let body = json!({"method": "uptime", "id": 1}).to_string();
    for (login, status) in [
        (None, 401),
        (Some("__cookie__:wrong"), 401),
        (Some("alice:"), 401),
        (Some("__cookie__:c0ffee"), 200),
        (Some("alice:secret"), 200),
    ] {
        assert_eq!(bench.post(login, body.clone()).await.0, status, "{login:?}");
    }
    // A body is not even read without one.
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
        1u64 << 40
    );
    assert_eq!(bench.raw(head, Vec::new()).await.0, 401);
}

#[tokio::test(flavor = "multi_thread")]
async fn both_envelopes_and_their_statuses_are_bitcoin_cores() {
    let bench = Bench::start().await;
    let (status, old) = bench.send(json!({"method": "uptime", "id": "x"})).await;
    assert_eq!(
        (status, old),
        (200, json!({"result": 0, "error": null, "id": "x"}))
    );
    let (status, new) = bench
        .send(json!({"jsonrpc": "2.0", "method": "uptime", "id": 1}))
        .await;
    assert_eq!(
        (status, new),
        (200, json!({"jsonrpc": "2.0", "result": 0, "id": 1}))
    );
    let (status, _) = bench
        .send(json!({"jsonrpc": "2.0", "method": "uptime"}))
        .await;
    assert_eq!(status, 204);
    let (status, unknown) = bench.send(json!({"method": "nonsense", "id": 1})).await;
    assert_eq!((status, &unknown["error"]["code"]), (404, &json!(-32601)));
    let (code, message) = bench.refusal("nonsense", json!([])).await;
    assert_eq!((code, message.as_str()), (-32601, "Method not found"));
    let (status, invalid) = bench.send(json!({"id": 1})).await;
    assert_eq!((status, &invalid["error"]["code"]), (400, &json!(-32600)));
    let (status, wrong) = bench
        .send(json!({"method": "getblock", "params": [1]}))
        .await;
    assert_eq!((status, &wrong["error"]["code"]), (500, &json!(-3)));
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_is_a_parse_error_and_other_requests_are_refused() {
    let bench = Bench::start().await;
    let login = Some("alice:secret");
    let deep = "[".repeat(100_000);
    for garbage in ["", "{", "\u{0}", "not json", deep.as_str()] {
        let (status, body) = bench.post(login, garbage).await;
        let answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &answer["error"]["code"]), (500, &json!(-32700)));
    }
    let (status, body) = bench.post(login, vec![0xff; 100]).await;
    assert!(status == 500 && body.contains("-32700"));
    let get = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".to_owned();
    let (status, text) = bench.raw(get, Vec::new()).await;
    assert!(status == 405 && text.contains("only POST"));
    let path =
        "POST /wallet/ HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(bench.raw(path.to_owned(), Vec::new()).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_beyond_the_bound_is_refused() {
    let bench = Bench::start().await;
    let login = Some("alice:secret");
    let call = r#"{"method":"uptime"}"#;
    let fits = " ".repeat(MAX_BODY_BYTES - call.len()) + call;
    let (status, answer) = bench.post(login, fits).await;
    assert_eq!(status, 200, "{answer}");
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {}\r\n\
         Authorization: Basic {}\r\n\r\n",
        MAX_BODY_BYTES + 1,
        BASE64_STANDARD.encode("alice:secret")
    );
    let (status, text) = bench.raw(head, Vec::new()).await;
    assert!(status == 413 && text.contains("larger than"), "{status}");
}

#[tokio::test(flavor = "multi_thread")]
async fn batches_are_answered_in_order() {
    let bench = Bench::start().await;
    let batch = json!([
        {"jsonrpc": "2.0", "method": "uptime", "id": 1},
        {"jsonrpc": "2.0", "method": "uptime"},
        {"method": "nonsense", "id": 2},
        3,
        {"jsonrpc": "2.0", "method": "getpeerinfo", "id": 4},
    ]);
    let (status, answers) = bench.send(batch).await;
    assert_eq!(status, 200);
    let ids: Vec<&Value> = answers
        .as_array()
        .unwrap()
        .iter()
        .map(|it| &it["id"])
        .collect();
    assert_eq!(ids, [&json!(1), &json!(2), &Value::Null, &json!(4)]);
    assert_eq!(answers[1]["error"]["code"], -32601);
    assert_eq!(answers[2]["error"]["code"], -32600);
    assert_eq!(bench.send(json!([])).await, (200, json!([])));
    let notification = json!([{"jsonrpc": "2.0", "method": "uptime"}]);
    assert_eq!(bench.send(notification).await.0, 204);
    let many: Vec<Value> = (0..=MAX_BATCH).map(|id| json!({"id": id})).collect();
    let (status, refused) = bench.send(many.into()).await;
    assert!(status == 400 && refused["error"]["message"].to_string().contains("at most"));
    // What would take fifty times its bytes is refused before it is parsed.
    let flood = vec![0; super::http::MAX_VALUES + 1];
    let (status, refused) = bench.send(json!({"id": 1, "params": flood})).await;
    assert!(status == 500 && refused["error"]["message"].to_string().contains("values"));
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_checked_by_number_name_and_type() {
    let bench = Bench::start().await;
    let usage = |method: &str| methods::find(method).unwrap().usage();
    for (method, params, code, text) in [
        ("getblock", json!([]), -1, usage("getblock")),
        ("getblock", json!(["00", 1, 2]), -1, usage("getblock")),
        ("uptime", json!([1]), -1, usage("uptime")),
        (
            "getblock",
            json!(["abc"]),
            -8,
            "blockhash must be of length 64 (not 3, for 'abc')".into(),
        ),
        (
            "getblock",
            json!(["z".repeat(64)]),
            -8,
            "blockhash must be hexadecimal string".into(),
        ),
        (
            "getblock",
            json!({"hash": "x"}),
            -8,
            "Unknown named parameter hash".into(),
        ),
        (
            "getblock",
            json!([{}]),
            -3,
            "Position 1 (blockhash): JSON value of type object is not of expected type string"
                .into(),
        ),
        (
            "getblock",
            json!(["0".repeat(64), "x"]),
            -3,
            "Position 2 (verbosity)".into(),
        ),
        (
            "getblock",
            json!(["0".repeat(64), 1.5]),
            -3,
            "no whole number".into(),
        ),
        (
            "getblockheader",
            json!(["0".repeat(64), 1]),
            -3,
            "expected type bool".into(),
        ),
        (
            "getblock",
            json!(["0".repeat(64)]),
            -5,
            "Block not found".into(),
        ),
        (
            "getblockheader",
            json!({"blockhash": "0".repeat(64)}),
            -5,
            "Block not found".into(),
        ),
        (
            "submitblock",
            json!(["zz"]),
            -22,
            "Block decode failed".into(),
        ),
        (
            "submitblock",
            json!(["00"]),
            -22,
            "Block decode failed".into(),
        ),
        (
            "submitheader",
            json!(["00"]),
            -22,
            "Block header decode failed".into(),
        ),
        (
            "sendrawtransaction",
            json!(["0"]),
            -22,
            "TX decode failed.".into(),
        ),
        (
            "sendrawtransaction",
            json!(["00"]),
            -22,
            "it is too short".into(),
        ),
        (
            "addnode",
            json!(["a b", "add"]),
            -8,
            "is no peer; use HOST".into(),
        ),
        (
            "addnode",
            json!(["127.0.0.1", "x"]),
            -8,
            "use add, remove or onetry".into(),
        ),
        (
            "addnode",
            json!(["127.0.0.1:9", "remove"]),
            -24,
            "has not been added".into(),
        ),
        ("disconnectnode", json!([]), -32602, "Only one of".into()),
        (
            "disconnectnode",
            json!(["127.0.0.1:1", 5]),
            -32602,
            "Only one of".into(),
        ),
        (
            "disconnectnode",
            json!(["127.0.0.1:1"]),
            -29,
            "Node not found".into(),
        ),
        (
            "disconnectnode",
            json!(["", -4]),
            -29,
            "Node not found".into(),
        ),
    ] {
        let (found, message) = bench.refusal(method, params.clone()).await;
        assert_eq!(found, code, "{method} {params}: {message}");
        assert!(message.contains(&text), "{method} {params}: {message}");
    }
    assert_eq!(
        bench.result("disconnectnode", json!(["", 5])).await,
        Value::Null
    );
    assert_eq!(
        bench.result("disconnectnode", json!({"nodeid": 5})).await,
        Value::Null
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn headers_and_blocks_come_in_and_out_again() {
    let bench = Bench::start().await;
    let genesis = Network::Regtest.genesis();
    let orphan = mine(bitcoin::BlockHash::from_byte_array([3; 32]), genesis.time);
    let (code, message) = bench
        .refusal(
            "submitheader",
            json!([bytes(&orphan).to_lower_hex_string()]),
        )
        .await;
    assert_eq!(code, -25);
    assert!(message.starts_with("Must submit previous header (0303"));
    let header = mine(genesis.block_hash(), genesis.time + 600);
    let header_hex = bytes(&header).to_lower_hex_string();
    assert_eq!(
        bench.result("submitheader", json!([header_hex])).await,
        Value::Null
    );
    let hash = header.block_hash().to_string();
    let shown = bench.result("getblockheader", json!([hash])).await;
    assert_eq!(
        (&shown["height"], &shown["confirmations"]),
        (&json!(1), &json!(1))
    );
    assert_eq!(
        bench.result("getblockheader", json!([hash, false])).await,
        json!(header_hex)
    );
    let (code, _) = bench.refusal("getblock", json!([hash])).await;
    assert_eq!(code, -1, "the header is known and the block is not kept");

    let (hash, block) = block_on(header.block_hash(), header.time + 600);
    let block_hex = block.to_lower_hex_string();
    assert_eq!(
        bench.result("submitblock", json!([block_hex])).await,
        Value::Null
    );
    assert_eq!(
        bench.result("submitblock", json!([block_hex])).await,
        json!("duplicate")
    );
    assert_eq!(
        bench.result("getblock", json!([hash, 0])).await,
        json!(block_hex)
    );
    let shown = bench.result("getblock", json!([hash, 2])).await;
    assert_eq!((&shown["height"], &shown["nTx"]), (&json!(2), &json!(1)));
    assert!(shown["tx"][0]["vin"][0]["coinbase"].is_string());
    let info = bench.result("getblockchaininfo", json!([])).await;
    assert_eq!(info["chain"], "regtest");
    assert_eq!((&info["blocks"], &info["headers"]), (&json!(2), &json!(2)));
    let (_, stray) = block_on(bitcoin::BlockHash::from_byte_array([4; 32]), 1_700_000_000);
    assert_eq!(
        bench
            .result("submitblock", json!([stray.to_lower_hex_string()]))
            .await,
        json!("prev-blk-not-found")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_rest_answers_in_its_form() {
    let bench = Bench::start().await;
    assert_eq!(bench.result("getpeerinfo", json!([])).await, json!([]));
    assert_eq!(bench.result("getjobinfo", json!({})).await, json!([]));
    assert_eq!(bench.result("getmempoolinfo", json!([])).await["size"], 0);
    let transaction = "00".repeat(60);
    let txid = bench.result("sendrawtransaction", json!([transaction, 0]));
    assert_eq!(txid.await, json!("11".repeat(32)));
    let add = json!(["127.0.0.1:1", "add"]);
    assert_eq!(bench.result("addnode", add.clone()).await, Value::Null);
    assert_eq!(bench.refusal("addnode", add).await.0, -23);
    let info = bench.result("getnetworkinfo", json!([])).await;
    assert_eq!(info["addednodes"], json!(["127.0.0.1:1"]));
    assert_eq!(info["connections"], 0);
    let failure = loop {
        let info = bench.result("getnetworkinfo", json!([])).await;
        if let Some(failure) = info["addednode_failures"]["127.0.0.1:1"].as_str() {
            break failure.to_owned();
        }
        tokio::task::yield_now().await;
    };
    assert!(failure.contains("refused"), "{failure}");
    let remove = json!(["127.0.0.1:1", "remove"]);
    assert_eq!(bench.result("addnode", remove).await, Value::Null);
    let help = bench.result("help", json!([])).await;
    let lines: Vec<&str> = help.as_str().unwrap().lines().collect();
    assert_eq!(lines.len(), 2 * methods::METHODS.len());
    for method in methods::METHODS {
        let text = bench.result("help", json!([method.name])).await;
        assert!(text.as_str().unwrap().starts_with(method.name));
    }
    let (code, unknown) = bench.refusal("help", json!(["x"])).await;
    assert_eq!(
        (code, unknown.as_str()),
        (-32_601, "help: unknown command: x")
    );
    let tip = bench.result("getbestblockhash", json!([])).await;
    assert_eq!(bench.result("getblockcount", json!([])).await, 0);
    assert_eq!(bench.result("getblockhash", json!([0])).await, tip);
    for height in [json!(1), json!(-1), json!(1u64 << 40)] {
        let (code, text) = bench.refusal("getblockhash", json!([height])).await;
        assert_eq!((code, text.as_str()), (-8, "Block height out of range"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn stop_is_answered_before_the_server_ends() {
    let bench = Bench::start().await;
    let said = bench.result("stop", json!([])).await;
    assert_eq!(said, "blocktorrent stopping");
    bench.stop.stopped().await;
    bench.server.await.unwrap().unwrap();
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_out_and_hold_up_no_end() {
    let bench = Bench::start().await;
    // What listens takes the first of them, and the system the rest.
    let _silent: Vec<TcpStream> = (0..MAX_CONNECTIONS * 2)
        .map(|place| {
            let mut stream = TcpStream::connect(bench.address).unwrap();
            let said = if place % 2 == 0 { "" } else { "POST / HTTP" };
            stream.write_all(said.as_bytes()).unwrap();
            stream
        })
        .collect();
    for _ in 0..3 {
        assert!(bench.result("uptime", json!([])).await.is_u64());
    }
    bench.stop.stop();
    let ended = tokio::time::timeout(Duration::from_secs(20), bench.server).await;
    ended.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn one_that_is_answered_is_not_let_go_of() {
    let bench = Bench::start().await;
    let address = bench.address;
    let login = BASE64_STANDARD.encode(format!("__cookie__:{SECRET}"));
    let call = json!({"method": "uptime", "id": 1}).to_string();
    let (first, rest) = call.split_at(5);
    let length = call.len();
    let head = format!(
        "POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\
         Expect: 100-continue\r\nAuthorization: Basic {login}\r\n\r\n"
    );
    let mut works = TcpStream::connect(address).unwrap();
    works.write_all(head.as_bytes()).unwrap();
    // It is asked for the body once its credential has been seen.
    let mut works = spawn_blocking(move || {
        let mut asked = [0; 25];
        works.read_exact(&mut asked).unwrap();
        assert!(asked.starts_with(b"HTTP/1.1 100 Continue"));
        works
    })
    .await
    .unwrap();
    works.write_all(first.as_bytes()).unwrap();
    let _silent: Vec<TcpStream> = (0..MAX_CONNECTIONS * 2)
        .map(|_| TcpStream::connect(address).unwrap())
        .collect();
    assert!(bench.result("uptime", json!([])).await.is_u64());
    works.write_all(rest.as_bytes()).unwrap();
    let answer = spawn_blocking(move || {
        let mut answer = String::new();
        works.read_to_string(&mut answer).unwrap();
        answer
    });
    assert!(answer.await.unwrap().starts_with("HTTP/1.1 200"));
}
