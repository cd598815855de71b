//! Bitcoin nodes that are none, or the wrong ones, beside a good one: each is named in one line, tried again later and
//! later, and in nobody's way.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::harness::{Bitcoind, executable};
use super::relay::{Relay, Ways};

/// A server that treats every connection with `serve`; when each came.
fn server(serve: impl Fn(TcpStream) + Clone + Send + 'static) -> (SocketAddr, Receiver<Instant>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("loopback has ports");
    let address = listener.local_addr().expect("it is bound");
    let (sender, times) = channel();
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if sender.send(Instant::now()).is_err() {
                return;
            }
            let serve = serve.clone();
            thread::spawn(move || serve(stream));
        }
    });
    (address, times)
}

/// Reads what was asked by HTTP, as far as it comes at once.
fn read_request(stream: &mut TcpStream) {
    let mut buffer = [0; 4_096];
    // What it says is of no interest here.
    let _ = stream.read(&mut buffer);
}

/// Says something that is no JSON.
fn garble(mut stream: TcpStream) {
    read_request(&mut stream);
    let body = "\u{7}it is 7 o'clock\r\n".repeat(20);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
    stream.write_all((head + &body).as_bytes()).ok();
}

/// Says more than any answer, as long as somebody listens.
fn flood(mut stream: TcpStream) {
    read_request(&mut stream);
    let head = "HTTP/1.1 200 OK\r\ncontent-length: 1000000000000\r\n\r\n";
    stream.write_all(head.as_bytes()).ok();
    while stream.write_all(&[b' '; 65_536]).is_ok() {}
}

/// Says bytes of no protocol.
fn babble(mut stream: TcpStream) {
    while stream.write_all(&[0xa5; 4_096]).is_ok() {}
}

/// Two nodes at the relay, the first with a fault that `spec` brings about; what the log says of it once, and what
/// state it has.
fn run(good: &Bitcoind, spec: &str, line: &str, state: &str) -> Relay {
    let relay = Relay::start(&[spec.to_owned(), Ways::ALL.to(good)], &[]);
    let logged = relay.log.wait(line);
    assert!(logged.contains("node=0"), "{logged}");
    relay.wait_until("getblockchaininfo", |info| {
        let nodes = &info["bitcoind"];
        nodes[0]["state"] == state && nodes[1]["live"] == true
    });
    // The good one is followed as if there were no other.
    let hash = *good.mine(2).last().expect("it was mined");
    relay.wait_for_tip(&hash.to_string());
    relay.log.wait(&format!("hash={hash}"));
    relay
}

/// Whoever is tried in vain is tried less and less often.
fn check_backoff(times: &Receiver<Instant>) {
    let patience = Duration::from_secs(60);
    let times: Vec<Instant> = (0..5)
        .map(|_| times.recv_timeout(patience).expect("it is tried again"))
        .collect();
    let gaps: Vec<Duration> = times.windows(2).map(|pair| pair[1] - pair[0]).collect();
    assert!(gaps[0] >= Duration::from_millis(180), "{gaps:?}");
    assert!(gaps[3] >= 3 * gaps[0], "{gaps:?}");
}

/// That the log has it once, however often it was tried.
fn check_once(relay: &Relay, line: &str) {
    let lines = relay.log.lines_with(line);
    assert_eq!(lines.len(), 1, "{lines:?}");
}

#[test]
fn rpc_that_answers_garbage_or_without_end() {
    let Some(executable) = executable() else {
        return;
    };
    let good = Bitcoind::start(&executable, &[]);
    type Fault = fn(TcpStream);
    let faults: [(Fault, &str); 2] = [(garble, "makes no sense"), (flood, "larger than")];
    for (fault, reason) in faults {
        let (address, times) = server(fault);
        let spec = format!("rpc={address},user=u,password=p,p2p=off,zmq=off");
        let line = "the Bitcoin node is refused";
        let relay = run(&good, &spec, line, "refused");
        assert!(relay.log.wait(line).contains(reason));
        check_backoff(&times);
        check_once(&relay, line);
    }
}

#[test]
fn zmq_and_p2p_that_are_of_another_protocol() {
    let Some(executable) = executable() else {
        return;
    };
    let good = Bitcoind::start(&executable, &[]);
    let (zmq, times) = server(babble);
    let spec = format!("rpc=off,p2p=off,zmq=tcp://{zmq}");
    let line = "no ZMQ notifications from the Bitcoin node";
    let relay = run(&good, &spec, line, "unreachable");
    check_backoff(&times);
    check_once(&relay, line);
    drop(relay);
    let (p2p, times) = server(babble);
    let spec = format!("rpc=off,p2p={p2p},zmq=off");
    let line = "the Bitcoin node is not reached by P2P";
    let relay = run(&good, &spec, line, "unreachable");
    check_backoff(&times);
    check_once(&relay, line);
}

#[test]
fn a_wrong_password_and_another_network() {
    let Some(executable) = executable() else {
        return;
    };
    let good = Bitcoind::start(&executable, &[]);
    let guarded = Bitcoind::start(&executable, &[]);
    let spec = format!(
        "rpc={},user=somebody,password=wrong,p2p=off,zmq=off",
        guarded.rpc_address()
    );
    let line = "the Bitcoin node is refused";
    let relay = run(&good, &spec, line, "refused");
    assert!(
        relay.nodes()[0]["reason"]
            .as_str()
            .is_some_and(|it| it.contains("somebody"))
    );
    drop(relay);
    let other = Bitcoind::start_on("testnet4", &executable, &["-connect=0"]);
    let line = "the Bitcoin node is wrong-network";
    let relay = run(&good, &Ways::ALL.to(&other), line, "wrong-network");
    check_once(&relay, line);
    let refused = relay.log.wait("the Bitcoin node is not reached by P2P");
    assert!(refused.contains("node=0"), "{refused}");
}
