//! Answers as JSON, in the form of the version that was agreed on.
//!
//! They are written as text at once: a long history never becomes a tree of values, and amounts are digits of satoshis with a
//! point among them, without a floating-point number on the way.

use super::super::jsonrpc::{Failure, code};
use super::super::query::{
    Answer, HistoryItem, MAX_HEADERS, Place, RecentItem, Refusal, TestAccepted, Tip, UnspentItem,
};
use super::super::script_hash::ScriptHash;
use super::methods::{Outpoint, Shape};
use super::version::Version;
use crate::merkle::Hash;

/// JSON text in the making.
#[derive(Debug, Default)]
pub struct Text(Vec<u8>);

impl Text {
    /// What was written.
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn raw(&mut self, text: &str) -> &mut Self {
        self.0.extend_from_slice(text.as_bytes());
        self
    }

    fn number(&mut self, number: impl Into<i128>) -> &mut Self {
        self.raw(&number.into().to_string())
    }

    /// Bytes as hexadecimal digits in quotes.
    fn hex<'a>(&mut self, bytes: impl IntoIterator<Item = &'a u8>) -> &mut Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        self.0.push(b'"');
        for byte in bytes {
            for digit in [byte >> 4, byte & 15] {
                self.0.extend(DIGITS.get(usize::from(digit)));
            }
        }
        self.0.push(b'"');
        self
    }

    /// A hash as it is shown: its bytes reversed.
    fn hash(&mut self, hash: &Hash) -> &mut Self {
        self.hex(hash.iter().rev())
    }

    fn string(&mut self, text: &str) -> &mut Self {
        let text = serde_json::Value::from(text).to_string();
        self.raw(&text)
    }

    /// Satoshis as coins: eight digits behind the point, as Bitcoin Core writes amounts.
    fn coins(&mut self, satoshis: u64) -> &mut Self {
        let (whole, part) = (satoshis / 100_000_000, satoshis % 100_000_000);
        self.raw(&format!("{whole}.{part:08}"))
    }

    fn list<T>(&mut self, items: &[T], mut each: impl FnMut(&mut Self, &T)) -> &mut Self {
        self.raw("[");
        for (index, item) in items.iter().enumerate() {
            if index > 0 {
                self.raw(",");
            }
            each(self, item);
        }
        self.raw("]")
    }

    fn hashes(&mut self, hashes: &[Hash]) -> &mut Self {
        self.list(hashes, |text, hash| {
            text.hash(hash);
        })
    }
}

/// Writes an answer.
pub fn answer(version: Version, shape: &Shape, answer: &Answer) -> Vec<u8> {
    let mut text = Text::default();
    match answer {
        Answer::Header { .. } | Answer::Headers { .. } => headers(&mut text, version, answer),
        Answer::Balance {
            confirmed,
            unconfirmed,
        } => {
            text.raw("{\"confirmed\":").number(*confirmed);
            text.raw(",\"unconfirmed\":").number(*unconfirmed).raw("}");
        }
        Answer::History(items) => wrapped(&mut text, version, "history", items, history_item),
        Answer::Unspent(items) => wrapped(&mut text, version, "utxos", items, unspent_item),
        Answer::Status(status) => script_status(&mut text, status.as_ref()),
        Answer::Outpoint { funder, spender } => outpoint(&mut text, *funder, *spender),
        Answer::Transaction(raw) => {
            text.hex(raw.iter());
        }
        Answer::Json(value) => {
            text.raw(&value.to_string());
        }
        Answer::Merkle {
            height,
            position,
            nodes,
        } => {
            text.raw("{\"block_height\":").number(*height);
            text.raw(",\"merkle\":").hashes(nodes);
            text.raw(",\"pos\":").number(*position).raw("}");
        }
        Answer::IdAt { txid, nodes: None } => {
            text.hash(txid);
        }
        Answer::IdAt {
            txid,
            nodes: Some(nodes),
        } => {
            text.raw("{\"tx_hash\":").hash(txid);
            text.raw(",\"merkle\":").hashes(nodes).raw("}");
        }
        Answer::Broadcast(txid) => {
            text.hash(txid);
        }
        Answer::Package(_) | Answer::TestAccept(_) => package(&mut text, shape, answer),
        _ => fees(&mut text, shape, answer),
    }
    text.into_bytes()
}

