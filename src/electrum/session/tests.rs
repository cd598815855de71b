use serde_json::json;

use super::*;
use crate::electrum::query::Place;
use crate::electrum::script_hash::ScriptHash;

const NOW: Time = Time::from_unix_seconds(1_000);

/// A session with all that it sees.
struct Room {
    session: Session,
    info: Info,
    tip: Option<Tip>,
    subscriptions: Subscriptions,
}

impl Room {
    fn new() -> Self {
        Self::with(Limits::default())
    }

    fn with(limits: Limits) -> Self {
        Self {
            session: Session::new(SessionId(1), limits, NOW),
            info: Info {
                software: "S 1".into(),
                ..Info::default()
            },
            tip: Some(Tip {
                height: 3,
                header: [3; 80],
            }),
            subscriptions: Subscriptions::new(2, 9),
        }
    }

    fn advance(&mut self) {
        let mut world = World {
            info: &self.info,
            tip: self.tip.as_ref(),
            subscriptions: &mut self.subscriptions,
        };
        self.session.advance(&mut world);
    }

    fn say(&mut self, message: &Value) -> Vec<Output> {
        self.session.receive(message.to_string().as_bytes(), NOW);
        self.advance();
        self.take()
    }

    fn take(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.session.poll()).collect()
    }

    /// The only frame that comes of a message.
    fn told(&mut self, message: &Value) -> Value {
        match self.say(message).as_slice() {
            [Output::Send(text)] => serde_json::from_slice(text).unwrap(),
            other => panic!("{message}: {other:?}"),
        }
    }

    fn version(&mut self, named: Value) -> Value {
        self.told(&call(0, "server.version", json!(["test", named])))
    }

    fn answer(&mut self, request: RequestId, answer: Answer) -> Option<(Subject, Option<Status>)> {
        let told = Told {
            answer: Ok(answer),
            looked_at: 1,
        };
        self.session.answered(request, &told)
    }
}

fn call(id: u64, method: &str, params: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

fn request(output: &Output) -> RequestId {
    match output {
        Output::Ask(request, _) => *request,
        other => panic!("{other:?}"),
    }
}

fn frames(outputs: &[Output]) -> Vec<Value> {
    outputs
        .iter()
        .filter_map(|output| match output {
            Output::Send(text) => Some(serde_json::from_slice(text).unwrap()),
            _ => None,
        })
        .collect()
}

#[test]
fn the_version_comes_once_and_first() {
    let mut room = Room::new();
    assert_eq!(
        room.version(json!(["1.4", "1.6"]))["result"],
        json!(["S 1", "1.6"])
    );
    assert_eq!(room.version(json!("1.4"))["error"]["code"], 1);
    assert_eq!(room.session.client(), "test");
    assert_eq!(room.session.version(), Some(Version::V1_6));

    // 1.4 may come late, 1.6 may not.
    let mut room = Room::new();
    assert_eq!(
        room.told(&call(1, "server.ping", json!([])))["result"],
        Value::Null
    );
    assert_eq!(room.version(json!("1.4"))["result"], json!(["S 1", "1.4"]));
    let mut room = Room::new();
    room.told(&call(1, "server.ping", json!([])));
    let said = room.say(&call(2, "server.version", json!(["test", ["1.4", "1.7"]])));
    assert_eq!(frames(&said)[0]["error"]["code"], 1);
    assert_eq!(said.last(), Some(&Output::Close(Close::Version)));

    let mut room = Room::new();
    let said = room.say(&json!([
        call(1, "server.version", json!(["test", "2.0"])),
        call(2, "server.ping", json!([])),
    ]));
    assert_eq!(frames(&said)[0][0]["error"]["code"], 1);
    assert_eq!(said.last(), Some(&Output::Close(Close::Version)));
    assert!(!room.session.wants_input());
    assert_eq!(room.say(&call(3, "server.ping", json!([]))), []);
}

#[test]
fn a_batch_is_answered_whole_and_in_its_order() {
    let mut room = Room::new();
    let said = room.say(&json!([
        call(1, "server.version", json!(["test", "1.6"])),
        {"jsonrpc": "2.0", "method": "server.ping"},
        call(2, "blockchain.block.header", json!([1])),
        5,
        call(3, "mempool.get_info", json!([])),
        {"id": 4, "result": 1},
        call(5, "no.such", json!([])),
    ]));
    let [one, two] = said.as_slice() else {
        panic!("{said:?}")
    };
    let info = Answer::MempoolInfo {
        mempool_min: 1,
        relay_min: 1,
        incremental: 1,
    };
    room.answer(request(two), info);
    assert_eq!(room.take(), []);
    // One call passes by.
    assert_eq!(room.told(&call(9, "server.ping", json!([])))["id"], 9);
    let header = Answer::Header {
        header: [1; 80],
        branch: None,
    };
    room.answer(request(one), header.clone());
    let all = frames(&room.take());
    let ids: Vec<_> = all[0]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["id"])
        .collect();
    assert_eq!(json!(ids), json!([1, 2, null, 3, 5]));
    // An answer twice is no second answer.
    room.answer(request(one), header);
    assert_eq!(room.take(), []);
    // Nothing but notifications: no answer.
    assert_eq!(
        room.say(&json!([{"jsonrpc": "2.0", "method": "server.ping"}])),
        []
    );
}

