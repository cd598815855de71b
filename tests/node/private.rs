//! Private links between processes: over QUIC alone, and closed to strangers.

use super::*;

/// What `getkey` says.
fn key(node: &Node) -> Value {
    let answer: Value = call(node, &["getkey"]);
    assert_eq!(answer["fingerprint"].as_str().unwrap().len(), 64);
    answer
}

/// The answer of a node of the main network, which `Node::call` does not ask.
fn call(node: &Node, arguments: &[&str]) -> Value {
    let output = program(&["cli", "--datadir", &node.folder])
        .args(arguments)
        .output()
        .unwrap();
    assert!(output.status.success(), "{output:?}");
    serde_json::from_slice(&output.stdout).unwrap()
}

fn stop(node: Node) {
    let stopped = program(&["cli", "--datadir", &node.folder, "stop"]).output();
    assert!(stopped.unwrap().status.success());
    let (code, log) = node.end();
    assert_eq!(code, Some(0), "{log}");
}

/// Starts a node that listens, only to learn its key: the file stays for the next start.
fn made_key(folder: &Path, main: &[&str]) -> String {
    let listen = ["--quic-listen", "127.0.0.1:0"];
    let node = Node::start_bare(folder, &[main, &listen].concat());
    let fingerprint = key(&node)["quic-allow"].as_str().unwrap().to_owned();
    stop(node);
    fingerprint
}

#[test]
fn a_block_crosses_a_private_link_and_a_stranger_is_refused() {
    let roots = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let bytes = bitcoin_test_data::blocks::mainnet_702861();
    let block: bitcoin::Block = bitcoin::consensus::deserialize(bytes).unwrap();
    let start = start_before(&block);
    let main = ["--trusted-start", start.as_str()];
    let allowed = made_key(roots[1].path(), &main);

    let mut more = main.to_vec();
    more.extend(["--quic-listen", "127.0.0.1:0", "--quic-allow", &allowed]);
    let mut first = Node::start_bare(roots[0].path(), &more);
    let peer = key(&first)["quic-peer"].as_str().unwrap().to_owned();
    let mut more = main.to_vec();
    more.extend(["--quic-peer", &peer]);
    let mut second = Node::start_bare(roots[1].path(), &more);
    let session = second.event("session");
    assert!(
        peer.ends_with(session["addr"].as_str().unwrap()),
        "{session}"
    );
    assert_eq!(session["private"], true, "{session}");
    assert_eq!(first.event("session")["private"], true);
    assert_eq!(first.event("path")["udp"], true);
    assert_eq!(second.event("path")["udp"], true);

    // A stranger knows where it is, and its key; nobody knows the stranger's.
    let mut more = main.to_vec();
    more.extend(["--quic-peer", &peer, "--log", "info"]);
    let stranger = Node::start_bare(roots[2].path(), &more);
    let private = || call(&first, &["getnetworkinfo"])["private"].clone();
    while private()["refused_keys"] == 0 {}
    assert_eq!(private()["last_refused_key"], key(&stranger)["fingerprint"]);
    assert_eq!(call(&stranger, &["getpeerinfo"]), serde_json::json!([]));
    let failure = || call(&stranger, &["getnetworkinfo"])["addednode_failures"][&peer].clone();
    while failure() == Value::Null {}
    assert!(
        failure()
            .as_str()
            .is_none_or(|why| why.contains("refuses this node's key"))
    );
    assert_eq!(private()["accepted"], 1);

    let mut submit = program(&["cli", "--datadir", &first.folder, "submitblock", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut stdin = submit.stdin.take().unwrap();
    stdin.write_all(hex.as_bytes()).unwrap();
    drop(stdin);
    assert!(submit.wait_with_output().unwrap().status.success());
    let hash = block.block_hash().to_string();
    assert_eq!(second.event("complete")["job"], hash.as_str());
    let get = program(&["cli", "--datadir", &second.folder, "getblock", &hash, "0"]).output();
    assert!(text(&get.unwrap().stdout) == hex, "the same bytes");

    let peers = call(&first, &["getpeerinfo"]);
    assert_eq!(peers.as_array().unwrap().len(), 1, "{peers}");
    assert_eq!(peers[0]["transport"], "quic");
    assert_eq!(peers[0]["connection_type"], "private");
    assert_eq!(peers[0]["key"], allowed.as_str());
    assert_eq!(peers[0]["network"], "ipv4");
    let (info, udp) = (private(), &call(&first, &["getnetworkinfo"])["udp"]);
    assert!(info["datagramssent"].as_u64().unwrap() > 1_000, "{info}");
    assert_eq!(
        udp["send_calls"], 0,
        "nothing goes over the ordinary socket"
    );
    stop(second);
    stop(first);
    let log = {
        let done = program(&["cli", "--datadir", &stranger.folder, "stop"]).output();
        assert!(done.unwrap().status.success());
        stranger.end().1
    };
    assert!(log.contains("it refuses this node's key"), "{log}");
}

#[test]
fn without_private_links_there_is_no_key() {
    let root = tempfile::tempdir().unwrap();
    let node = Node::start(root.path(), &[]);
    let refused = node.cli(&["getkey"]);
    assert!(
        text(&refused.stderr).contains("set quic-listen"),
        "{refused:?}"
    );
    assert!(!root.path().join("regtest/quic.key").exists());
    let line = refusal(2, root.path(), &["--quic-allow", &"0f".repeat(32)]);
    assert!(line.contains("`quic-listen` is not set; set it"), "{line}");
}
