//! Calls of the demo's nodes, off the thread that watches them.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use crate::node::client::post;
use crate::node::datadir::read_cookie;

/// Bytes of hex in one batch: the node takes 8 MB a call.
const BATCH_BYTES: usize = 2_000_000;
/// Calls in one batch: the node takes 1,000.
const BATCH_CALLS: usize = 500;

/// Where a node answers.
#[derive(Clone, Debug)]
pub struct Rpc {
    address: SocketAddr,
    login: String,
}

impl Rpc {
    /// The node at `address`, with the cookie in its folder.
    ///
    /// # Errors
    ///
    /// The cookie can't be read.
    pub fn new(address: SocketAddr, folder: &Path) -> anyhow::Result<Self> {
        let (user, password) = read_cookie(folder).context("can't read a node's cookie")?;
        let login = BASE64_STANDARD.encode(format!("{user}:{password}"));
        Ok(Self { address, login })
    }

    /// Calls a method.
    ///
    /// # Errors
    ///
    /// The node is not there, or answers with an error.
    pub async fn call(&self, method: &str, parameters: Value) -> anyhow::Result<Value> {
        let request = request(method, parameters);
        let mut response = self.send(request.to_string()).await?;
        check(method, &response)?;
        Ok(response
            .get_mut("result")
            .map(Value::take)
            .unwrap_or_default())
    }

    /// Gives the node transactions, in hex.
    ///
    /// # Errors
    ///
    /// The node is not there, or refuses one.
    pub async fn hold(&self, transactions: Vec<&str>) -> anyhow::Result<()> {
        let mut batch = Vec::new();
        let mut bytes = 0;
        let mut rest = transactions.into_iter().peekable();
        while let Some(transaction) = rest.next() {
            batch.push(request("sendrawtransaction", json!([transaction])));
            bytes += transaction.len();
            let next = rest.peek().map(|next| next.len());
            let goes_on = next.is_some_and(|next| bytes + next <= BATCH_BYTES);
            if goes_on && batch.len() < BATCH_CALLS {
                continue;
            }
            let body = Value::Array(std::mem::take(&mut batch)).to_string();
            bytes = 0;
            let responses = self.send(body).await?;
            let responses = responses
                .as_array()
                .ok_or_else(|| anyhow!("a node does not take a batch of calls"))?;
            for response in responses {
                check("sendrawtransaction", response)?;
            }
        }
        Ok(())
    }

    async fn send(&self, body: String) -> anyhow::Result<Value> {
        let Self { address, login } = self.clone();
        let sent = tokio::task::spawn_blocking(move || post(&address.to_string(), &login, body));
        let (status, text) = sent
            .await
            .context("a call was cut short")?
            .with_context(|| format!("the node at {} does not answer", self.address))?;
        serde_json::from_str(&text)
            .with_context(|| format!("the node at {} answers with status {status}", self.address))
    }
}

fn request(method: &str, parameters: Value) -> Value {
    json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters})
}

fn check(method: &str, response: &Value) -> anyhow::Result<()> {
    match response.get("error") {
        None | Some(Value::Null) => Ok(()),
        Some(error) => bail!(
            "{method} is refused: {}",
            error["message"].as_str().unwrap_or("?")
        ),
    }
}
