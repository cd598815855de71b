//! The client against a server that misbehaves in every way that one can.

use std::sync::Mutex;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::chain::Network;

/// A request as the server saw it.
struct Seen {
    /// Counted from 0, over all connections.
    number: usize,
    /// Of the first call, if it is a batch.
    id: u64,
    calls: u64,
    method: String,
    login: String,
}

/// What the server does.
enum Reply {
    /// Answers 200 with this body, under the same connection.
    Json(String),
    /// Writes these bytes and closes.
    Raw(Vec<u8>),
    /// Holds the connection and says nothing.
    Silence,
    /// Closes.
    Close,
    /// Answers 200 with this body, then closes.
    LastJson(String),
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

/// Serves on a port that the system picks, until the runtime ends.
async fn serve(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let script: Arc<Script> = Arc::new(script);
    let numbers = Arc::new(AtomicU64::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer_all(
                stream,
                Arc::clone(&script),
                Arc::clone(&numbers),
            ));
        }
    });
    address
}

async fn answer_all(stream: TcpStream, script: Arc<Script>, numbers: Arc<AtomicU64>) {
    let mut stream = BufReader::new(stream);
    loop {
        let Some(seen) = read_request(&mut stream, &numbers).await else {
            return;
        };
        let json = |body: String| {
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            )
        };
        match script(&seen) {
            Reply::Json(body) => {
                if stream.write_all(json(body).as_bytes()).await.is_err() {
                    return;
                }
            }
            Reply::LastJson(body) => {
                stream.write_all(json(body).as_bytes()).await.ok();
                return;
            }
            Reply::Raw(bytes) => {
                stream.write_all(&bytes).await.ok();
                return;
            }
            Reply::Silence => std::future::pending().await,
            Reply::Close => return,
        }
    }
}

