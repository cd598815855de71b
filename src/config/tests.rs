//! What each option takes and refuses, and in which words.

use super::*;

fn from_file(text: &str) -> Result<Options, ConfigError> {
    Options::from_toml("node.toml", text)
}

/// The one line that is shown for the file `text`.
fn refusal(text: &str) -> String {
    let refused = match from_file(text) {
        Ok(options) => Config::resolve(options).expect_err("must be refused"),
        Err(error) => error,
    };
    let line = refused.to_string();
    assert!(!line.contains('\n'), "more than a line: {line}");
    line
}

#[test]
fn nothing_said_gives_the_defaults() {
    let config = Config::resolve(Options::default()).unwrap();
    assert_eq!(config.network, NetworkName::Main);
    assert_eq!(config.max_mempool_bytes, 300_000_000);
    assert_eq!(config.store_bytes, 1_000_000_000);
    assert_eq!(
        (config.max_peers, config.push_level, config.preference),
        (64, 3, 128)
    );
    assert_eq!(config.log, "info");
    assert_eq!(config.control_listen, None);
    assert_eq!(config.max_up_kbit, None);
    assert!(config.connect.is_empty() && config.rpc_login.is_none());
    assert!(config.bitcoind.is_empty() && config.p2p_listen.is_none());
    assert_eq!(config.service_bit, 30);
    let find = config.find;
    assert!(find.is_on && find.dns_seed && find.fixed_seeds && !find.private_addresses);
    assert_eq!((find.outbound_relays, find.outbound_nodes), (8, 2));
    assert!(find.seed_nodes.is_empty() && find.external_ips.is_empty());
}

#[test]
fn how_peers_are_found_is_said_by_switches_and_lists() {
    let text = r#"
        find-peers = true
        dns-seed = "off"
        fixed-seeds = false
        private-addresses = "on"
        seed-node = ["seed.example", "203.0.113.5:9000"]
        external-ip = ["203.0.113.6", "[2001:db8::1]", "::ffff:203.0.113.6"]
        outbound-relays = 60
        outbound-nodes = 0
        max-peers = 30
    "#;
    let find = Config::resolve(from_file(text).unwrap()).unwrap().find;
    assert!(find.is_on && !find.dns_seed && !find.fixed_seeds && find.private_addresses);
    assert_eq!(find.seed_nodes.len(), 2);
    let ips: Vec<String> = find.external_ips.iter().map(ToString::to_string).collect();
    assert_eq!(ips, ["203.0.113.6", "2001:db8::1"]);
    assert_eq!((find.outbound_relays, find.outbound_nodes), (15, 0));
    let regtest = from_file("network = \"regtest\"").unwrap();
    let find = Config::resolve(regtest).unwrap().find;
    assert!(find.is_on && !find.dns_seed && !find.fixed_seeds && find.private_addresses);
    assert!(refusal("find-peers = \"perhaps\"").contains("is neither on nor off"));
    assert!(refusal("find-peers = 7").contains("give \"on\" or \"off\""));
    assert!(refusal("external-ip = [\"0.0.0.0\"]").contains("use an IP address"));
    assert!(refusal("external-ip = [\"1.2.3.4:5\"]").contains("without a port"));
    assert!(refusal("outbound-nodes = 65").contains("outbound-nodes"));
}

