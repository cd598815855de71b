//! Electrum wallets beside a relay, as those see it who operate it: where they are served, who they are, what they cost;
//! and what the log does not say of them.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};

use bitcoin::{Address, Network, ScriptBuf};
use serde_json::{Value, json};

use super::harness::{Bitcoind, PATIENCE, executable};
use super::relay::{Relay, Ways};

/// By which a wallet is served.
const SERVE: [&str; 2] = ["--electrum-listen", "tcp://127.0.0.1:0"];

/// A relay that serves wallets from the blocks of this bitcoind, and where it does.
fn serve(node: &Bitcoind, more: &[&str]) -> (Relay, SocketAddr) {
    let files = node.folder().display();
    let ways = Ways {
        p2p: true,
        zmq: true,
        rpc: true,
    };
    let to = format!("{},datadir={files}", ways.to(node));
    let relay = Relay::start(&[to], &[&SERVE, more].concat());
    let address = relay.wallets("tcp://");
    (relay, address)
}

/// A wallet.
struct Wallet(BufReader<TcpStream>);

impl Wallet {
    fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let mut wallet = Self(BufReader::new(stream));
        wallet.ask("server.version", json!(["test wallet", "1.4"]));
        wallet
    }

    fn send(&mut self, method: &str, params: Value) {
        let call = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        let sent = writeln!(self.0.get_mut(), "{call}");
        sent.expect("it listens");
    }

    /// The next line that is no notice; `Null` at the end.
    fn next(&mut self) -> Value {
        loop {
            let mut line = String::new();
            self.0.read_line(&mut line).expect("it answers in time");
            let answer: Value = serde_json::from_str(&line).unwrap_or_default();
            if answer.get("method").is_none() {
                return answer;
            }
        }
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.send(method, params);
        self.next()["result"].clone()
    }
}

#[test]
fn wallets_are_counted_named_and_ended_and_the_log_is_silent_of_what_they_ask() {
    let Some(executable) = executable() else {
        return;
    };
    let node = Bitcoind::start(&executable, &[]);
    let script = ScriptBuf::from_bytes(vec![0x51]);
    let address = Address::p2wsh(&script, Network::Regtest).to_string();
    node.call("generatetoaddress", json!([101, address]));
    let folder = tempfile::tempdir().expect("there is room for a folder");
    let banner = folder.path().join("banner");
    std::fs::write(&banner, "Served by $SERVER_VERSION").expect("it can be written");
    let banner = banner.to_str().expect("a name");
    let (relay, at) = serve(&node, &["--electrum-banner", banner]);
    let info = relay.wait_until("getelectruminfo", |info| info["state"] == "at the tip");
    assert_eq!(
        (&info["height"], &info["building"]),
        (&json!(101), &Value::Null)
    );
    assert_eq!(info["bestblockhash"], node.tip().to_string());
    assert_eq!(info["listen"], json!([format!("tcp://{at}")]));

    let found = relay.call("electrumquery", json!([address, 2]));
    assert_eq!(found["confirmed"], 101 * 5_000_000_000_u64);
    assert_eq!(found["transactions"], 101);
    assert_eq!(found["history"][1]["height"], 101);
    assert_eq!(found["history"].as_array().map(Vec::len), Some(2));
    let hash = found["scripthash"].as_str().expect("a hash").to_owned();
    assert_eq!(relay.call("electrumquery", json!([hash, 2])), found);
    for nonsense in ["x", "1A1zP1eP5QGefi2DMPTfTL5SLmv7DivfNa"] {
        assert!(relay.rpc("electrumquery", json!([nonsense])).is_err());
    }

    let mut wallet = Wallet::connect(at);
    wallet.ask("blockchain.scripthash.subscribe", json!([hash]));
    let told = wallet.ask("blockchain.scripthash.get_balance", json!([hash]));
    assert_eq!(told["confirmed"], found["confirmed"]);
    let greeted = wallet.ask("server.banner", json!([]));
    assert!(
        greeted
            .as_str()
            .expect("text")
            .starts_with("Served by Blocktorrent ")
    );
    let sessions = relay.call("getelectrumsessions", json!([]));
    let session = &sessions[0];
    assert_eq!(
        (&session["client"], &session["version"]),
        (&json!("test wallet"), &json!("1.4"))
    );
    assert_eq!(
        (&session["requests"], &session["subscriptions"]),
        (&json!(4), &json!(1))
    );
    assert!(session["cost"].as_f64().expect("a number") > 0.0);
    let groups = relay.call("getelectrumgroups", json!([]));
    assert_eq!(
        (&groups[0]["group"], &groups[0]["sessions"]),
        (&json!("loopback"), &json!(1))
    );

    relay.call("electrumlog", json!([session["id"], "on"]));
    wallet.ask("blockchain.scripthash.get_history", json!([hash]));
    wallet.send("blockchain.scripthash.get_history", json!(["nonsense"]));
    wallet.next();
    wallet.send("blockchain.transaction.broadcast", json!(["00"]));
    wallet.next();
    assert_eq!(
        relay.call("setelectrumbanner", json!(["Closed on Sunday"])),
        "Closed on Sunday"
    );
    assert_eq!(wallet.ask("server.banner", json!([])), "Closed on Sunday");
    let again = relay.call("setelectrumbanner", json!([]));
    assert!(
        again
            .as_str()
            .expect("text")
            .starts_with("Served by Blocktorrent ")
    );
    node.call("generatetoaddress", json!([1, address]));
    relay.wait_until("getelectruminfo", |info| info["height"] == 102);

    assert!(relay.rpc("disconnectelectrum", json!([7_000])).is_err());
    relay.call("disconnectelectrum", json!([session["id"]]));
    assert_eq!(wallet.next(), Value::Null);
    let info = relay.wait_until("getelectruminfo", |info| info["sessions"] == 0);
    assert_eq!(
        (&info["accepted"], &info["subscriptions"]),
        (&json!(1), &json!(0))
    );

    let port = wallet
        .0
        .get_ref()
        .local_addr()
        .expect("it was connected")
        .port();
    let secrets = [hash, address, format!(":{port}"), "nonsense".to_owned()];
    for secret in secrets {
        assert_eq!(relay.log.lines_with(&secret), Vec::<String>::new());
    }
    assert!(!relay.log.lines_with("message session=").is_empty());
}