async fn read_request(stream: &mut BufReader<TcpStream>, numbers: &AtomicU64) -> Option<Seen> {
    let (mut length, mut login) = (0, String::new());
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await.ok()? == 0 {
            return None;
        }
        let line = line.trim_end();
        if line.is_empty() {
            break;
        }
        let lower = line.to_ascii_lowercase();
        if let Some(value) = lower.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
        if lower.starts_with("authorization:") {
            login = line.split_once(' ').unwrap().1.to_owned();
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await.ok()?;
    let call: serde_json::Value = serde_json::from_slice(&body).unwrap();
    let calls = call.as_array().map_or(1, Vec::len) as u64;
    let call = call.get(0).unwrap_or(&call);
    Some(Seen {
        number: numbers.fetch_add(1, Ordering::Relaxed) as usize,
        id: call["id"].as_u64().unwrap(),
        calls,
        method: call["method"].as_str().unwrap().to_owned(),
        login,
    })
}

fn client(address: String) -> Rpc {
    let login = Login {
        user: "u".into(),
        password: "p".into(),
    };
    Rpc::new(address, Credentials::Login(login))
}

fn result(id: u64, result: &str) -> String {
    format!(r#"{{"result":{result},"error":null,"id":{id}}}"#)
}

const HASH: &str = "\"0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206\"";

#[tokio::test]
async fn connections_are_kept_and_closed_ones_replaced() {
    let rpc = client(
        serve(|seen| match seen.number {
            1 => Reply::LastJson(result(seen.id, HASH)),
            // Seen by the kept connection before it notices that it is closed.
            3 => Reply::Close,
            _ => Reply::Json(result(seen.id, HASH)),
        })
        .await,
    );
    for _ in 0..5 {
        let hash = rpc.best_block_hash().await.unwrap();
        assert_eq!(format!("\"{hash}\""), HASH);
    }
    let counts = rpc.counts();
    assert_eq!((counts.calls, counts.unreachable), (5, 0));
}

#[tokio::test]
async fn a_submission_is_never_made_twice() {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let log = Arc::clone(&seen);
    let address = serve(move |seen| {
        log.lock().unwrap().push(seen.method.clone());
        match seen.method.as_str() {
            "submitblock" => Reply::Close,
            _ => Reply::Json(result(seen.id, HASH)),
        }
    })
    .await;
    let rpc = client(address);
    rpc.best_block_hash().await.unwrap();
    let refused = rpc.submit_block(&[1, 2, 3]).await.unwrap_err();
    assert!(matches!(refused, RpcError::Unreachable { .. }), "{refused}");
    assert_eq!(*seen.lock().unwrap(), ["getbestblockhash", "submitblock"]);
}

#[tokio::test]
async fn garbage_is_refused_in_one_line() {
    for (reply, words) in [
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc",
            "makes no sense",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            "makes no sense",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n{\"result\":",
            "can't reach",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 9999999999\r\n\r\n",
            "larger than",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
            "makes no sense",
        ),
        (
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
            "can't reach",
        ),
        (
            "HTTP/1.1 302 Found\r\nLocation: http://a/\r\nContent-Length: 0\r\n\r\n",
            "status 302",
        ),
        (
            "HTTP/1.1 500 X\r\nContent-Length: 6\r\n\r\n<html>",
            "status 500",
        ),
        (
            "HTTP/1.1 503 X\r\nContent-Length: 1\r\n\r\nx",
            "rpcworkqueue",
        ),
        ("HTTP/1.1 403 X\r\nContent-Length: 0\r\n\r\n", "rpcallowip"),
        (
            "HTTP/1.1 401 X\r\nContent-Length: 0\r\n\r\n",
            "refuses the password of user \"u\"",
        ),
        ("SSH-2.0-OpenSSH_9.9\r\n", "makes no sense"),
        ("", "can't reach"),
    ] {
        let rpc = client(serve(move |_| Reply::Raw(reply.into())).await);
        let error = rpc.best_block_hash().await.unwrap_err().to_string();
        assert!(
            error.contains(words) && !error.contains('\n'),
            "{reply:?}: {error}"
        );
    }
    let rpc = client(serve(|seen| Reply::Json(result(seen.id + 1, HASH))).await);
    let error = rpc.best_block_hash().await.unwrap_err();
    assert_eq!(error, RpcError::Garbage("it answers another call".into()));
    assert_eq!(rpc.counts().garbage, 1);
    let closed = TcpListener::bind("127.0.0.1:0")
        .await
        .unwrap()
        .local_addr()
        .unwrap();
    let rpc = client(closed.to_string());
    let error = rpc.best_block_hash().await.unwrap_err().to_string();
    assert!(error.contains("Connection refused"), "{error}");
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let mut endless = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for _ in 0..64 {
        endless.extend_from_slice(b"10000\r\n");
        endless.resize(endless.len() + 0x10000, b' ');
        endless.extend_from_slice(b"\r\n");
    }
    let rpc = client(serve(move |_| Reply::Raw(endless.clone())).await);
    let error = rpc.best_block_hash().await.unwrap_err();
    assert!(matches!(error, RpcError::TooLarge(_)), "{error}");
}

#[tokio::test]
async fn silence_ends_with_the_time_and_blocks_no_other_call() {
    let rpc = client(
        serve(|seen| match seen.method.as_str() {
            "getbestblockhash" => Reply::Json(result(seen.id, HASH)),
            _ => Reply::Silence,
        })
        .await,
    );
    let waiting = {
        let rpc = rpc.clone();
        let tip = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash();
        tokio::spawn(async move { rpc.wait_for_new_block(MAX_WAIT, tip).await })
    };
    let bulky = {
        let rpc = rpc.clone();
        tokio::spawn(async move { rpc.raw_mempool_with_sequence().await })
    };
    rpc.best_block_hash().await.unwrap();
    let terms = Terms {
        lane: Lane::Prompt,
        time: Duration::from_millis(20),
        most_bytes: 10,
        repeatable: true,
    };
    let body = Bytes::from_static(br#"{"id":1,"method":"x"}"#);
    let late = rpc.exchange(terms, body, |_| Ok(())).await;
    assert_eq!(late, Err(RpcError::Timeout(0)));
    assert_eq!(rpc.counts().timeouts, 1);
    assert!(!waiting.is_finished() && !bulky.is_finished());
    waiting.abort();
    bulky.abort();
}

#[tokio::test]
async fn a_new_cookie_is_read_when_the_old_one_is_refused() {
    use base64::Engine as _;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(".cookie");
    let other = path.clone();
    let address = serve(move |seen| {
        let right = base64::prelude::BASE64_STANDARD.encode("__cookie__:new");
        if seen.login == format!("Basic {right}") {
            return Reply::Json(result(seen.id, HASH));
        }
        // The node writes its new cookie while the call with the old one is on its way.
        if seen.number == 0 {
            std::fs::write(&other, "__cookie__:new\n").unwrap();
        }
        Reply::Raw(b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n".to_vec())
    })
    .await;
    let rpc = Rpc::new(address, Credentials::Cookie(path.clone()));
    let error = rpc.best_block_hash().await.unwrap_err().to_string();
    assert!(error.starts_with("can't read bitcoind's cookie ") && error.contains("cookie=FILE"));
    std::fs::write(&path, "__cookie__:old").unwrap();
    rpc.best_block_hash().await.unwrap();
    std::fs::write(&path, "__cookie__:wrong").unwrap();
    // A kept connection stays as it is; a new one has the new cookie.
    let error = rpc.submit_block(&[]).await.unwrap_err();
    assert!(matches!(error, RpcError::Unauthorized { .. }), "{error}");
}

#[tokio::test]
async fn warming_up_and_pruned_are_told_apart_from_garbage() {
    let failing = |status: &'static str, code: i32, message: &'static str| {
        serve(move |seen| {
            let error = format!(r#"{{"code":{code},"message":"{message}"}}"#);
            let body = format!(r#"{{"result":null,"error":{error},"id":{}}}"#, seen.id);
            let head = format!(
                "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            Reply::Raw((head + &body).into_bytes())
        })
    };
    let genesis = bitcoin::constants::genesis_block(bitcoin::Network::Regtest).block_hash();
    let starting = client(failing("500 X", -28, "Loading").await);
    let error = starting.best_block_hash().await.unwrap_err();
    assert_eq!(error, RpcError::WarmingUp("Loading".into()));
    let pruned = client(failing("500 X", -1, "Block not available (pruned data)").await);
    assert_eq!(pruned.block(genesis).await, Ok(None));
    let unknown = client(failing("500 X", -5, "Block not found").await);
    assert_eq!(unknown.block_header(genesis).await, Ok(None));
    let other = client(failing("500 X", -1, "x").await);
    assert!(matches!(
        other.block(genesis).await,
        Err(RpcError::Node { code: -1, .. })
    ));
    let foreign = client(serve(|seen| Reply::Json(result(seen.id, HASH))).await);
    assert_eq!(foreign.check_network(Network::Regtest).await, Ok(()));
    let error = foreign
        .check_network(Network::Main)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("on another network") && error.contains("network main"),
        "{error}"
    );
}

#[tokio::test]
async fn a_batch_that_is_too_large_is_asked_for_in_halves() {
    let ids: Vec<bitcoin::Txid> = (0_u8..7)
        .map(|byte| format!("{byte:064x}").parse().unwrap())
        .collect();
    let rpc = client(
        serve(|seen| {
            // Each transaction is a third of what an answer may have, and a bit.
            let huge = "00".repeat(3 << 20);
            let answers: Vec<String> = (seen.id..seen.id + seen.calls)
                .map(|id| result(id, &format!("\"{huge}\"")))
                .collect();
            Reply::Json(format!("[{}]", answers.join(",")))
        })
        .await,
    );
    let bodies = rpc.raw_transactions(&ids).await.unwrap();
    assert_eq!(bodies.len(), 7);
    assert!(
        bodies
            .iter()
            .all(|body| body.as_ref().unwrap().len() == 3 << 20)
    );
}
