//! Real sockets on loopback, before a data task that makes up what it tells.

use std::collections::BTreeMap;
use std::sync::Mutex;

use futures_util::{SinkExt as _, StreamExt as _};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncRead, AsyncWrite, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_tungstenite::tungstenite::Message;

use super::*;
use crate::electrum::query::{Answer, Refusal};
use crate::electrum::script_hash::ScriptHash;
use crate::electrum::subscriptions::SessionId;

type Statuses = Arc<Mutex<BTreeMap<ScriptHash, [u8; 32]>>>;

/// A server with a made-up world behind it.
struct World {
    server: Server,
    statuses: Statuses,
    changes: mpsc::Sender<Arc<Change>>,
    stop: Option<oneshot::Sender<()>>,
    folder: tempfile::TempDir,
    info: watch::Sender<Arc<Info>>,
}

/// Bytes of every transaction here.
const RAW_BYTES: usize = 400_000;

fn told(query: &Query, statuses: &Statuses) -> Result<Answer, Refusal> {
    Ok(match query {
        Query::Header { height, .. } => Answer::Header {
            header: [*height as u8; 80],
            branch: None,
        },
        Query::Status(script) => Answer::Status(statuses.lock().unwrap().get(script).copied()),
        Query::Transaction(_) => Answer::Transaction(vec![7; RAW_BYTES].into()),
        Query::MempoolInfo => Answer::MempoolInfo {
            mempool_min: 1_000,
            relay_min: 1_000,
            incremental: 1_000,
        },
        _ => return Err(Refusal::Bad("not here".into())),
    })
}

const ALL: [Transport; 4] = [
    Transport::Tcp,
    Transport::Ssl,
    Transport::Ws,
    Transport::Wss,
];

impl World {
    async fn new(change: impl FnOnce(&mut Options)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut options = Options {
            listen: ALL
                .map(|transport| (transport, "127.0.0.1:0".parse().unwrap()))
                .to_vec(),
            certificate: Some(Certificate::Kept(folder.path().to_owned())),
            reload_interval: Duration::from_millis(20),
            ..Options::default()
        };
        change(&mut options);
        let statuses = Statuses::default();
        let (data, mut asked) = mpsc::channel::<Asked>(100);
        let known = statuses.clone();
        tokio::spawn(async move {
            while let Some(Asked { query, reply }) = asked.recv().await {
                // One block's header never comes.
                if matches!(query, Query::Header { height: 13, .. }) {
                    std::mem::forget(reply);
                    continue;
                }
                let answer = told(&query, &known);
                reply
                    .send(Told {
                        answer,
                        looked_at: 1,
                    })
                    .ok();
            }
        });
        let (changes, feed) = mpsc::channel(10);
        let (info, about) = watch::channel(Arc::new(Info {
            software: "Test 1".into(),
            ..Info::default()
        }));
        let (stop, stopped) = oneshot::channel();
        let wires = Wires {
            info: about,
            tip: Some(Tip {
                height: 1,
                header: [1; 80],
            }),
            data,
            changes: feed,
            peers: None,
        };
        let stopped = async {
            stopped.await.ok();
        };
        let server = Bound::new(options).await.unwrap().serve(wires, stopped);
        Self {
            server,
            statuses,
            changes,
            stop: Some(stop),
            folder,
            info,
        }
    }

    fn address(&self, transport: Transport) -> SocketAddr {
        self.server.addresses[ALL.iter().position(|one| *one == transport).unwrap()].1
    }

    async fn tcp(&self) -> TcpStream {
        TcpStream::connect(self.address(Transport::Tcp))
            .await
            .unwrap()
    }

    async fn lines(&self) -> Lines<TcpStream> {
        Lines(BufReader::new(self.tcp().await))
    }

