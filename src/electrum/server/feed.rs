//! From what changed to who is told: asks for the statuses that somebody wants, each once, some at a time.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, oneshot};

use super::super::query::{Change, Query, Refusal, Told};
use super::super::session::{question, status};
use super::super::subscriptions::{Status, Wanted};
use super::Asked;
use super::hub::Hub;

/// Statuses that are asked for at a time. Reason: enough to keep every thread of the data busy, and few beside what
/// clients ask for themselves.
const MAX_AT_A_TIME: usize = 64;

/// How often the data is asked again when it has too much to do. Reason: a client that is not told sees old coins; a
/// few seconds of load must not be the cause, a dead data side may.
const MAX_TRIES: usize = 10;

/// How long it waits in between.
const PAUSE: Duration = Duration::from_millis(500);

/// Runs until there are no more changes.
pub async fn run(hub: Arc<Hub>, mut changes: mpsc::Receiver<Arc<Change>>) {
    let mut waiting: VecDeque<Wanted> = VecDeque::new();
    let mut asked = FuturesUnordered::new();
    loop {
        while asked.len() < MAX_AT_A_TIME {
            let Some(wanted) = waiting.pop_front() else {
                break;
            };
            asked.push(learn(hub.clone(), wanted));
        }
        tokio::select! {
            Some((wanted, status)) = asked.next(), if !asked.is_empty() => {
                if hub.learned(wanted.subject(), status) {
                    waiting.push_back(wanted);
                }
            }
            change = changes.recv() => match change {
                Some(change) => waiting.extend(hub.changed(&change)),
                None => return,
            },
            () = hub.again.notified() => waiting.extend(hub.take_again()),
        }
    }
}

/// Asks for a status until the data has time.
async fn learn(hub: Arc<Hub>, wanted: Wanted) -> (Wanted, Option<Status>) {
    for _ in 0..MAX_TRIES {
        let told = ask(&hub, question(&wanted)).await;
        match told.answer {
            Ok(answer) => return (wanted, status(&answer)),
            Err(Refusal::Busy | Refusal::Unavailable(_)) => tokio::time::sleep(PAUSE).await,
            Err(_) => break,
        }
    }
    (wanted, None)
}

/// Asks the data, and waits for no longer than it may take.
pub async fn ask(hub: &Hub, query: Query) -> Told {
    let refuse = |refusal| Told {
        answer: Err(refusal),
        looked_at: 0,
    };
    let asking = async {
        let (reply, told) = oneshot::channel();
        match hub.data.send(Asked { query, reply }).await {
            Ok(()) => told.await.unwrap_or_else(|_| refuse(Refusal::Internal)),
            Err(_) => refuse(Refusal::Unavailable("the index has stopped".to_owned())),
        }
    };
    match tokio::time::timeout(hub.options.request_timeout, asking).await {
        Ok(told) => told,
        Err(_) => refuse(Refusal::Busy),
    }
}