#[test]
fn so_many_questions_at_a_time() {
    let mut room = Room::with(Limits {
        concurrent: 2,
        ..Limits::default()
    });
    let calls: Vec<_> = (0..5)
        .map(|id| call(id, "blockchain.relayfee", json!([])))
        .collect();
    let said = room.say(&json!(calls));
    assert_eq!(said.len(), 2);
    assert!(!room.session.wants_input());
    let mut open = VecDeque::from(said);
    for _ in 0..5 {
        let next = request(&open.pop_front().unwrap());
        room.answer(next, Answer::EstimateFee(None));
        room.advance();
        open.extend(room.take());
    }
    assert_eq!(
        frames(open.make_contiguous())[0].as_array().unwrap().len(),
        5
    );
    assert!(room.session.wants_input());
}

#[test]
fn subscriptions_tell_what_changed() {
    let mut room = Room::new();
    room.version(json!("1.7"));
    let script = ScriptHash::of(&[0x51]);
    let said = room.say(&call(1, "blockchain.scriptpubkey.subscribe", json!(["51"])));
    let (subject, first) = room
        .answer(request(&said[0]), Answer::Status(None))
        .unwrap();
    assert_eq!(
        (subject, first),
        (Subject::Script(script), Some(Status::Script(None)))
    );
    assert_eq!(frames(&room.take())[0]["result"], Value::Null);
    let status = Status::Script(Some([7; 32]));
    room.session.notify(&Notice::Changed(subject, status));
    let expected = json!({
        "jsonrpc": "2.0", "method": "blockchain.scriptpubkey.subscribe",
        "params": [script.to_string(), "07".repeat(32)],
    });
    assert_eq!(frames(&room.take()), [expected]);

    let hash = "00".repeat(32);
    let said = room.say(&call(
        2,
        "blockchain.outpoint.subscribe",
        json!([hash, 1, "51"]),
    ));
    let unmade = Answer::Outpoint {
        funder: None,
        spender: None,
    };
    let (subject, _) = room.answer(request(&said[0]), unmade).unwrap();
    assert_eq!(frames(&room.take())[0]["result"], json!({}));
    let made = Status::Outpoint(Some(Place::Block(5)), None);
    room.session.notify(&Notice::Changed(subject, made));
    assert_eq!(
        frames(&room.take())[0]["params"],
        json!([hash, 1, {"funder_height": 5}])
    );

    // The bound of this room is two.
    let third = room.told(&call(3, "blockchain.scriptpubkey.subscribe", json!(["52"])));
    assert_eq!(third["error"]["code"], code::EXCESSIVE);
    for expected in [true, false] {
        let told = room.told(&call(
            4,
            "blockchain.scriptpubkey.unsubscribe",
            json!(["51"]),
        ));
        assert_eq!(told["result"], expected);
    }
    let tip = Tip {
        height: 4,
        header: [4; 80],
    };
    room.session.notify(&Notice::Tip(tip));
    assert_eq!(room.take(), []);
    let told = room.told(&call(5, "blockchain.headers.subscribe", json!([])));
    assert_eq!(told["result"], json!({"height": 3, "hex": "03".repeat(80)}));
    room.session.notify(&Notice::Tip(tip));
    assert_eq!(
        frames(&room.take())[0]["params"],
        json!([{"height": 4, "hex": "04".repeat(80)}])
    );
}