    async fn tls(
        &self,
        transport: Transport,
    ) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
        let pem = std::fs::read(self.folder.path().join("electrum-cert.pem")).unwrap();
        let mut roots = rustls::RootCertStore::empty();
        roots
            .add(CertificateDer::from_pem_slice(&pem).unwrap())
            .unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(self.address(transport)).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config))
            .connect(name, stream)
            .await
    }

    /// Waits until the counts are as they should be.
    async fn until(&self, what: impl Fn(&Counts) -> bool) {
        for _ in 0..1_000 {
            if what(&self.server.admin.counts()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{:?}", self.server.admin.counts());
    }
}

/// A client that speaks lines.
struct Lines<S>(BufReader<S>);

impl<S: AsyncRead + AsyncWrite + Unpin> Lines<S> {
    async fn send(&mut self, text: &str) {
        self.0
            .write_all(format!("{text}\n").as_bytes())
            .await
            .unwrap();
        self.0.flush().await.unwrap();
    }

    /// The next frame; `None` at the end.
    async fn next(&mut self) -> Option<Value> {
        let mut line = String::new();
        let reading = self.0.read_line(&mut line);
        let read = tokio::time::timeout(Duration::from_secs(20), reading).await;
        match read.expect("a line in time") {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(serde_json::from_str(&line).unwrap()),
        }
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.send(&call(method, params)).await;
        self.next().await.unwrap()
    }
}

fn call(method: &str, params: Value) -> String {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string()
}

fn version() -> String {
    call("server.version", json!(["test", ["1.4", "1.6"]]))
}

async fn over_web_socket<S: AsyncRead + AsyncWrite + Unpin>(stream: S) {
    let (mut socket, _) = tokio_tungstenite::client_async("ws://localhost/", stream)
        .await
        .unwrap();
    socket.send(Message::text(version())).await.unwrap();
    let text = socket.next().await.unwrap().unwrap().into_text().unwrap();
    assert!(!text.contains('\n'));
    let told: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(told["result"], json!(["Test 1", "1.6"]));
    socket.send(Message::text("x".repeat(1_100_000))).await.ok();
    while let Some(Ok(message)) = socket.next().await {
        assert!(!message.is_ping());
    }
}

#[tokio::test]
async fn all_four_transports_and_a_stop() {
    let mut world = World::new(|_| {}).await;
    let mut plain = world.lines().await;
    plain.send(&version()).await;
    assert_eq!(
        plain.next().await.unwrap()["result"],
        json!(["Test 1", "1.6"])
    );
    let mut tls = Lines(BufReader::new(world.tls(Transport::Ssl).await.unwrap()));
    tls.send(&version()).await;
    assert_eq!(
        tls.next().await.unwrap()["result"],
        json!(["Test 1", "1.6"])
    );
    over_web_socket(
        TcpStream::connect(world.address(Transport::Ws))
            .await
            .unwrap(),
    )
    .await;
    over_web_socket(world.tls(Transport::Wss).await.unwrap()).await;
    world
        .until(|counts| counts.cut_long == 2 && counts.accepted == 4)
        .await;

    let batch = format!(
        "[{},{}]",
        call("blockchain.block.header", json!([9])),
        call("server.ping", json!([]))
    );
    plain.send(&batch).await;
    let told = plain.next().await.unwrap();
    assert_eq!(
        (&told[0]["result"], &told[1]["result"]),
        (&json!("09".repeat(80)), &Value::Null)
    );

    let seen = world.server.admin.sessions();
    assert_eq!(seen.len(), 2);
    assert_eq!(
        (seen[0].client.as_str(), seen[0].version.as_deref()),
        ("test", Some("1.6"))
    );
    assert!(world.server.admin.disconnect(seen[1].id));
    assert!(!world.server.admin.disconnect(SessionId(99)));
    assert_eq!(tls.next().await, None);
    world
        .info
        .send_modify(|info| Arc::make_mut(info).banner = "hello".into());
    assert_eq!(
        plain.call("server.banner", json!([])).await["result"],
        "hello"
    );

    world.stop.take().unwrap().send(()).unwrap();
    assert_eq!(plain.next().await, None);
    world.server.task.await.unwrap();
}

#[tokio::test]
async fn changes_are_told_to_those_who_asked() {
    let world = World::new(|_| {}).await;
    let script = ScriptHash::of(&[1]);
    let mut clients = Vec::new();
    for number in 0..20 {
        let mut client = world.lines().await;
        client.send(&version()).await;
        client.next().await.unwrap();
        client.call("blockchain.headers.subscribe", json!([])).await;
        let hash = if number < 10 {
            script
        } else {
            ScriptHash::of(&[2])
        };
        let told = client
            .call("blockchain.scripthash.subscribe", json!([hash.to_string()]))
            .await;
        assert_eq!(told["result"], Value::Null);
        clients.push(client);
    }
    world.statuses.lock().unwrap().insert(script, [5; 32]);
    let change = Change {
        tip: Some(Tip {
            height: 2,
            header: [2; 80],
        }),
        scripts: vec![script, ScriptHash::of(&[2])],
        ..Change::default()
    };
    world.changes.send(Arc::new(change)).await.unwrap();
    for (number, client) in clients.iter_mut().enumerate() {
        let told = client.next().await.unwrap();
        assert_eq!(
            told["params"],
            json!([{"height": 2, "hex": "02".repeat(80)}])
        );
        if number < 10 {
            let told = client.next().await.unwrap();
            assert_eq!(told["params"], json!([script.to_string(), "05".repeat(32)]));
        }
        // Nothing else came before this.
        assert_eq!(client.call("server.ping", json!([])).await["id"], 1);
    }
    drop(clients);
    world
        .until(|counts| counts.sessions == 0 && counts.subscriptions == 0)
        .await;
}

#[tokio::test]
async fn malformed_everything_gets_an_answer_or_a_cut() {
    let world = World::new(|options| options.cost.soft_milli = 0).await;
    let mut client = world.lines().await;
    for (text, expected) in [
        ("{", -32_700),
        ("[]", -32_600),
        ("7", -32_600),
        ("\"\u{1}\"", -32_700),
        (&"[".repeat(100_000), -32_600),
        (&format!("[{}1]", "1,".repeat(100_000)), -32_600),
        (r#"{"id":1,"method":"server.nothing"}"#, -32_601),
        (r#"{"id":1,"method":"server.ping","params":[1]}"#, -32_602),
        (
            r#"{"id":1,"method":"blockchain.block.header","params":[-1]}"#,
            1,
        ),
        (
            r#"{"id":1,"method":"blockchain.scripthash.subscribe","params":["zz"]}"#,
            1,
        ),
    ] {
        client.send(text).await;
        let told = client.next().await.unwrap();
        assert_eq!(told["error"]["code"], expected, "{told}");
    }
    // Empty lines and what is no call have no answer.
    client.send("\r\n\n{\"id\":1,\"result\":1}").await;
    client.send(&call("server.ping", json!([]))).await;
    assert_eq!(client.next().await.unwrap()["result"], Value::Null);
    client.0.write_all(b"\xff\xfe\n").await.unwrap();
    assert_eq!(client.next().await.unwrap()["error"]["code"], -32_700);
    // A line without end.
    let flood = async {
        loop {
            if client.0.get_mut().write_all(&[b' '; 65_536]).await.is_err() {
                return;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), flood)
        .await
        .unwrap();
    world
        .until(|counts| counts.cut_long == 1 && counts.sessions == 0)
        .await;
    // A version that nobody speaks.
    let mut client = world.lines().await;
    let told = client.call("server.version", json!(["x", "9.0"])).await;
    assert_eq!(told["error"]["code"], 1);
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn no_tls_half_tls_and_no_web_socket_are_cut_and_counted() {
    let world = World::new(|options| options.handshake_timeout = Duration::from_millis(200)).await;
    let mut plain = TcpStream::connect(world.address(Transport::Ssl))
        .await
        .unwrap();
    plain.write_all(version().as_bytes()).await.unwrap();
    world.until(|counts| counts.failed_tls == 1).await;
    // Half open: a first record begun and never ended.
    let mut half = TcpStream::connect(world.address(Transport::Ssl))
        .await
        .unwrap();
    half.write_all(&[22, 3, 1, 2, 0, 1]).await.unwrap();
    world.until(|counts| counts.failed_tls == 2).await;
    let mut web = TcpStream::connect(world.address(Transport::Ws))
        .await
        .unwrap();
    web.write_all(format!("{}\n", version()).as_bytes())
        .await
        .unwrap();
    let _silent = TcpStream::connect(world.address(Transport::Ws))
        .await
        .unwrap();
    world
        .until(|counts| counts.failed_web_socket == 2 && counts.sessions == 0)
        .await;
}

#[tokio::test]
async fn one_that_never_reads_holds_little_and_is_cut() {
    let world = World::new(|options| {
        options.write_timeout = Duration::from_millis(500);
        options.cost.soft_milli = 0;
    })
    .await;
    let mut deaf = world.tcp().await;
    let get = format!(
        "{}\n",
        call("blockchain.transaction.get", json!(["00".repeat(32)]))
    );
    // 800 kB are asked for with 150 bytes, until even the questions are not taken any more.
    let asking = async {
        loop {
            if deaf.write_all(get.as_bytes()).await.is_err() {
                return;
            }
        }
    };
    let mut other = world.lines().await;
    let served = async {
        for _ in 0..50 {
            let told = other.call("blockchain.block.header", json!([3])).await;
            assert_eq!(told["result"], "03".repeat(80));
        }
    };
    tokio::time::timeout(Duration::from_secs(20), async {
        tokio::join!(asking, served)
    })
    .await
    .unwrap();
    let counts = world.server.admin.counts();
    assert_eq!(counts.cut_slow, 1);
    // What was made for it: what the sockets took, its outbox, and the questions under way.
    assert!(counts.bytes_out < 40_000_000, "{counts:?}");
}

#[tokio::test]
async fn two_thousand_idle_clients_do_not_matter() {
    let world = World::new(|options| options.max_sessions = 2_010).await;
    let mut idle = Vec::new();
    for _ in 0..2_000 {
        idle.push(world.tcp().await);
    }
    world.until(|counts| counts.sessions == 2_000).await;
    let mut client = world.lines().await;
    let told = client.call("blockchain.block.header", json!([3])).await;
    assert_eq!(told["result"], "03".repeat(80));
    drop(idle);
    world.until(|counts| counts.sessions == 1).await;
}

#[tokio::test]
async fn too_many_the_silent_and_the_dear() {
    let world = World::new(|options| {
        options.max_sessions = 2;
        options.session.idle = Duration::from_millis(300);
        options.cost.hard_milli = 50_000;
        options.cost.soft_milli = 40_000;
        options.request_timeout = Duration::from_millis(100);
    })
    .await;
    let mut one = world.lines().await;
    let mut two = world.lines().await;
    world.until(|counts| counts.sessions == 2).await;
    let mut three = world.lines().await;
    assert_eq!(three.next().await, None);
    world.until(|counts| counts.refused_full == 1).await;
    // The data does not answer in time.
    assert_eq!(
        two.call("blockchain.block.header", json!([13])).await["error"]["code"],
        -102
    );
    assert_eq!(one.next().await, None);
    world.until(|counts| counts.cut_idle >= 1).await;
    drop(two);
    world.until(|counts| counts.sessions == 0).await;
    let mut dear = world.lines().await;
    dear.send(&call(
        "blockchain.transaction.get",
        json!(["00".repeat(32)]),
    ))
    .await;
    // It is told what it asked for, and then that it was too much.
    assert!(dear.next().await.unwrap()["result"].is_string());
    assert_eq!(dear.next().await.unwrap()["error"]["code"], -101);
    assert_eq!(dear.next().await, None);
    world.until(|counts| counts.cut_cost == 1).await;
}

#[tokio::test]
async fn one_that_closes_its_half_still_gets_its_answers() {
    let world = World::new(|_| {}).await;
    let mut client = world.lines().await;
    client
        .send(&call("blockchain.block.header", json!([3])))
        .await;
    client.0.get_mut().shutdown().await.unwrap();
    assert_eq!(client.next().await.unwrap()["result"], "03".repeat(80));
    assert_eq!(client.next().await, None);
}

#[tokio::test]
async fn a_new_certificate_is_taken_without_a_restart() {
    let world = World::new(|_| {}).await;
    let mut old = Lines(BufReader::new(world.tls(Transport::Ssl).await.unwrap()));
    let [chain, key] =
        ["electrum-cert.pem", "electrum-key.pem"].map(|name| world.folder.path().join(name));
    let before = std::fs::read(&chain).unwrap();
    // Half of a pair is no good: the old one stays.
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(world.tls(Transport::Ssl).await.is_ok());
    std::fs::write(&chain, made.cert.pem()).unwrap();
    assert_ne!(std::fs::read(&chain).unwrap(), before);
    let mut fresh = false;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(20)).await;
        fresh = fresh || world.tls(Transport::Ssl).await.is_ok();
    }
    assert!(fresh);
    old.send(&version()).await;
    assert!(old.next().await.is_some());
}

#[tokio::test]
async fn another_server_is_looked_at_with_and_without_tls() {
    let world = World::new(|_| {}).await;
    for transport in [Transport::Tcp, Transport::Ssl] {
        let address = world.address(transport);
        let mut talk = look::Talk::open(address, transport.has_tls(), "a.example", "Test 2")
            .await
            .unwrap();
        assert_eq!(talk.features().await.unwrap()["server_version"], "Test 1");
        assert_eq!(talk.height().await.unwrap(), 1);
        assert_eq!(talk.header(3).await.unwrap(), [3; 80]);
        assert_eq!(talk.peers().await.unwrap(), json!([]));
        talk.add_us(&json!({})).await.unwrap();
    }
}

#[tokio::test]
async fn one_that_answers_nonsense_without_end_is_left() {
    for nonsense in ["x", "{\"method\":\"a\"}\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            while stream.write_all(nonsense.as_bytes()).await.is_ok() {}
        });
        let talk = look::Talk::open(address, false, "a.example", "Test 2").await;
        assert!(talk.is_err());
    }
}

#[tokio::test]
async fn one_network_has_its_share_of_places_and_pays_for_them() {
    let (data, _asked) = mpsc::channel(1);
    let (_info, about) = watch::channel(Arc::default());
    let options = Options {
        max_per_group: 2,
        max_sessions: 4,
        ..Options::default()
    };
    let hub = Hub::new(options, about, None, data, None);
    let admit = |address: &str| hub.admit(address.parse().unwrap(), Transport::Tcp);
    let (one, _notices) = admit("1.2.3.4:5").unwrap();
    let (_two, _more) = admit("1.2.3.99:5").unwrap();
    assert!(admit("1.2.3.4:6").is_err());
    assert!(admit("1.2.4.4:6").is_ok());
    assert!(admit("127.0.0.1:6").is_ok());
    assert!(admit("9.9.9.9:6").is_err());
    hub.charge(one.id, 50_000_000);
    hub.leave(&one);
    // There is room, but what it had cost is not forgotten.
    assert!(admit("1.2.3.4:7").is_err());
    let admin = Admin::new(Arc::new(hub));
    let counts = admin.counts();
    assert_eq!(
        (
            counts.refused_group,
            counts.refused_full,
            counts.refused_cost
        ),
        (1, 1, 1)
    );
    assert_eq!((counts.sessions, counts.groups), (3, 3));
    assert_eq!(
        admin
            .groups()
            .iter()
            .map(|group| group.sessions)
            .sum::<u32>(),
        3
    );
}

#[tokio::test]
async fn a_status_is_asked_for_again_when_the_data_was_busy() {
    let (data, mut asked) = mpsc::channel::<Asked>(1);
    let (_info, about) = watch::channel(Arc::default());
    let hub = Arc::new(Hub::new(Options::default(), about, None, data, None));
    let (guest, mut notices) = hub
        .admit("1.2.3.4:5".parse().unwrap(), Transport::Tcp)
        .unwrap();
    let script = ScriptHash::of(&[1]);
    let mut session = session::Session::new(guest.id, session::Limits::default(), hub.now());
    let subscribe = call(
        "blockchain.scripthash.subscribe",
        json!([script.to_string()]),
    );
    session.receive(subscribe.as_bytes(), hub.now());
    hub.advance(&mut session);
    let subject = subscriptions::Subject::Script(script);
    hub.answered(
        guest.id,
        subject,
        Some(&subscriptions::Status::Script(None)),
    );
    let (changes, feed) = mpsc::channel(1);
    tokio::spawn(feed::run(hub.clone(), feed));
    let change = Change {
        scripts: vec![script],
        ..Change::default()
    };
    changes.send(Arc::new(change)).await.unwrap();
    for answer in [
        Err(Refusal::Busy),
        Err(Refusal::Busy),
        Ok(Answer::Status(Some([4; 32]))),
    ] {
        let Asked { query, reply } = asked.recv().await.unwrap();
        assert_eq!(query, Query::Status(script));
        reply
            .send(Told {
                answer,
                looked_at: 1,
            })
            .unwrap();
    }
    let status = subscriptions::Status::Script(Some([4; 32]));
    assert_eq!(
        notices.recv().await,
        Some(session::Notice::Changed(subject, status))
    );
}
