//! What is found in a datadir, and what is said of it.

use super::*;
use crate::config::Login;

struct Home(tempfile::TempDir);

impl Home {
    fn with(files: &[(&str, &str)]) -> Self {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = home.path().join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
        Self(home)
    }

    fn find(&self, spec: &str, network: Network) -> Found {
        find_below(&spec.parse().unwrap(), network, Some(self.0.path()))
    }

    fn cookie(&self, path: &str) -> Credentials {
        Credentials::Cookie(self.0.path().join(path))
    }
}

fn lines(found: &Found) -> Vec<String> {
    found.report.iter().map(ToString::to_string).collect()
}

#[test]
fn a_running_node_with_nothing_configured_is_found() {
    let home = Home::with(&[("regtest/.cookie", "__cookie__:00"), (".cookie", "x")]);
    let found = home.find("auto", Network::Regtest);
    let rpc = ("127.0.0.1:18443".to_owned(), home.cookie("regtest/.cookie"));
    assert_eq!(found.rpc, Some(rpc));
    assert_eq!(found.p2p.as_deref(), Some("127.0.0.1:18444"));
    assert!(found.zmq.is_empty());
    let lines = lines(&found);
    assert!(lines[0].starts_with("found RPC at 127.0.0.1:18443, by the cookie "));
    assert_eq!(lines[1], "will try P2P at 127.0.0.1:18444");
    assert!(
        lines[2].starts_with("lacks zmqpubrawblock: with a line like zmqpubrawblock=tcp://127")
    );
    assert!(lines[3].starts_with("lacks zmqpubsequence: "));
    let main = home.find("auto", Network::Main);
    assert_eq!(
        main.rpc,
        Some(("127.0.0.1:8332".into(), home.cookie(".cookie")))
    );
    let test = home.find("auto", Network::Testnet3);
    assert_eq!(
        test.rpc.as_ref().unwrap().1,
        home.cookie("testnet3/.cookie")
    );
    assert!(test.report[0].to_string().starts_with("lacks the cookie "));
}

#[test]
fn the_configuration_is_followed() {
    let conf = "rpcuser=u\nrpcpassword=p\nzmqpubrawblock=tcp://*:1000\nzmqpubsequence=tcp://[::]:1001\n\
        zmqpubhashtx=tcp://127.0.0.1:9\nzmqpubrawtx=ipc:///x\nincludeconf=more.conf\n\
        [regtest]\nrpcport=5\nbind=0.0.0.0:6\nzmqpubhashblock=tcp://10.0.0.1:1002\n";
    let home = Home::with(&[
        ("bitcoin.conf", conf),
        ("more.conf", "[signet]\nport=7\nrpcbind=[::1]:8\nnolisten=0"),
    ]);
    let found = home.find("auto", Network::Regtest);
    let login = Credentials::Login(Login {
        user: "u".into(),
        password: "p".into(),
    });
    assert_eq!(found.rpc, Some(("127.0.0.1:5".into(), login.clone())));
    assert_eq!(found.p2p.as_deref(), Some("127.0.0.1:6"));
    assert_eq!(
        found.zmq,
        ["127.0.0.1:1000", "10.0.0.1:1002", "127.0.0.1:1001"]
    );
    let told = lines(&found);
    assert_eq!(told[0], "will try RPC at 127.0.0.1:5, as user \"u\"");
    assert!(
        told[2].starts_with("lacks a usable address for rawtx: ipc:///x"),
        "{told:?}"
    );
    assert!(
        told[3].ends_with(": rawblock, hashblock, sequence"),
        "{told:?}"
    );
    assert_eq!(told.len(), 4);
    let signet = home.find("auto", Network::Signet);
    assert_eq!(signet.rpc, Some(("[::1]:8".into(), login)));
    assert_eq!(signet.p2p.as_deref(), Some("127.0.0.1:7"));
}

#[test]
fn what_was_said_has_precedence_and_off_is_off() {
    let conf =
        "rpcport=5\nport=6\nlisten=0\nrpccookiefile=c\nserver=0\nzmqpubrawtx=tcp://127.0.0.1:7";
    let home = Home::with(&[("bitcoin.conf", conf), ("c", "x:y")]);
    let found = home.find(
        "rpc=localhost:1,cookie=/c,p2p=[::1],zmq=tcp://h:2",
        Network::Main,
    );
    assert_eq!(
        found.rpc,
        Some(("localhost:1".into(), Credentials::Cookie("/c".into())))
    );
    assert_eq!(found.p2p.as_deref(), Some("[::1]:8333"));
    assert_eq!(found.zmq, ["h:2"]);
    let off = home.find("rpc=off,zmq=off", Network::Main);
    assert_eq!((off.rpc, off.p2p, off.zmq.len()), (None, None, 0));
    assert!(matches!(&off.report[..], [Finding::Lacks(line)] if line.contains("listen=1")));
    let auto = home.find("auto", Network::Main);
    assert_eq!(auto.rpc, Some(("127.0.0.1:5".into(), home.cookie("c"))));
    assert!(lines(&auto)[0].contains("server=0 stands in bitcoin.conf"));
}