#[test]
fn a_file_may_say_everything() {
    let text = r#"
        datadir = "/tmp/bt"
        network = "signet"
        control-listen = "0.0.0.0:1000"
        data-listen = "0.0.0.0:1001"
        rpc-listen = "127.0.0.1:1002"
        p2p-listen = "off"
        find-peers = "on"
        dns-seed = "off"
        fixed-seeds = "off"
        seed-node = ["seed.example"]
        external-ip = ["203.0.113.6"]
        outbound-relays = 3
        outbound-nodes = 1
        private-addresses = "off"
        bitcoind = ["rpc=b.example,user=u,password=p", "auto"]
        service-bit = 24
        electrum-listen = ["tcp://127.0.0.1:50001", "wss://[::1]:50004"]
        electrum-cache-mb = 100
        electrum-cert = "/etc/ssl/electrum.pem"
        electrum-key = "/etc/ssl/electrum.key"
        electrum-banner = "/tmp/banner"
        electrum-host = ["electrum.example"]
        electrum-peer = ["other.example", "203.0.113.5:50012"]
        electrum-peers = "on"
        electrum-max-sessions = 100
        electrum-cost-soft = 0
        electrum-cost-hard = 0
        electrum-donation = "bc1q"
        connect = ["203.0.113.5:9000", "relay.example", "[2001:db8::1]:9000", "2001:db8::2"]
        quic-listen = "0.0.0.0:8436"
        quic-peer = ["0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f0f@relay.example:8436"]
        quic-allow = ["1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f1f"]
        rpc-user = "alice"
        rpc-password = "secret"
        trusted-start = "702860,00000000000000000003a6b1e44f1a3e02ce82c1a5f1d5ea0fbd24c9c5cc0e5a,170e0408,1632234876"
        max-mempool-mb = 50
        store-mb = 100
        max-peers = 8
        reserved-outbound = 2
        max-per-group = 3
        push-level = 1
        max-up-mbit = 20
        max-down-mbit = 50
        uacomment = "alice"
        role = "miner"
        preference = 10
        log = "debug"
        log-format = "json"
    "#;
    let options = from_file(text).unwrap();
    let keys = Options::keys();
    for key in &keys {
        assert!(text.contains(&format!("{key} =")), "{key} not tried");
    }
    assert_eq!(keys.len(), text.matches(" = ").count());
    let config = Config::resolve(options).unwrap();
    assert_eq!(config.network, NetworkName::Signet);
    assert_eq!(config.max_up_kbit, Some(20_000));
    assert_eq!(config.rpc_login, Some(("alice".into(), "secret".into())));
    assert_eq!(config.role.code(), 1);
    for code in 0..4 {
        let role = Role::from_code(code).unwrap();
        assert_eq!((role.code(), role.as_str().parse()), (code, Ok(role)));
    }
    assert_eq!(Role::from_code(4), None);
    assert_eq!(config.p2p_listen, Some(ListenOrOff::Off));
    assert_eq!(config.service_bit, 24);
    let nodes: Vec<String> = config.bitcoind.iter().map(ToString::to_string).collect();
    assert_eq!(nodes, ["b.example", "auto"]);
    assert_eq!(config.log_format, LogFormat::Json);
    assert_eq!(config.private.allowed.len(), 2);
    assert_eq!(config.private.peers[0].target, "relay.example:8436");
    let shown: Vec<String> = config.connect.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "203.0.113.5:9000",
            "relay.example",
            "[2001:db8::1]:9000",
            "2001:db8::2"
        ]
    );
    let start = config.trusted_start.unwrap();
    assert_eq!((start.height, start.bits), (702_860, 0x170e_0408));
    assert_eq!(start.hash[31], 0);
    assert_eq!(start.hash[0], 0x5a);
    assert_eq!(start.epoch_start_time, Some(1_632_234_876));
}

#[test]
fn an_unknown_key_is_refused_with_its_line() {
    assert_eq!(
        refusal("network = \"main\"\n\ncontol-listen = \"0.0.0.0:1\"\n"),
        "node.toml, line 3: no option is called `contol-listen`; did you mean `control-listen`?"
    );
    assert_eq!(
        refusal("store_mb = 3"),
        "node.toml, line 1: no option is called `store_mb`; did you mean `store-mb`?"
    );
    assert_eq!(
        refusal("# a\n[wallet]\nx = 1"),
        "node.toml, line 2: no option is called `wallet`; `blocktorrent node --print-config` lists them all"
    );
    // Test options are flags only, and a file names no further file.
    assert!(refusal("test-lie = true").contains("`test-lie`"));
    assert!(refusal("config = \"x\"").contains("`config`"));
}

