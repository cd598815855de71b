//! `--bitcoind SPEC` and the `[[bitcoind]]` table.

use std::path::Path;

use proptest::prelude::*;

use super::*;

fn spec(text: &str) -> Result<NodeSpec, String> {
    text.parse().map_err(|error: ValueError| error.to_string())
}

#[test]
fn a_spec_says_as_much_as_it_likes() {
    let all = "rpc=127.0.0.1:1,cookie=/c,p2p=[::1]:2,zmq=tcp://127.0.0.1:3,zmq=tcp://b.example:4,datadir=/d";
    let read = spec(all).unwrap();
    assert_eq!(read.rpc, Way::At("127.0.0.1:1".parse().unwrap()));
    assert_eq!(read.p2p, Way::At("[::1]:2".parse().unwrap()));
    assert_eq!(read.cookie.as_deref(), Some(Path::new("/c")));
    assert_eq!(read.datadir.as_deref(), Some(Path::new("/d")));
    let Way::At(zmq) = &read.zmq else {
        panic!("no zmq")
    };
    let shown: Vec<String> = zmq.iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["tcp://127.0.0.1:3", "tcp://b.example:4"]);
    assert_eq!(zmq[1].host_port(), "b.example:4");
    assert_eq!(spec("auto").unwrap(), NodeSpec::default());
    let ways = spec("rpc=off,zmq=off").unwrap();
    assert_eq!(
        (ways.rpc, ways.zmq, ways.p2p),
        (Way::Off, Way::Off, Way::Find)
    );
    let login = spec("user=u,password=a=b").unwrap().login.unwrap();
    assert_eq!((&*login.user, &*login.password), ("u", "a=b"));
    assert!(!format!("{login:?}").contains("a=b"));
    let shown = |text: &str| spec(text).unwrap().to_string();
    assert_eq!(shown("rpc=h:1,p2p=g"), "h:1");
    assert_eq!(shown("p2p=g"), "g");
    assert_eq!(shown("datadir=/d,rpc=off"), "/d");
    assert_eq!(shown("zmq=tcp://h:1,rpc=off"), "tcp://h:1");
    assert_eq!(shown("user=u,password=secret"), "auto");
}

#[test]
fn a_spec_that_makes_no_sense_is_refused_with_advice() {
    let refused = |text: &str| spec(text).unwrap_err();
    assert!(refused("").contains("`` is no KEY=VALUE; use `auto` or some of rpc, cookie"));
    assert!(refused("rpc=a,").contains("is no KEY=VALUE"));
    assert!(refused("rcp=a").contains("`rcp` is no key of a node; use rpc"));
    assert!(refused("rpc=a,rpc=b").contains("`rpc` is given twice"));
    assert!(refused("rpc=").contains("`rpc` has no value that fits"));
    assert!(refused("rpc=a:b").contains("`rpc` is `a:b`; use HOST, HOST:PORT or off"));
    assert!(refused("p2p=a b").contains("`p2p` is `a b`; use"));
    assert!(refused("zmq=ipc:///x").contains("`ipc:///x` is no ZMQ address; use tcp://HOST:PORT"));
    assert!(refused("zmq=tcp://h").contains("no ZMQ address"));
    assert!(refused("zmq=off,zmq=tcp://h:1").contains("`off` is no ZMQ address"));
    assert!(refused("user=u").contains("`user` and `password` belong together"));
    assert!(refused("user=u:v,password=p").contains("no user of bitcoind has a colon"));
    assert!(refused("user=u,password=p,cookie=/c").contains("two ways to log in"));
    assert!(refused("rpc=off,p2p=off,zmq=off").contains("all off"));
    let many = "zmq=tcp://h:1,".repeat(9);
    assert!(refused(many.trim_end_matches(',')).contains("given 9 times"));
    assert!(refused(&format!("cookie={}", "x".repeat(5000))).contains("no value that fits"));
}

#[test]
fn tables_mean_what_the_flag_means() {
    let file = "network = 'regtest'\n\n[[bitcoind]]\nrpc = 'h:1'\nzmq = 'tcp://h:2'\n\n\
        [[bitcoind]]\nuser = 'u'\npassword = 'p,q'\nzmq = ['tcp://h:2', 'tcp://h:3']\n";
    let nodes = from_file(file).unwrap().bitcoind;
    assert_eq!(nodes[0], spec("rpc=h:1,zmq=tcp://h:2").unwrap());
    let mut second = spec("user=u,password=p,zmq=tcp://h:2,zmq=tcp://h:3").unwrap();
    second.login.as_mut().unwrap().password = "p,q".into();
    assert_eq!(nodes[1], second);
    assert!(refusal("[[bitcoind]]\nrcp = 'h:1'").contains("`rcp` is no key of a node"));
    assert!(refusal("[[bitcoind]]\nrpc = 1").contains("a string or a list of strings"));
    assert!(refusal("[[bitcoind]]\nrpc = ['a', 'b']").contains("`rpc` takes one value"));
    assert!(refusal("bitcoind = [1]").contains("a [[bitcoind]] table, or the text"));
    assert!(refusal("bitcoind = 'auto'").contains("give a list"));
    assert!(refusal("p2p-listen = 'on'").contains("`on` is no address to listen on"));
    let flags = Options {
        bitcoind: vec![spec("auto").unwrap()],
        ..Options::default()
    };
    let merged = flags.over(from_file("bitcoind = ['rpc=h', 'auto']").unwrap());
    let kept = Config::resolve(merged).unwrap().bitcoind;
    assert_eq!(kept, [spec("auto").unwrap(), spec("rpc=h").unwrap()]);
}

proptest! {
    #[test]
    fn no_text_makes_the_parser_panic_and_refusals_are_one_line(text in "\\PC{0,80}|[a-z0-9=,:/.\\n\\[\\]]{0,60}") {
        if let Err(line) = spec(&text) {
            prop_assert!(!line.contains('\n'), "{line:?}");
        }
    }

    #[test]
    fn pairs_in_any_order_mean_the_same(order in Just(vec![
        "rpc=a:1", "p2p=off", "zmq=tcp://h:2", "user=u", "password=p", "datadir=/d",
    ]).prop_shuffle(), keep in 1_usize..6) {
        let expected = spec("rpc=a:1,p2p=off,zmq=tcp://h:2,user=u,password=p,datadir=/d");
        prop_assert_eq!(spec(&order.join(",")), expected);
        let some = order[..keep].join(",");
        let halves = some.contains("user=") != some.contains("password=");
        prop_assert_eq!(spec(&some).is_err(), halves);
    }
}