fn headers(text: &mut Text, version: Version, answer: &Answer) {
    let branch = match answer {
        Answer::Header {
            header,
            branch: None,
        } => {
            text.hex(header);
            return;
        }
        Answer::Header { header, branch } => {
            text.raw("{\"header\":").hex(header);
            branch
        }
        Answer::Headers { headers, branch } => {
            let all: Vec<&[u8]> = headers.chunks_exact(80).collect();
            text.raw("{\"count\":").number(all.len() as u64);
            match version < Version::V1_6 {
                true => text.raw(",\"hex\":").hex(headers.iter()),
                false => text.raw(",\"headers\":").list(&all, |text, header| {
                    text.hex(header.iter());
                }),
            };
            text.raw(",\"max\":").number(MAX_HEADERS);
            branch
        }
        _ => return,
    };
    if let Some(branch) = branch {
        text.raw(",\"root\":").hash(&branch.root);
        text.raw(",\"branch\":").hashes(&branch.nodes);
    }
    text.raw("}");
}

/// A list; in 1.7 within an object, so that further members may come.
fn wrapped<T>(
    text: &mut Text,
    version: Version,
    name: &str,
    items: &[T],
    each: impl FnMut(&mut Text, &T),
) {
    match version < Version::V1_7 {
        true => text.list(items, each),
        false => text
            .raw("{\"")
            .raw(name)
            .raw("\":")
            .list(items, each)
            .raw("}"),
    };
}

fn history_item(text: &mut Text, item: &HistoryItem) {
    text.raw("{\"tx_hash\":").hash(&item.txid);
    text.raw(",\"height\":").number(item.place.height());
    if let Some(fee) = item.fee {
        text.raw(",\"fee\":").number(fee);
    }
    text.raw("}");
}

fn unspent_item(text: &mut Text, item: &UnspentItem) {
    text.raw("{\"tx_hash\":").hash(&item.txid);
    text.raw(",\"tx_pos\":").number(item.index);
    text.raw(",\"height\":").number(item.height);
    text.raw(",\"value\":").number(item.value).raw("}");
}

fn script_status(text: &mut Text, status: Option<&[u8; 32]>) {
    match status {
        // Written as SHA-256 gives it, not reversed.
        Some(status) => text.hex(status),
        None => text.raw("null"),
    };
}

fn outpoint(text: &mut Text, funder: Option<Place>, spender: Option<(Hash, Place)>) {
    text.raw("{");
    if let Some(funder) = funder {
        text.raw("\"funder_height\":").number(funder.height());
        if let Some((txid, place)) = spender {
            text.raw(",\"spender_txhash\":").hash(&txid);
            text.raw(",\"spender_height\":").number(place.height());
        }
    }
    text.raw("}");
}

fn package(text: &mut Text, shape: &Shape, answer: &Answer) {
    match answer {
        Answer::Package(package) if matches!(shape, Shape::Package { verbose: true }) => {
            text.raw(&package.verbose.to_string());
        }
        Answer::Package(package) => {
            text.raw("{\"success\":").raw(match package.success {
                true => "true",
                false => "false",
            });
            if !package.errors.is_empty() {
                text.raw(",\"errors\":");
                text.list(&package.errors, |text, (txid, error)| {
                    text.raw("{\"txid\":").hash(txid);
                    text.raw(",\"error\":").string(error).raw("}");
                });
            }
            text.raw("}");
        }
        Answer::TestAccept(all) => {
            text.list(all, test_accepted);
        }
        _ => {}
    }
}

fn test_accepted(text: &mut Text, one: &TestAccepted) {
    text.raw("{\"txid\":").hash(&one.txid);
    text.raw(",\"wtxid\":").hash(&one.wtxid);
    match one.allowed {
        Some(true) => text.raw(",\"allowed\":true"),
        Some(false) => text.raw(",\"allowed\":false"),
        None => text,
    };
    if let Some(reason) = &one.reason {
        text.raw(",\"reason\":").string(reason);
    }
    text.raw("}");
}