#[test]
fn a_value_of_the_wrong_type_is_refused_with_its_line_and_key() {
    assert_eq!(
        refusal("\nmax-peers = \"many\""),
        "node.toml, line 2: max-peers: give a whole number, 0 or more, without quotes"
    );
    assert_eq!(
        refusal("network = \"moon\""),
        "node.toml, line 1: network: `moon` is no network; use main, test, testnet4, signet or regtest"
    );
    assert!(
        refusal("preference = 256")
            .contains("line 1: preference: give a whole number from 0 to 255")
    );
    assert!(refusal("push-level = -1").contains("push-level"));
    assert!(refusal("connect = \"a\"").contains("connect: give a list"));
    assert!(
        refusal("control-listen = \"8433\"").contains("`8433` is no address to listen on; use IP")
    );
    assert!(refusal("connect = [\"a:b:c\"]").contains("`a:b:c` is no peer; use HOST"));
    assert!(refusal("role = \"boss\"").contains("`boss` is no role; use relay"));
    assert!(refusal("log-format = \"xml\"").contains("`xml` is no log format; use full"));
}

#[test]
fn text_that_is_no_toml_is_refused_with_its_line() {
    assert!(refusal("network = \"main\"\nnetwork =").starts_with("node.toml, line 2: "));
    assert!(refusal("a b c").starts_with("node.toml, line 1: "));
    assert!(refusal("max-peers = 1\nmax-peers = 2").starts_with("node.toml, line 2: "));
    assert!(refusal("\"\u{1}\\u0001\\n\" = 2").starts_with("node.toml, line 1: "));
}

#[test]
fn numbers_have_bounds() {
    assert_eq!(
        refusal("push-level = 4"),
        "`push-level` is 4; give a number from 0 to 3"
    );
    assert_eq!(
        refusal("max-peers = 0"),
        "`max-peers` is 0; give a number from 1 to 1024"
    );
    assert_eq!(
        refusal("store-mb = 3"),
        "`store-mb` is 3; give a number from 4 to 100000"
    );
    assert_eq!(
        refusal("max-mempool-mb = 0"),
        "`max-mempool-mb` is 0; give a number from 1 to 16384"
    );
    assert_eq!(
        refusal("service-bit = 23"),
        "`service-bit` is 23; give a number from 24 to 31"
    );
    assert_eq!(
        refusal(&format!(
            "bitcoind = [{}]",
            (0..9)
                .map(|port| format!("\"rpc=a:{}\",", port + 1))
                .collect::<String>()
        )),
        "`bitcoind` is 9; give a number from 0 to 8"
    );
    assert_eq!(
        refusal("max-up-mbit = 0"),
        "`max-up-mbit` is 0; give a number from 1 to 100000"
    );
    assert_eq!(
        refusal("max-down-mbit = 100001"),
        "`max-down-mbit` is 100001; give a number from 1 to 100000"
    );
}

#[test]
fn rpc_stays_on_loopback_and_its_login_is_whole() {
    assert!(
        refusal("rpc-listen = \"0.0.0.0:8000\"").starts_with(
            "`rpc-listen` is 0.0.0.0:8000, not a loopback address; use 127.0.0.1:PORT"
        )
    );
    assert!(from_file("rpc-listen = \"[::1]:0\"").is_ok());
    assert_eq!(
        refusal("rpc-user = \"a\""),
        "`rpc-user` is set and `rpc-password` is not; set both, or neither and use the cookie file"
    );
    assert_eq!(
        refusal("rpc-password = \"a\""),
        "`rpc-password` is set and `rpc-user` is not; set both, or neither and use the cookie file"
    );
    assert!(
        refusal("rpc-user = \"a:b\"\nrpc-password = \"c\"").contains("not empty and has no colon")
    );
    assert!(
        refusal("rpc-user = \"a\"\nrpc-password = \"\"").contains("`rpc-password` is empty; give")
    );
}

#[test]
fn a_trusted_start_says_which_field_is_wrong() {
    let hash = "01".repeat(32);
    let refused = |text: &str| text.parse::<TrustedStart>().unwrap_err().to_string();
    assert!(refused("x").contains("the height is no number; use HEIGHT,HASH"));
    assert!(refused("1,22").contains("the hash is not 64 hex digits"));
    assert!(refused(&format!("1,{}", "00".repeat(32))).contains("a hash of zeros alone"));
    assert!(refused(&format!("1,{hash}")).contains("the bits are not 8 hex digits"));
    assert!(refused(&format!("1,{hash},0x1d00ffff")).contains("the bits are not"));
    assert!(
        refused(&format!("1,{hash},1d00ffff,soon")).contains("the epoch's start is no Unix time")
    );
    assert!(refused(&format!("1,{hash},1d00ffff,1,x")).contains("the time is no Unix time"));
    assert!(refused(&format!("1,{hash},1d00ffff,1,1,1")).contains("more than five fields"));
    assert_eq!(
        format!("1,{hash},1d00ffff")
            .parse::<TrustedStart>()
            .unwrap()
            .epoch_start_time,
        None
    );
}

