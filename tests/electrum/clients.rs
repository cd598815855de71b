//! `electrum-client`, and what is waited for with it.

use std::time::{Duration, Instant};

use bitcoin::{BlockHash, Script, Txid};
use electrum_client::raw_client::{ElectrumPlaintextStream, RawClient};
use electrum_client::{ElectrumApi as _, HeaderNotification, ScriptStatus};

use super::server::Server;
use crate::harness::PATIENCE;

/// Between two looks at what has come: the client reads notifications only while it waits for an answer.
const PAUSE: Duration = Duration::from_millis(5);

/// A client that does not connect anew by itself, and so says what was wrong.
pub type Client = RawClient<ElectrumPlaintextStream>;

/// A client of a server.
pub fn client(server: &Server) -> Client {
    let client = RawClient::new(server.address(), Some(PATIENCE), None);
    client.unwrap_or_else(|error| panic!("{error}\n{}", server.log.tail()))
}

/// Waits until a look finds something.
pub fn wait<T>(client: &Client, what: &str, mut look: impl FnMut(&Client) -> Option<T>) -> T {
    let until = Instant::now() + PATIENCE;
    loop {
        client.ping().expect("it answers");
        if let Some(found) = look(client) {
            return found;
        }
        assert!(Instant::now() < until, "no {what} came");
        std::thread::sleep(PAUSE);
    }
}

/// Waits for notifications of a script until its history is as wanted: ids with heights, in order. The last status.
pub fn wait_for_history(client: &Client, script: &Script, wanted: &[(Txid, i32)]) -> ScriptStatus {
    let mut seen = Vec::new();
    let look = |client: &Client| {
        let status = client.script_pop(script).expect("it is subscribed")?;
        seen = history(client, script);
        (seen == wanted).then_some(status)
    };
    wait(client, "status of that history", look)
}

/// Waits for notifications until this block is the tip.
pub fn wait_for_tip(client: &Client, hash: BlockHash) -> HeaderNotification {
    wait(client, "header", |client| {
        let told = client.block_headers_pop().expect("it is subscribed")?;
        (told.header.block_hash() == hash).then_some(told)
    })
}

/// Ids and heights of a script's history.
pub fn history(client: &Client, script: &Script) -> Vec<(Txid, i32)> {
    let history = client.script_get_history(script).expect("a history");
    history
        .iter()
        .map(|one| (one.tx_hash, one.height))
        .collect()
}