#[test]
fn what_the_server_knows_by_itself() {
    let mut room = Room::new();
    room.info.banner = "hello".into();
    for (method, expected) in [
        ("server.banner", json!("hello")),
        ("server.donation_address", json!("")),
        ("server.peers.subscribe", json!([])),
        ("server.ping", json!(null)),
    ] {
        assert_eq!(
            room.told(&call(1, method, json!([])))["result"],
            expected,
            "{method}"
        );
    }
    assert_eq!(
        room.told(&call(1, "server.add_peer", json!([{}])))["result"],
        false
    );
    assert_eq!(
        room.told(&call(1, "server.features", json!([])))["result"]["server_version"],
        "S 1"
    );
    room.tip = None;
    let told = room.told(&call(1, "blockchain.headers.subscribe", json!([])));
    assert_eq!(told["error"]["code"], code::UNAVAILABLE);
    let mut room = Room::new();
    room.version(json!("1.7"));
    assert_eq!(
        room.told(&call(1, "server.ping", json!([5, "abc"])))["result"],
        json!({"data": "00000"})
    );
    let told = room.told(&call(1, "server.ping", json!([90_000_000])));
    assert_eq!(told["error"]["code"], 1);
    let told = room.told(&call(1, "server.ping", json!([0, "xyz"])));
    assert_eq!(told["error"]["code"], 1);
}

#[test]
fn an_answer_is_bounded_and_costs() {
    let mut room = Room::with(Limits {
        response_bytes: 1_000,
        ..Limits::default()
    });
    let get = |id| call(id, "blockchain.transaction.get", json!(["00".repeat(32)]));
    let raw = |bytes: usize| Answer::Transaction(vec![0; bytes].into());
    let said = room.say(&get(1));
    room.answer(request(&said[0]), raw(600));
    assert_eq!(
        frames(&room.take())[0]["error"]["code"],
        code::INVALID_REQUEST
    );
    // A batch is bounded as a whole.
    let said = room.say(&json!([get(1), get(2)]));
    room.answer(request(&said[0]), raw(400));
    room.answer(request(&said[1]), raw(400));
    let all = frames(&room.take());
    assert_eq!(all[0][0]["result"], "00".repeat(400));
    assert_eq!(all[0][1]["error"]["code"], code::INVALID_REQUEST);
    assert!(room.session.take_cost() >= 3_000);
    assert_eq!(room.session.take_cost(), 0);
}

#[test]
fn silence_and_excess_end_it() {
    let mut room = Room::new();
    room.session.look_at_clock(NOW + Duration::from_secs(599));
    assert_eq!(room.take(), []);
    room.session.look_at_clock(room.session.deadline());
    assert_eq!(room.take(), [Output::Close(Close::Idle)]);
    let mut room = Room::new();
    room.session.close(Close::Excessive);
    room.session.close(Close::TooLong);
    let said = room.take();
    assert_eq!(frames(&said)[0]["error"]["code"], code::EXCESSIVE);
    assert_eq!(said.len(), 2);
}

#[test]
fn lengths_tell_little_from_1_7_on() {
    let length =
        |room: &mut Room, method: &str| match room.say(&call(1, method, json!([]))).as_slice() {
            [Output::Send(text)] => text.len(),
            other => panic!("{other:?}"),
        };
    let mut room = Room::new();
    assert!(length(&mut room, "server.ping") < 100);
    let mut room = Room::new();
    room.version(json!("1.7"));
    room.info.banner = "x".repeat(1_000);
    let lengths = ["server.banner", "server.ping"].map(|method| length(&mut room, method));
    // With its line's end.
    assert_eq!(lengths, [2_047, 1_023]);
}