fn fees(text: &mut Text, shape: &Shape, answer: &Answer) {
    match answer {
        Answer::EstimateFee(None) => {
            text.raw("-1");
        }
        Answer::EstimateFee(Some(rate)) => {
            text.coins(*rate);
        }
        Answer::MempoolInfo { relay_min, .. } if *shape == Shape::RelayFee => {
            text.coins(*relay_min);
        }
        Answer::MempoolInfo {
            mempool_min,
            relay_min,
            incremental,
        } => {
            text.raw("{\"mempoolminfee\":").coins(*mempool_min);
            text.raw(",\"minrelaytxfee\":").coins(*relay_min);
            text.raw(",\"incrementalrelayfee\":").coins(*incremental);
            text.raw("}");
        }
        Answer::FeeHistogram(rows) => {
            text.list(rows, |text, (rate, vsize)| {
                // A number that JSON can't have is written as null by serde_json; no rate is.
                let rate = serde_json::Value::from(if rate.is_finite() { *rate } else { 0.0 });
                text.raw("[").raw(&rate.to_string());
                text.raw(",").number(*vsize).raw("]");
            });
        }
        Answer::Recent(items) => {
            text.list(items, recent_item);
        }
        _ => {}
    }
}

fn recent_item(text: &mut Text, item: &RecentItem) {
    text.raw("{\"txid\":").hash(&item.txid);
    text.raw(",\"fee\":").number(item.fee);
    text.raw(",\"vsize\":").number(item.vsize).raw("}");
}

/// A tip as `blockchain.headers.subscribe` tells it.
pub fn tip(tip: &Tip) -> Vec<u8> {
    let mut text = Text::default();
    text.raw("{\"height\":").number(tip.height);
    text.raw(",\"hex\":").hex(&tip.header).raw("}");
    text.into_bytes()
}

/// A text as JSON.
pub fn string(text: &str) -> Vec<u8> {
    serde_json::Value::from(text).to_string().into_bytes()
}

/// The parameters of a script's notification. Also in 1.7 they have the script's hash.
pub fn script_changed(script: &ScriptHash, status: Option<&[u8; 32]>) -> Vec<u8> {
    let mut text = Text::default();
    text.raw("\"").raw(&script.to_string()).raw("\",");
    script_status(&mut text, status);
    text.into_bytes()
}

/// The parameters of an output's notification.
pub fn outpoint_changed(
    (txid, index): &Outpoint,
    funder: Option<Place>,
    spender: Option<(Hash, Place)>,
) -> Vec<u8> {
    let mut text = Text::default();
    text.hash(txid).raw(",").number(*index).raw(",");
    outpoint(&mut text, funder, spender);
    text.into_bytes()
}

/// What the protocol says when there is no answer.
pub fn refusal(version: Version, shape: &Shape, refusal: &Refusal) -> Failure {
    let bad = |message| Failure::new(code::BAD_REQUEST, message);
    match (refusal, shape) {
        (Refusal::Bad(message), _) => bad(message.clone()),
        // ElectrumX's words, which wallets take apart.
        (Refusal::Node { message, .. }, Shape::Broadcast(raw)) => {
            let mut hex = Text::default();
            hex.hex(raw.iter());
            let hex = String::from_utf8(hex.into_bytes()).unwrap_or_default();
            let hex = hex.trim_matches('"');
            bad(format!(
                "the transaction was rejected by network rules.\n\n{message}\n[{hex}]"
            ))
        }
        (Refusal::Node { message, .. }, Shape::Package { .. }) => bad(format!(
            "the tx package was rejected by network rules.\n\n{message}."
        )),
        (Refusal::Node { message, .. }, _) => {
            Failure::new(code::NODE, format!("daemon error: {message}"))
        }
        (Refusal::HistoryTooLarge, _) => {
            let code = match version < Version::V1_7 {
                true => code::BAD_REQUEST,
                false => code::HISTORY_TOO_LARGE,
            };
            Failure::new(code, "history too large")
        }
        (Refusal::Unavailable(lacking), _) => {
            Failure::new(code::UNAVAILABLE, format!("unavailable: {lacking}"))
        }
        (Refusal::Busy, _) => Failure::new(code::BUSY, "server busy"),
        (Refusal::Internal, _) => Failure::new(code::INTERNAL, "internal server error"),
    }
}

#[cfg(test)]
mod tests;