#[test]
fn files_of_this_machine_are_not_for_a_node_on_another() {
    let home = Home::with(&[(".cookie", "secret"), ("bitcoin.conf", "port=5")]);
    let found = home.find("rpc=192.0.2.1", Network::Main);
    assert_eq!(found.rpc, None);
    assert!(
        lines(&found)[0].starts_with("lacks a login for the RPC at 192.0.2.1:8332; give cookie")
    );
    assert_eq!(found.p2p.as_deref(), Some("192.0.2.1:8333"));
    let found = home.find("rpc=192.0.2.1,user=u,password=p", Network::Main);
    assert!(found.rpc.is_some());
}

#[test]
fn a_node_that_was_spelled_out_takes_nothing_of_another() {
    let conf =
        "rpcport=5\nport=6\nzmqpubrawblock=tcp://127.0.0.1:7\nzmqpubsequence=tcp://127.0.0.1:7";
    let home = Home::with(&[("bitcoin.conf", conf), (".cookie", "secret")]);
    // The one of the datadir, by its port: all the rest is its own.
    for spec in [
        "rpc=127.0.0.1:5",
        "p2p=127.0.0.1:6",
        "rpc=localhost:5,p2p=127.0.0.1:6",
    ] {
        let own = home.find(spec, Network::Main);
        let (_, credentials) = own.rpc.expect("found");
        assert_eq!(credentials, home.cookie(".cookie"), "{spec}");
        assert_eq!(own.p2p.as_deref(), Some("127.0.0.1:6"), "{spec}");
        assert_eq!(own.zmq, ["127.0.0.1:7"], "{spec}");
    }
    // Another one on this machine.
    let other = home.find("rpc=127.0.0.1:9,user=u,password=p", Network::Main);
    let (address, credentials) = other.rpc.clone().expect("all of it was said");
    assert_eq!(address, "127.0.0.1:9");
    assert!(matches!(credentials, Credentials::Login(_)));
    assert_eq!((other.p2p.clone(), other.zmq.len()), (None, 0));
    assert!(lines(&other)[1].starts_with("lacks a P2P port"));
    assert!(lines(&other)[2].starts_with("lacks ZMQ publishers"));
    let cookie = home.find("rpc=127.0.0.1:9", Network::Main);
    assert_eq!(cookie.rpc, None);
    let by_p2p = home.find("p2p=127.0.0.1:9", Network::Main);
    assert_eq!((by_p2p.rpc, by_p2p.zmq.len()), (None, 0));
    assert_eq!(by_p2p.p2p.as_deref(), Some("127.0.0.1:9"));
    // Another machine's.
    for spec in ["rpc=192.0.2.1:5", "p2p=192.0.2.1:6"] {
        let far = home.find(spec, Network::Main);
        assert_eq!((far.rpc, far.zmq.len()), (None, 0), "{spec}");
        assert_ne!(far.p2p.as_deref(), Some("127.0.0.1:6"), "{spec}");
    }
    assert_eq!(home.find("rpc=192.0.2.1:5", Network::Main).p2p, None);
}

#[test]
fn an_absent_or_moved_datadir_is_named() {
    let home = Home::with(&[("bitcoin.conf", "datadir=/elsewhere")]);
    let moved = home.find("auto", Network::Signet).rpc.unwrap().1;
    assert_eq!(
        moved,
        Credentials::Cookie("/elsewhere/signet/.cookie".into())
    );
    let absent = find_below(
        &NodeSpec::default(),
        Network::Main,
        Some(Path::new("/no/where")),
    );
    assert_eq!(absent.rpc, None);
    assert!(lines(&absent)[0].starts_with("lacks bitcoind's datadir: /no/where is no folder"));
    let nowhere = find_below(&NodeSpec::default(), Network::Main, None);
    assert!(lines(&nowhere)[0].contains("a home directory"));
    assert!(usual_datadir().is_some_and(|path| path.is_absolute()));
    let folder = Home::with(&[("bitcoin.conf/x", "")]);
    assert!(
        lines(&folder.find("auto", Network::Main))[0].starts_with("lacks a readable configuration")
    );
}

#[test]
fn the_blocks_are_found_in_the_datadir_or_beside_the_cookie() {
    let home = Home::with(&[
        ("regtest/.cookie", "x"),
        ("regtest/blocks/blk00000.dat", ""),
    ]);
    let blocks = Some(home.0.path().join("regtest/blocks"));
    assert_eq!(home.find("auto", Network::Regtest).blocks, blocks);
    assert_eq!(home.find("auto", Network::Main).blocks, None);
    let cookie = home.0.path().join("regtest/.cookie");
    let spec = format!("rpc=127.0.0.1:1,cookie={}", cookie.display());
    let found = find_below(&spec.parse().unwrap(), Network::Regtest, None);
    assert_eq!((found.blocks, found.is_here), (blocks, true));
    let found = home.find("rpc=10.0.0.1:1,user=u,password=p", Network::Regtest);
    assert_eq!((found.blocks, found.is_here), (None, false));
}