#[test]
fn peers_are_hosts_with_or_without_port() {
    for good in [
        "1.2.3.4",
        "1.2.3.4:5",
        "::1",
        "[::1]",
        "[::1]:5",
        "a.example",
        "A.example:5",
        "localhost",
    ] {
        assert!(good.parse::<PeerAddress>().is_ok(), "{good}");
    }
    for bad in [
        "",
        ":5",
        "a:",
        "a:0",
        "a:65536",
        "a b",
        "1.2.3:5",
        "1.2.3.4:0",
        "[::1",
        "a/b",
        "ü",
    ] {
        assert!(bad.parse::<PeerAddress>().is_err(), "{bad}");
    }
    let same = from_file("connect = [\"a.example:5\", \"A.EXAMPLE:5\"]").unwrap();
    assert_eq!(Config::resolve(same).unwrap().connect.len(), 1);
}

#[test]
fn a_value_of_another_kind_is_met_with_what_to_write() {
    for (text, says) in [
        (
            "connect = \"host:1\"",
            "connect: give a list, as in [\"...\"]",
        ),
        (
            "max-peers = \"x\"",
            "max-peers: give a whole number, 0 or more, without quotes",
        ),
        (
            "max-peers = -1",
            "max-peers: give a whole number, 0 or more, without quotes",
        ),
        (
            "preference = 1.5",
            "preference: give a whole number from 0 to 255, without quotes",
        ),
        ("datadir = 5", "datadir: give text in quotes"),
        ("log = 5", "log: give text in quotes"),
    ] {
        assert_eq!(refusal(text), format!("node.toml, line 1: {says}"));
    }
}

#[test]
fn flags_lie_over_the_file_and_lists_add_up() {
    let flags = Options {
        network: Some(NetworkName::Regtest),
        connect: vec!["b".parse().unwrap()],
        ..Options::default()
    };
    let file = from_file("network = \"main\"\nmax-peers = 3\nconnect = [\"a\", \"b\"]").unwrap();
    let merged = Config::resolve(flags.over(file)).unwrap();
    assert_eq!(merged.network, NetworkName::Regtest);
    assert_eq!(merged.max_peers, 3);
    let shown: Vec<String> = merged.connect.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["b", "a"]);
}

#[test]
fn emulation_makes_sense_or_is_refused() {
    let refused = |test| {
        let options = Options {
            test,
            ..Options::default()
        };
        Config::resolve(options).unwrap_err().to_string()
    };
    assert_eq!(
        refused(TestOptions {
            emulate_loss: Some(101.0),
            ..TestOptions::default()
        }),
        "`emulate-loss` makes no sense; give a percentage from 0 to 100"
    );
    assert!(
        refused(TestOptions {
            emulate_delay_ms: Some(f64::NAN),
            ..TestOptions::default()
        })
        .contains("`emulate-delay-ms`")
    );
    assert!(
        refused(TestOptions {
            emulate_rate_mbit: Some(0.0),
            ..TestOptions::default()
        })
        .contains("`emulate-rate-mbit`")
    );
}

mod bitcoind;

#[test]
fn what_cannot_be_kept_is_refused() {
    let more_than_all = Options {
        max_peers: Some(4),
        reserved_outbound: Some(5),
        ..Options::default()
    };
    let refused = Config::resolve(more_than_all).expect_err("there are four");
    assert!(refused.to_string().contains("reserved-outbound"));
    let few = Options {
        max_peers: Some(4),
        ..Options::default()
    };
    assert_eq!(Config::resolve(few).expect("sensible").reserved_outbound, 4);
    let nowhere = Options {
        datadir: Some("".into()),
        ..Options::default()
    };
    let refused = Config::resolve(nowhere).expect_err("no folder");
    assert!(refused.to_string().contains("`datadir` is empty"));
}