#[test]
fn who_is_one_too_many_or_costs_too_much_is_refused_and_counted() {
    let Some(executable) = executable() else {
        return;
    };
    let node = Bitcoind::start(&executable, &[]);
    node.mine(1);
    let limits = ["--electrum-max-sessions", "2", "--electrum-cost-soft", "10"];
    let (relay, at) = serve(
        &node,
        &[&limits[..], &["--electrum-cost-hard", "20"]].concat(),
    );
    let info = relay.wait_until("getelectruminfo", |info| info["state"] == "at the tip");
    assert_eq!(
        (&info["cost"]["soft"], &info["cost"]["hard"]),
        (&json!(10.0), &json!(20.0))
    );
    assert_eq!(info["max_sessions"], 2);

    let (_first, mut second) = (Wallet::connect(at), Wallet::connect(at));
    let mut third = BufReader::new(TcpStream::connect(at).expect("it listens"));
    let mut line = String::new();
    let read = third.read_line(&mut line);
    assert!(matches!(read, Ok(0) | Err(_)), "{line}");
    // A server that names itself costs a hundred units.
    second.send("server.add_peer", json!([{}]));
    while second.next() != Value::Null {}
    let info = relay.wait_until("getelectruminfo", |info| info["sessions"] == 1);
    assert_eq!(
        (&info["refused"]["full"], &info["cut"]["cost"]),
        (&json!(1), &json!(1))
    );
}

#[test]
fn servers_that_name_themselves_are_told_of_once_they_were_looked_at() {
    let Some(executable) = executable() else {
        return;
    };
    let node = Bitcoind::start(&executable, &[]);
    node.mine(10);
    let ssl = ["--electrum-listen", "ssl://127.0.0.1:0"];
    let (first, at) = serve(
        &node,
        &[&ssl[..], &["--electrum-host", "127.0.0.1"]].concat(),
    );
    first.wait_until("getelectruminfo", |info| info["state"] == "at the tip");
    let seed = first.wallets("ssl://").to_string();
    let named = ["--electrum-host", "localhost", "--electrum-peer", &seed];
    let (second, _) = serve(&node, &[&ssl[..], &named].concat());

    // It does not come from where it says it is; and this one serves another chain.
    let mut wallet = Wallet::connect(at);
    let mut features = wallet.ask("server.features", json!([]));
    assert_eq!(features["hosts"]["127.0.0.1"]["tcp_port"], at.port());
    features["hosts"] = json!({"127.0.0.3": {"tcp_port": at.port()}});
    assert_eq!(wallet.ask("server.add_peer", json!([features])), true);
    features["genesis_hash"] = json!("00".repeat(32));
    wallet.ask("server.add_peer", json!([features]));

    let lists = |host: &'static str| move |info: &Value| info["peers"] == json!([host]);
    second.wait_until("getelectruminfo", lists("127.0.0.1"));
    first.wait_until("getelectruminfo", lists("localhost"));
    let told = wallet.ask("server.peers.subscribe", json!([]));
    assert_eq!(
        (&told[0][0], &told[0][1]),
        (&json!("127.0.0.1"), &json!("localhost"))
    );
    let port = second.wallets("ssl://").port();
    assert_eq!(
        (&told[0][2][1], &told[1]),
        (&json!(format!("s{port}")), &Value::Null)
    );
}
