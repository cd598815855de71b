//! A client of the Electrum server fed with lines of anything, before a data side that tells something of the right kind.

use std::time::Duration;

use bytes::Bytes;

use crate::electrum::jsonrpc::{self, Item, Message};
use crate::electrum::protocol::info::Info;
use crate::electrum::query::{
    Answer, HistoryItem, PackageAnswer, Place, Query, Refusal, Tip, Told,
};
use crate::electrum::session::{Limits, Notice, Output, RequestId, Session, World};
use crate::electrum::subscriptions::{SessionId, Subscriptions};
use crate::time::Time;

const ID: SessionId = SessionId(1);
const TIP: Tip = Tip {
    height: 7,
    header: [7; 80],
};

/// Each line is a message. What it asks for is answered with something, the last first.
///
/// # Panics
/// If a frame is no JSON, or an answer is lost or doubled.
pub fn electrum(data: &[u8]) {
    let limits = Limits {
        concurrent: 3,
        ..Limits::default()
    };
    let mut now = Time::from_unix_seconds(1_700_000_000);
    let mut session = Session::new(ID, limits.clone(), now);
    let mut subscriptions = Subscriptions::new(4, 4);
    let info = Info::default();
    let (mut expected, mut told, mut closed) = (0, 0, false);
    for line in data.split(|byte| *byte == b'\n') {
        now = now + Duration::from_secs(1);
        expected += answers(line, &limits.message);
        session.receive(line, now);
        loop {
            let mut world = World {
                info: &info,
                tip: Some(&TIP),
                subscriptions: &mut subscriptions,
            };
            session.advance(&mut world);
            let mut asked = Vec::new();
            while let Some(output) = session.poll() {
                match output {
                    Output::Ask(request, query) => asked.push((request, query)),
                    Output::Send(frame) => told += frames(&frame),
                    Output::AddPeer(_) => {}
                    Output::Close(_) => closed = true,
                }
            }
            if asked.is_empty() {
                break;
            }
            assert!(asked.len() <= limits.concurrent);
            for (request, query) in asked.into_iter().rev() {
                answer(&mut session, &mut subscriptions, request, &query);
            }
        }
        assert!(closed || session.wants_input());
        session.notify(&Notice::Tip(TIP));
        while let Some(output) = session.poll() {
            // A notice is no answer.
            assert!(matches!(output, Output::Send(frame) if frames(&frame) == 0));
        }
    }
    assert!(closed || told == expected, "{told} answers, not {expected}");
}

/// How many answers a message has to have.
fn answers(line: &[u8], limits: &jsonrpc::Limits) -> usize {
    let of = |item: &Item| match item {
        Item::Call(call) => usize::from(call.id.is_some()),
        Item::Wrong(..) => 1,
        Item::Answer => 0,
    };
    match jsonrpc::parse(line, limits) {
        Err(_) => 1,
        Ok(Message::Single(item)) => of(&item),
        Ok(Message::Batch(items)) => items.iter().map(of).sum(),
    }
}

/// How many answers a frame has.
fn frames(frame: &[u8]) -> usize {
    assert!(!frame.contains(&b'\n'), "a frame is one line");
    let value: serde_json::Value = serde_json::from_slice(frame).expect("a frame is JSON");
    let of = |value: &serde_json::Value| usize::from(value.get("method").is_none());
    match &value {
        serde_json::Value::Array(values) => values.iter().map(of).sum(),
        value => of(value),
    }
}

fn answer(
    session: &mut Session,
    subscriptions: &mut Subscriptions,
    request: RequestId,
    query: &Query,
) {
    let told = Told {
        answer: something(query),
        looked_at: 3,
    };
    if let Some((subject, status)) = session.answered(request, &told) {
        match status {
            Some(status) => assert_eq!(subscriptions.answered(ID, subject, &status), None),
            None => {
                subscriptions.unsubscribe(ID, subject);
            }
        }
    }
}

fn something(query: &Query) -> Result<Answer, Refusal> {
    let item = |txid| HistoryItem {
        txid,
        place: Place::Block(5),
        fee: None,
    };
    Ok(match query {
        Query::Header { height, .. } if height % 2 == 1 => {
            return Err(Refusal::Bad("no such block".to_owned()));
        }
        Query::Header { .. } => Answer::Header {
            header: [1; 80],
            branch: None,
        },
        Query::Headers { count, .. } => Answer::Headers {
            headers: Bytes::from(vec![1; 80 * (*count as usize).min(3)]),
            branch: None,
        },
        Query::History(_) | Query::Mempool(_) => Answer::History(vec![item([3; 32])]),
        Query::Unspent(_) => return Err(Refusal::HistoryTooLarge),
        Query::Balance(_) => Answer::Balance {
            confirmed: 1,
            unconfirmed: -1,
        },
        Query::Status(_) => Answer::Status(Some([9; 32])),
        Query::Outpoint { .. } => Answer::Outpoint {
            funder: None,
            spender: None,
        },
        Query::Broadcast(_) => {
            return Err(Refusal::Node {
                code: -25,
                message: "no \"good\"\n".to_owned(),
            });
        }
        Query::BroadcastPackage(_) => Answer::Package(PackageAnswer {
            success: false,
            errors: vec![([1; 32], "bad\n".to_owned())],
            verbose: serde_json::Value::Null,
        }),
        Query::EstimateFee { blocks, .. } => Answer::EstimateFee(Some(u64::from(*blocks))),
        Query::FeeHistogram => Answer::FeeHistogram(vec![(f64::NAN, 1), (1e-9, 2)]),
        _ => return Err(Refusal::Internal),
    })
}
