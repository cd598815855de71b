//! A node that is followed by RPC against one that answers as it likes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::chain::bitcoind::rpc::Credentials;
use crate::config::Login;

/// Answers each call over a connection with what `answer` makes of its method.
async fn serve(stream: TcpStream, answer: impl Fn(&str) -> Value) -> Option<()> {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.ok()? == 0 {
                return None;
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().ok()?;
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        let call: Value = serde_json::from_slice(&body).ok()?;
        let result = answer(call.get("method")?.as_str()?);
        let body = json!({ "result": result, "error": null, "id": call.get("id")? }).to_string();
        let head = format!(
            "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).await.ok()?;
        stream.write_all(body.as_bytes()).await.ok()?;
    }
}

#[tokio::test]
async fn a_node_that_does_not_wait_is_asked_less_and_less() {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap().to_string();
    let asked = Arc::new(AtomicUsize::new(0));
    let hash = Network::Regtest.genesis().block_hash();
    let counter = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = server.accept().await {
            let counter = Arc::clone(&counter);
            tokio::spawn(serve(stream, move |method| {
                assert_eq!(method, "waitfornewblock");
                counter.fetch_add(1, Ordering::Relaxed);
                json!({ "hash": hash.to_string(), "height": 0 })
            }));
        }
    });
    let login = Login {
        user: "u".to_owned(),
        password: "p".to_owned(),
    };
    let (reports, mut told) = mpsc::channel(4);
    let listener = Listener {
        node: 0,
        book: HeaderBook::new(Network::Regtest, None).unwrap(),
        clock: Clock::start(),
        reports,
        stop: Stop::default(),
    };
    let rpc = Rpc::new(address, Credentials::Login(login));
    let following = tokio::spawn(listener.follow(rpc, (hash, 0)));
    tokio::time::sleep(Duration::from_millis(1_600)).await;
    following.abort();
    assert!(matches!(told.try_recv(), Ok((0, NodeReport::Tip { .. }))));
    let asked = asked.load(Ordering::Relaxed);
    // At once, after 250, 500 and 1,000 ms.
    assert!((2..=3).contains(&asked), "{asked}");
    assert!(told.try_recv().is_err());
}
